// Package chain reads the history of one volume from any set of stores: which batches there are, which of them the volume's
// owners made, how they hang together, and the shards that they name. Every object is read from the nearest store that has
// it; one that is absent or damaged there is read from the next, and the fault is noted.
//
// Nothing of a store is believed before it is checked. An epoch counts when its key is one of the given owners' or was named
// by a valid batch of the epoch before; a batch counts when that key signed it, it lies at the path that its envelope names,
// and the next one names its digest; a shard counts when its bytes have the digest that such a batch names.
//
// The package only reads, so a crash leaves nothing behind.
package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// Classes of errors.
var (
	// ErrNoBatch: there is no batch that could be used, or none at the moment asked for.
	ErrNoBatch = errors.New("no usable batch")
	// ErrOwner: no epoch was begun by a known owner.
	ErrOwner = errors.New("no batch is signed by a known owner")
	// ErrIdentity: the batch or shard is encrypted to other recipients.
	ErrIdentity = errors.New("the identity does not open it")
	// ErrMissing: no store has a sound copy of an object.
	ErrMissing = errors.New("no store has it")
)

// NamedStore is a store and the name to use in messages.
type NamedStore struct {
	Name  string
	Store store.Store // rooted at the volume
}

// Source is a set of stores of one volume, nearest first.
type Source struct {
	Stores []NamedStore
	IDs    []age.Identity
	Silent []Fault     // stores that did not answer when the volume was looked for: among the faults from the beginning
	Owners []string    // keys that may own the volume (authorized_keys form); every envelope is checked against the chain of owners
	Epoch  batch.Epoch // the history up to the end of this epoch, as if no other had begun behind it; 0: the whole
}

// Slot is one place in the chain: a batch, and the stores that list it.
type Slot struct {
	Epoch       batch.Epoch
	First, Last batch.Seq
	Size        int64
	stores      []int
}

// Path returns the batch's name in a store.
func (s *Slot) Path() string { return batch.Path(s.Epoch, s.First, s.Last) }

// Line is the volume's main line: the batches from the oldest that the stores list to the newest of the highest valid epoch.
type Line struct {
	*Reader
	VolumeID batch.VolumeID
	Slots    []Slot // ascending
	Side     []Slot // listed, but of an epoch or a branch that does not count

	src  Source
	keys map[batch.Epoch]string // the one key of each valid epoch
}

// Open lists the stores and finds out which epochs count.
func Open(ctx context.Context, src Source) (*Line, error) {
	if len(src.Stores) == 0 {
		return nil, fmt.Errorf("read volume: %w: no store given", ErrNoBatch)
	}
	l := &Line{Reader: newReader(src), src: src, keys: make(map[batch.Epoch]string)}
	all, err := l.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read volume: %w: the stores hold no batch", ErrNoBatch)
	}
	epochs := byEpoch(all)
	if err := l.trust(ctx, epochs); err != nil {
		return nil, err
	}
	l.straighten(epochs)
	return l, nil
}

// list asks every store for its batches. A store that cannot be listed is a fault, not the end, as long as one can.
func (l *Line) list(ctx context.Context) ([]Slot, error) {
	found := make([][]Slot, len(l.src.Stores))
	failed := make([]error, len(l.src.Stores))
	var g errgroup.Group
	for i, s := range l.src.Stores {
		g.Go(func() error {
			found[i], failed[i] = l.listStore(ctx, s)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bad := 0
	for i, err := range failed {
		if err != nil {
			bad++
			l.fault(i, "batches", err)
		}
	}
	if bad == len(found) {
		return nil, fmt.Errorf("list batches: %w", errors.Join(failed...))
	}
	return l.upTo(merge(found)), nil
}

// upTo leaves out what lies behind the epoch asked for.
func (l *Line) upTo(all []Slot) []Slot {
	if l.src.Epoch == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(s Slot) bool { return s.Epoch > l.src.Epoch })
}

// merge makes one list of what the stores list, and notes which of them have each batch.
func merge(found [][]Slot) []Slot {
	type id struct {
		e           batch.Epoch
		first, last batch.Seq
	}
	merged := make(map[id]*Slot)
	for i := range found {
		for _, s := range found[i] {
			k := id{s.Epoch, s.First, s.Last}
			if merged[k] == nil {
				merged[k] = &s
			}
			merged[k].stores = append(merged[k].stores, i)
			merged[k].Size = max(merged[k].Size, s.Size)
		}
	}
	all := make([]Slot, 0, len(merged))
	for _, s := range merged {
		all = append(all, *s)
	}
	slices.SortFunc(all, compareSlots)
	return all
}

// compareSlots orders by epoch and last sequence; of those that end together the one that was sealed so comes last, behind
// those that stand for a range.
func compareSlots(a, b Slot) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Last, b.Last), cmp.Compare(a.First, b.First))
}

// List returns the batches that one store lists, whoever signed them, ascending; other names below batches/ are returned too.
func List(ctx context.Context, s store.Store) (slots []Slot, other []string, err error) {
	epochs, err := s.List(ctx, "batches")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range epochs {
		groups, err := s.List(ctx, "batches/"+e.Name)
		if err != nil {
			return nil, nil, err
		}
		for _, g := range groups {
			dir := "batches/" + e.Name + "/" + g.Name
			files, err := s.List(ctx, dir)
			if err != nil {
				return nil, nil, err
			}
			for _, f := range files {
				epoch, first, last, err := batch.ParsePath(dir + "/" + f.Name)
				if err != nil || f.Dir {
					other = append(other, dir+"/"+f.Name)
					continue
				}
				slots = append(slots, Slot{Epoch: epoch, First: first, Last: last, Size: f.Size})
			}
		}
	}
	slices.SortFunc(slots, compareSlots)
	return slots, other, nil
}

func (l *Line) listStore(ctx context.Context, s NamedStore) (slots []Slot, err error) {
	err = retry(ctx, func() error {
		slots, _, err = List(ctx, s.Store)
		return err
	})
	return slots, err
}

// straighten makes the line: each valid epoch up to where the next begins. What is left over is side.
func (l *Line) straighten(epochs [][]Slot) {
	for _, e := range epochs {
		if l.keys[e[0].Epoch] == "" {
			l.Side = append(l.Side, e...)
			continue
		}
		from := e[0].First
		cut := slices.IndexFunc(l.Slots, func(s Slot) bool { return s.Last >= from })
		if cut >= 0 {
			l.Side = append(l.Side, l.Slots[cut:]...)
			l.Slots = l.Slots[:cut]
		}
		for i, s := range e {
			// One place, several files: the batch as sealed wins over one that stands for a range which ends there.
			if i+1 < len(e) && e[i+1].Last == s.Last {
				l.Side = append(l.Side, s)
				continue
			}
			l.Slots = append(l.Slots, s)
		}
	}
}

// Main tells whether a slot lies on the main line.
func (l *Line) Main(s *Slot) bool {
	i, ok := slices.BinarySearchFunc(l.Slots, s.Last, func(a Slot, last batch.Seq) int { return cmp.Compare(a.Last, last) })
	return ok && l.Slots[i].Epoch == s.Epoch && l.Slots[i].First == s.First
}

func byEpoch(all []Slot) [][]Slot {
	var epochs [][]Slot
	for i, s := range all {
		if i == 0 || s.Epoch != all[i-1].Epoch {
			epochs = append(epochs, nil)
		}
		epochs[len(epochs)-1] = append(epochs[len(epochs)-1], s)
	}
	return epochs
}

// Moment is a batch as a listing shows it.
type Moment struct {
	Epoch    batch.Epoch
	Seq      batch.Seq
	SealedAt time.Time
	Node     string
	Complete bool
	Why      string
	Counts   batch.Counts
}

// History returns every moment of the main line that can be read, oldest first.
func (l *Line) History(ctx context.Context) ([]Moment, error) {
	moments := make([]*Moment, len(l.Slots))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	var mu sync.Mutex
	for i := range l.Slots {
		g.Go(func() error {
			b, err := l.Batch(ctx, &l.Slots[i])
			if errors.Is(err, ErrMissing) {
				return nil // it is among the faults
			}
			if err != nil {
				return err
			}
			e := &b.Envelope
			mu.Lock()
			defer mu.Unlock()
			moments[i] = &Moment{e.Epoch, e.Last, e.SealedAt, e.Node, e.Complete, e.Why, e.Counts}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var list []Moment
	for _, m := range moments {
		if m != nil {
			list = append(list, *m)
		}
	}
	return list, nil
}
