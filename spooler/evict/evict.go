// Package evict keeps the node's own store under its cap: it removes the local copies of shards that other stores have.
//
// After a crash: a shard that the catalog calls evicted may lie in the own store still, and the next Open removes it. One that
// the catalog does not call evicted was not touched. Batch files are never removed.
package evict

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/shard"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// Usage counts the bytes of the node's own store. Safe for concurrent use; the zero value is empty.
type Usage struct{ n atomic.Int64 }

// Add counts bytes that came, or went when negative.
func (u *Usage) Add(n int64) { u.n.Add(n) }

// Bytes returns how many there are.
func (u *Usage) Bytes() int64 { return u.n.Load() }

// pressure is the share of the cap, in hundredths, from which local copies go as soon as two other stores have them.
const pressure = 80

// kept is the share of the cap, in hundredths, up to which local copies stay although the backup hosts have them: restores are fast from
// here, and a node that becomes a replica peer (slipway demote) need not fetch what it once had.
const kept = 60

// maxStep bounds how many shards one step removes: each is looked up at the hosts first.
const maxStep = 256

// Heads say which batches are safe without the local copy.
type Heads struct {
	Stored batch.Seq // `copies` backup hosts have everything up to here
	Twice  batch.Seq // two independent stores other than this node have; counts under pressure alone
}

// localShard is a shard that lies in the own store and is introduced by a batch.
type localShard struct {
	seq batch.Seq
	obj batch.Object
}

// Evictor keeps the own store under its cap. It removes shards only; batch files stay, they are what the history is read from.
type Evictor struct {
	own   store.Store
	cat   *catalog.Catalog
	cap   int64 // 0: none
	usage *Usage

	// confirm looks a shard up at the backup hosts before the local copy goes, confirmTwice one that goes under pressure at
	// any two stores; nil: the heads are believed.
	Confirm, ConfirmTwice func(ctx context.Context, o batch.Object) (bool, error)

	mu    sync.Mutex   // guards what follows
	local []localShard // by seq
}

// Open takes stock of the own store: what lies there, how many bytes that is. A shard that the catalog calls evicted
// and that lies there still is removed: the last run died in between.
func Open(ctx context.Context, own store.Store, cat *catalog.Catalog, cap int64, usage *Usage) (*Evictor, error) {
	e := &Evictor{own: own, cat: cat, cap: cap, usage: usage}
	var left []batch.Object
	err := eachOwnShard(ctx, own, func(o batch.Object) error {
		info, ok, err := shardInfo(cat, o.Digest)
		switch {
		case err != nil:
			return err
		case ok && info.Evicted:
			left = append(left, o)
			return nil
		case ok:
			e.local = append(e.local, localShard{seq: info.Seq, obj: o})
		}
		usage.Add(o.Size)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take stock of the own store: %w", err)
	}
	for _, o := range left {
		if err := own.Remove(ctx, o.Digest.Path()); err != nil {
			return nil, fmt.Errorf("remove evicted shard %s: %w", o.Digest, err)
		}
	}
	slices.SortFunc(e.local, func(a, b localShard) int { return cmp.Compare(a.seq, b.seq) })
	return e, addBatchFiles(ctx, own, usage)
}

func addBatchFiles(ctx context.Context, own store.Store, usage *Usage) error {
	epochs, err := own.List(ctx, "batches")
	if err != nil {
		return fmt.Errorf("take stock of the own store: %w", err)
	}
	for _, e := range epochs {
		groups, err := own.List(ctx, path.Join("batches", e.Name))
		if err != nil {
			return fmt.Errorf("take stock of the own store: %w", err)
		}
		for _, g := range groups {
			files, err := own.List(ctx, path.Join("batches", e.Name, g.Name))
			if err != nil {
				return fmt.Errorf("take stock of the own store: %w", err)
			}
			for _, f := range files {
				usage.Add(f.Size)
			}
		}
	}
	return nil
}

// Committed tells of the shards that a batch introduced. Their bytes were counted when they were published.
func (e *Evictor) Committed(seq batch.Seq, objects []batch.Object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range objects {
		e.local = append(e.local, localShard{seq: seq, obj: o})
	}
}

// pressed tells whether the own store is so full that two other stores have to do.
func (e *Evictor) pressed() bool {
	return e.cap > 0 && e.usage.Bytes() >= e.cap/100*pressure
}

// Once removes local copies that are no longer needed, oldest first, and returns how many bytes became free. It stops at
// the first one that is not confirmed: the hosts' heads promise more than is there, and the next step asks again.
//
// The catalog says evicted before the file goes. Dying in between leaves a file that the next start removes; the other order
// would leave a shard that looks lost.
func (e *Evictor) Once(ctx context.Context, heads Heads) (freed int64, err error) {
	need := e.surplus()
	if need <= 0 {
		return 0, nil
	}
	upto := heads.Stored
	if e.pressed() {
		upto = max(upto, heads.Twice)
	}
	going, cerr := e.confirmed(ctx, e.candidates(upto, need), heads.Stored)
	if len(going) == 0 {
		return 0, cerr
	}
	if err := e.markEvicted(going); err != nil {
		return 0, errors.Join(cerr, fmt.Errorf("note evicted shards: %w", err))
	}
	e.forget(len(going))
	errs := []error{cerr}
	for _, l := range going {
		if err := e.own.Remove(ctx, l.obj.Digest.Path()); err != nil {
			errs = append(errs, fmt.Errorf("remove evicted shard %s: %w", l.obj.Digest, err))
			continue
		}
		freed += l.obj.Size
	}
	e.usage.Add(-freed)
	return freed, errors.Join(errs...)
}

// surplus returns how many bytes there are above what is kept in any case; without a cap, all.
func (e *Evictor) surplus() int64 { return e.usage.Bytes() - e.cap/100*kept }

// candidates returns the oldest local shards up to a batch, as many as it takes to free the bytes that are needed.
func (e *Evictor) candidates(upto batch.Seq, need int64) []localShard {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for ; n < len(e.local) && n < maxStep && e.local[n].seq <= upto && need > 0; n++ {
		need -= e.local[n].obj.Size
	}
	return slices.Clone(e.local[:n])
}

// confirmed returns the leading part of list that the other stores have, by their own word.
func (e *Evictor) confirmed(ctx context.Context, list []localShard, stored batch.Seq) ([]localShard, error) {
	for i, l := range list {
		confirm := e.Confirm
		if l.seq > stored {
			confirm = e.ConfirmTwice
		}
		if confirm == nil {
			continue
		}
		ok, err := confirm(ctx, l.obj)
		if err != nil {
			return list[:i], fmt.Errorf("look for shard %s before evicting it: %w", l.obj.Digest, err)
		}
		if !ok {
			return list[:i], nil
		}
	}
	return list, nil
}

func (e *Evictor) markEvicted(list []localShard) error {
	return e.cat.Update(func(tx *catalog.Tx) error {
		for _, l := range list {
			info, ok, err := tx.Shard(l.obj.Digest)
			if err != nil {
				return err
			}
			if !ok {
				continue // lost and forgotten meanwhile
			}
			info.Evicted = true
			if err := tx.PutShard(l.obj.Digest, info); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Evictor) forget(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.local = e.local[n:]
}

// HeldBy returns a confirm function: at least n of the stores have the shard in its full size. A store that does not answer
// does not count; when that is what is lacking, its error is returned.
func HeldBy(stores []store.Store, n int) func(context.Context, batch.Object) (bool, error) {
	return func(ctx context.Context, o batch.Object) (bool, error) {
		have, errs := 0, []error(nil)
		for _, s := range stores {
			ok, err := push.Holds(ctx, s, o)
			if err != nil {
				errs = append(errs, err)
			}
			if ok {
				have++
			}
			if have >= n {
				return true, nil
			}
		}
		return false, errors.Join(errs...)
	}
}

// Unnamed returns the shards in the own store that no batch introduced: the last run published them and died before it
// sealed. To be asked at start, before anything is captured; they are removed and listed in the next envelope as abandoned.
func Unnamed(ctx context.Context, own store.Store, cat *catalog.Catalog) ([]batch.Object, error) {
	var unnamed []batch.Object
	err := eachOwnShard(ctx, own, func(o batch.Object) error {
		_, ok, err := shardInfo(cat, o.Digest)
		if err == nil && !ok {
			unnamed = append(unnamed, o)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for shards without a batch: %w", err)
	}
	return unnamed, nil
}

func shardInfo(cat *catalog.Catalog, d shard.Digest) (info catalog.ShardInfo, ok bool, err error) {
	err = cat.View(func(tx *catalog.Tx) error {
		info, ok, err = tx.Shard(d)
		return err
	})
	return info, ok, err
}

// eachOwnShard calls fn for every shard in a store.
func eachOwnShard(ctx context.Context, s store.Store, fn func(batch.Object) error) error {
	dirs, err := s.List(ctx, "shards")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		dir := path.Join("shards", d.Name)
		files, err := s.List(ctx, dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			digest, err := shard.ParsePath(path.Join(dir, f.Name))
			if err != nil {
				continue // not a name of ours
			}
			if err := fn(batch.Object{Digest: digest, Size: f.Size}); err != nil {
				return err
			}
		}
	}
	return nil
}
