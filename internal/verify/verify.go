// Package verify checks what stores hold: signatures, the chain of batches, the presence and size of every shard; on request
// also every shard's digest and, with an identity, that everything opens and every chunk is what its id says.
//
// It only reads, so a crash leaves nothing.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// Finding is one thing wrong in one store.
type Finding struct {
	MessageType string `json:"message_type"` // "finding"
	Store       string `json:"store"`
	Object      string `json:"object"`
	Problem     string `json:"problem"`
}

// Summary says what was looked at in one store.
type Summary struct {
	MessageType string `json:"message_type"` // "summary"
	Store       string `json:"store"`
	Volume      string `json:"volume"`
	Batches     int    `json:"batches"`
	Head        uint64 `json:"head_batch"`
	Shards      int    `json:"shards"`
	Bytes       int64  `json:"bytes"`
	DataRead    bool   `json:"data_read"`
	Refused     int    `json:"refused"` // objects that the store's daemon set aside
	Unnamed     int    `json:"unnamed"` // shards that no batch names: on their way, or left behind
	Evicted     int    `json:"evicted"` // shards that are no longer there and need not be
	Findings    int    `json:"findings"`
}

// Options of a verification.
type Options struct {
	ReadData bool
	// Evicts: the store may drop shards that the backup hosts have (a cache, a node's own store), so an absent one is no finding.
	Evicts   func(store string) bool
	Progress func(done, total int64) // bytes; called from several goroutines, one at a time
	Found    func(Finding)           // called for each finding, one at a time
}

// inFlight is how many shards are read at once.
const inFlight = 4

// Store checks one store of a volume. The error is for what kept it from being checked, not for what was found.
func Store(ctx context.Context, src restore.Source, volume string, opt Options) (*Summary, error) {
	s := src.Stores[0]
	c := &check{
		opt: opt, store: s.Store, report: newReport(s.Name, opt.Found),
		sum: &Summary{MessageType: "summary", Store: s.Name, Volume: volume, DataRead: opt.ReadData},
	}
	line, err := chain.Open(ctx, src)
	if err != nil {
		if temporary(ctx, err) {
			return nil, err
		}
		c.report.add("batches", err)
		return c.end(), nil
	}
	for _, step := range []func(context.Context, *chain.Line) error{c.batches, c.listed, c.shards} {
		if err := step(ctx, line); err != nil {
			return nil, err
		}
	}
	if len(src.IDs) > 0 && opt.ReadData {
		if err := c.content(ctx, src); err != nil {
			return nil, err
		}
	}
	for _, f := range line.Faults() {
		c.report.add(f.Object, f.Err)
	}
	return c.end(), nil
}

type check struct {
	opt    Options
	store  store.Store
	report *report
	sum    *Summary

	named   map[shard.Digest]int64 // what the batches introduce, by size
	present map[shard.Digest]int64
}

func (c *check) end() *Summary {
	c.sum.Findings = c.report.count()
	return c.sum
}

// temporary tells errors of the connection, which say nothing of what the store holds.
func temporary(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, store.ErrTemporary) || errors.Is(err, store.ErrAuth) || errors.Is(err, store.ErrHostKey)
}

// batches reads every batch of the line, checks its signature and the chain, opens its body where there is an identity, and
// notes what it introduces.
func (c *check) batches(ctx context.Context, line *chain.Line) error {
	c.named = map[shard.Digest]int64{}
	var before *batch.Envelope
	var digest batch.Digest
	base := batch.Seq(0)
	for i := range line.Slots {
		slot := &line.Slots[i]
		b, err := line.Batch(ctx, slot)
		if err != nil {
			if temporary(ctx, err) {
				return err
			}
			c.report.add(slot.Path(), err)
			before = nil
			continue
		}
		env := &b.Envelope
		if before != nil && !follows(before, digest, env) {
			c.report.add(slot.Path(), fmt.Errorf("%w: it is not chained to batch %d before it", batch.ErrCorrupt, before.Last))
		}
		before, digest, base = env, b.Digest, env.Base
		c.sum.Batches++
		c.sum.Head = uint64(env.Last)
		c.sum.Bytes += slot.Size
		for _, o := range env.Introduces {
			c.named[o.Digest] = o.Size
		}
	}
	if len(line.Slots) > 0 && base > 0 && line.Slots[0].First > base {
		c.report.add("batches", fmt.Errorf("the oldest batch is %d, and the newest refers back to %d", line.Slots[0].First, base))
	}
	for i := range line.Side {
		c.report.add(line.Side[i].Path(), errors.New("not of the line of this volume's owners"))
	}
	return nil
}

func follows(before *batch.Envelope, digest batch.Digest, env *batch.Envelope) bool {
	if env.Prev == nil || env.First != before.Last+1 {
		return false
	}
	return *env.Prev == digest || before.StandsFor != nil && *env.Prev == *before.StandsFor
}

// listed lists the shards that are there, and what the daemon set aside.
func (c *check) listed(ctx context.Context, _ *chain.Line) error {
	c.present = map[shard.Digest]int64{}
	dirs, err := c.store.List(ctx, "shards")
	if err != nil {
		return fmt.Errorf("list shards: %w", err)
	}
	for _, d := range dirs {
		files, err := c.store.List(ctx, "shards/"+d.Name)
		if err != nil {
			return fmt.Errorf("list shards: %w", err)
		}
		for _, f := range files {
			name := "shards/" + d.Name + "/" + f.Name
			digest, err := shard.ParsePath(name)
			if err != nil {
				c.report.add(name, errors.New("not the name of a shard"))
				continue
			}
			c.present[digest] = f.Size
			if _, ok := c.named[digest]; !ok {
				c.sum.Unnamed++
			}
		}
	}
	refused, err := c.store.List(ctx, "refused")
	if err != nil {
		return fmt.Errorf("list refused objects: %w", err)
	}
	c.sum.Refused = len(refused)
	return nil
}

// shards compares what is there with what the batches introduce, and reads it where asked to.
func (c *check) shards(ctx context.Context, line *chain.Line) error {
	evicts := c.opt.Evicts != nil && c.opt.Evicts(c.sum.Store)
	var read []shard.Digest
	for d, size := range c.named {
		got, ok := c.present[d]
		switch {
		case !ok && evicts:
			c.sum.Evicted++
		case !ok:
			c.report.add(d.Path(), store.ErrNotExist)
		case got != size:
			c.report.add(d.Path(), fmt.Errorf("%w: it has %d bytes, not %d", shard.ErrCorrupt, got, size))
		default:
			c.sum.Shards++
			c.sum.Bytes += size
			read = append(read, d)
		}
	}
	if !c.opt.ReadData {
		return nil
	}
	sort.Slice(read, func(i, j int) bool { return read[i].Path() < read[j].Path() })
	return c.read(ctx, line, read)
}

// read compares shards with their digests. What is damaged is among the line's faults.
func (c *check) read(ctx context.Context, line *chain.Line, list []shard.Digest) error {
	progress := newMeter(c.opt.Progress)
	for _, d := range list {
		progress.total += c.named[d]
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for _, d := range list {
		group.Go(func() error {
			_, err := line.Shard(ctx, d)
			if err != nil && temporary(ctx, err) {
				return err
			}
			progress.add(c.named[d])
			return nil
		})
	}
	return group.Wait()
}

// content reads every file of the newest tree, which compares every chunk with its id.
func (c *check) content(ctx context.Context, src restore.Source) error {
	tree, err := restore.Load(ctx, src, restore.At{})
	if err != nil {
		if temporary(ctx, err) {
			return err
		}
		c.report.add("newest tree", err)
		return nil
	}
	seen := map[batch.FileID]bool{}
	return tree.Walk("", func(r restore.Row) error {
		if r.Err != nil {
			c.report.add(r.Path, r.Err)
			return nil
		}
		if r.Mode&0o170000 != 0o100000 || r.State == "pending" || seen[r.ID] {
			return nil
		}
		seen[r.ID] = true
		err := tree.Cat(ctx, r.Path, io.Discard)
		if err != nil && temporary(ctx, err) {
			return err
		}
		if err != nil && (c.opt.Evicts == nil || !c.opt.Evicts(c.sum.Store) || !errors.Is(err, chain.ErrMissing)) {
			c.report.add(r.Path, err)
		}
		return nil
	})
}
