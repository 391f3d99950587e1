// Package verify checks what stores hold of a volume: every batch's signature, place and link to the one before, and that
// every shard is there with the right size. On request it reads all data and compares digests, and with an identity every
// chunk's id.
//
// Each store is checked for itself, because each has to be able to restore alone. The package only reads, so a crash leaves
// nothing behind.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// ErrNothing means that a store holds no batch.
var ErrNothing = errors.New("nothing to verify")

// Options of a verification.
type Options struct {
	ReadData bool
	MayEvict map[string]bool         // stores (by name) that may have evicted shards: an absent one is counted, not found
	Progress func(done, total int64) // bytes; called from several goroutines, one at a time
}

// Finding is something wrong with one object of one store.
type Finding struct {
	Store  string
	Object string
	Err    error
}

// Report is the outcome.
type Report struct {
	Findings []Finding // sorted by store and object; none: all is well
	Batches  int64
	Shards   int64
	Bytes    int64  // read and compared, with ReadData
	Evicted  int64  // shards that stores which may evict do not have
	Owner    string // no owner was given: the key that the oldest batch names, which proves nothing about who wrote it
}

const (
	inFlight = 16 // small objects read at once from one store
	readers  = 4  // shards read at once
)

// verifier is one verification.
type verifier struct {
	line *chain.Line
	src  chain.Source
	opt  Options

	mu     sync.Mutex
	report Report
	found  map[[2]string]bool // store and object of the findings
	done   int64
	total  int64
}

// Verify checks all stores. An error means that the check itself could not be done.
func Verify(ctx context.Context, src chain.Source, opt Options) (*Report, error) {
	v := &verifier{src: src, opt: opt, found: make(map[[2]string]bool)}
	if err := v.open(ctx); err != nil {
		return nil, err
	}
	if v.line == nil {
		return &v.report, nil
	}
	holdings := make([]*holding, len(src.Stores))
	for i, s := range src.Stores {
		h, err := v.look(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", s.Name, err)
		}
		holdings[i] = h
	}
	for _, h := range holdings {
		v.shards(h)
	}
	if opt.ReadData {
		for _, h := range holdings {
			v.total += h.bytes()
		}
		for _, h := range holdings {
			if err := v.data(ctx, h); err != nil {
				return nil, fmt.Errorf("verify %s: %w", h.store.Name, err)
			}
		}
	}
	slices.SortFunc(v.report.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Store, b.Store), cmp.Compare(a.Object, b.Object)) })
	return &v.report, nil
}

// open finds the volume's line. Without a known owner it takes the key that the oldest batch names, and says so.
func (v *verifier) open(ctx context.Context) error {
	if len(v.src.Owners) == 0 {
		key, err := chain.FirstKey(ctx, v.src)
		if err != nil && !errors.Is(err, chain.ErrNoBatch) {
			return err
		}
		v.src.Owners, v.report.Owner = []string{key}, key
	}
	line, err := chain.Open(ctx, v.src)
	switch {
	case errors.Is(err, chain.ErrNoBatch):
		for _, s := range v.src.Stores {
			v.find(s, "batches", ErrNothing)
		}
		return nil
	case errors.Is(err, chain.ErrOwner):
		v.report.Findings = append(v.report.Findings, Finding{Object: "batches", Err: err})
		return nil
	case err != nil:
		return err
	}
	v.line = line
	for _, f := range line.Faults() {
		v.find(chain.NamedStore{Name: f.Store}, f.Object, f.Err)
	}
	return nil
}

func (v *verifier) find(s chain.NamedStore, object string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := [2]string{s.Name, object}; !v.found[k] {
		v.found[k] = true
		v.report.Findings = append(v.report.Findings, Finding{s.Name, object, err})
	}
}

// holding is what one store holds.
type holding struct {
	store   chain.NamedStore
	batches []held                 // of the main line, ascending
	shards  map[shard.Digest]int64 // listed, with their sizes
	needed  []batch.Object         // introduced since the head's base, in order
}

// held is a batch of the main line that is sound in itself.
type held struct {
	slot chain.Slot
	env  batch.Envelope
	sum  batch.Digest
}

func (h *holding) bytes() (n int64) {
	for _, o := range h.needed {
		if h.shards[o.Digest] == o.Size {
			n += o.Size
		}
	}
	return n
}

// look lists a store and checks its batches.
func (v *verifier) look(ctx context.Context, s chain.NamedStore) (*holding, error) {
	h := &holding{store: s, shards: make(map[shard.Digest]int64)}
	slots, other, err := chain.List(ctx, s.Store)
	if err != nil {
		return nil, err
	}
	for _, name := range other {
		v.find(s, name, errors.New("not the name of a batch"))
	}
	if len(slots) == 0 {
		v.find(s, "batches", ErrNothing)
	}
	found := make([]*held, len(slots))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i := range slots {
		g.Go(func() (err error) {
			found[i], err = v.batch(gctx, s, slots[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, b := range found {
		if b != nil && v.line.Main(&b.slot) {
			h.batches = append(h.batches, *b)
		}
	}
	v.links(h)
	return h, v.listShards(ctx, h)
}

// batch checks one batch file; nil if something is wrong with it.
func (v *verifier) batch(ctx context.Context, s chain.NamedStore, slot chain.Slot) (*held, error) {
	b, err := v.line.BatchOf(ctx, s.Store, &slot)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, store.ErrTemporary) {
			return nil, err
		}
		v.find(s, slot.Path(), err)
		return nil, nil
	}
	v.mu.Lock()
	v.report.Batches++
	v.mu.Unlock()
	return &held{slot: slot, env: b.Envelope, sum: b.Digest}, nil
}

// links checks that a store's batches hang together, from the base of its newest on.
func (v *verifier) links(h *holding) {
	n := len(h.batches)
	if n == 0 {
		return
	}
	base := h.batches[n-1].env.Base
	if first := &h.batches[0]; first.env.First > base {
		v.find(h.store, fmt.Sprintf("batches %d to %d", base, first.env.First-1), chain.ErrMissing)
	}
	for i := range h.batches {
		b := &h.batches[i]
		if b.env.Last < base {
			continue
		}
		h.needed = append(h.needed, b.env.Introduces...)
		if i == 0 || b.env.First == base {
			continue
		}
		before := &h.batches[i-1]
		switch prev := b.env.Prev; {
		case before.env.Last+1 != b.env.First:
			v.find(h.store, fmt.Sprintf("batches %d to %d", before.env.Last+1, b.env.First-1), chain.ErrMissing)
		case prev == nil || *prev != before.sum && (before.env.StandsFor == nil || *prev != *before.env.StandsFor):
			v.find(h.store, b.slot.Path(), fmt.Errorf("%w: it is not chained to the batch before it", batch.ErrCorrupt))
		}
	}
}

// listShards notes which shards the store lists.
func (v *verifier) listShards(ctx context.Context, h *holding) error {
	dirs, err := h.store.Store.List(ctx, "shards")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, d := range dirs {
		g.Go(func() error {
			list, err := h.store.Store.List(gctx, "shards/"+d.Name)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, i := range list {
				name := "shards/" + d.Name + "/" + i.Name
				digest, err := shard.ParsePath(name)
				if err != nil || i.Dir {
					v.find(h.store, name, errors.New("not the name of a shard"))
					continue
				}
				h.shards[digest] = i.Size
			}
			return nil
		})
	}
	return g.Wait()
}

// shards compares what the batches introduce with what is listed.
func (v *verifier) shards(h *holding) {
	for _, o := range h.needed {
		size, there := h.shards[o.Digest]
		switch {
		case there && size == o.Size:
			v.report.Shards++
		case there:
			v.find(h.store, o.Digest.Path(), fmt.Errorf("%w: %d bytes instead of %d", shard.ErrCorrupt, size, o.Size))
		case v.opt.MayEvict[h.store.Name]:
			v.report.Evicted++
		default:
			v.find(h.store, o.Digest.Path(), store.ErrNotExist)
		}
	}
}

func (v *verifier) read(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += n
	v.report.Bytes += n
	if v.opt.Progress != nil {
		v.opt.Progress(v.done, v.total)
	}
}

// data reads every shard of a store, batch by batch.
func (v *verifier) data(ctx context.Context, h *holding) error {
	keys, err := v.secret(ctx, h)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i := range h.batches {
		b := &h.batches[i]
		if len(b.env.Introduces) == 0 || b.env.Last < h.batches[len(h.batches)-1].env.Base || gctx.Err() != nil {
			continue
		}
		g.Go(func() error { return v.batchData(gctx, h, b, keys) })
	}
	return g.Wait()
}
