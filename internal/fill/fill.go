// Package fill completes a store's copy of a volume from any other stores: every batch from the newest one's base to that batch, and
// all the shards that these introduce. It copies ciphertext and needs no identity. Nothing is copied before it is checked: a batch by
// signature and chain, a shard by its digest; what one store has lost or let rot comes from the next.
//
// After a crash the store holds what was published so far, shards before the batch that introduces them and batches in order of
// sequence, and the same call goes on behind it.
package fill

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// inFlight is how many shards are copied at once.
const inFlight = 4

// Options of Fill.
type Options struct {
	// Deep: the shards that the store has already are read, and what is rotten is put right, where the store can remove objects.
	// Otherwise what is there with the right size counts.
	Deep bool
	// Progress is told of each shard that is looked at; may be nil.
	Progress func(done, total int)
}

// Result says what was done.
type Result struct {
	Head    *batch.Batch // the newest batch of the valid chain: the store has a copy of it now
	Batches int          // copied
	Shards  int          // copied
	Bytes   int64        // of both
	Mended  int          // of the shards: those that lay there rotten
}

// Fill makes `to` hold every batch from the base of the newest batch of the line to that batch, and all the shards that these
// introduce.
func Fill(ctx context.Context, line *chain.Line, to store.Store, opt Options) (*Result, error) {
	f := &filler{line: line, to: to, opt: opt}
	run, err := f.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("fill a store: %w", err)
	}
	for i := range run {
		if err := f.link(ctx, &run[i]); err != nil {
			return nil, fmt.Errorf("fill a store with %s: %w", run[i].path, err)
		}
	}
	r := f.result
	r.Shards, r.Bytes, r.Mended = int(f.shards.Load()), f.bytes.Load(), int(f.mended.Load())
	return &r, nil
}

// link is a batch of the copy, without its body: a long history must not fill memory.
type link struct {
	slot       int
	path       string
	digest     batch.Digest
	introduces []batch.Object
}

// run finds the batches of the newest copy, oldest first: from its base to the newest batch of the line, each the one that the next
// is chained to.
func (f *filler) run(ctx context.Context) ([]link, error) {
	var run []link
	var next *batch.Batch
	for i := len(f.line.Slots) - 1; i >= 0; i-- {
		b, err := f.line.Batch(ctx, &f.line.Slots[i])
		if err == nil && next != nil {
			b, err = f.line.Before(ctx, i, b, next)
		}
		if err != nil {
			return nil, err
		}
		if next == nil {
			f.result.Head = b
		}
		run = append(run, link{i, b.Path(), b.Digest, b.Envelope.Introduces})
		f.total += len(b.Envelope.Introduces)
		if next = b; b.Envelope.First <= f.result.Head.Envelope.Base {
			slices.Reverse(run)
			return run, nil
		}
	}
	return nil, fmt.Errorf("find the batches that the newest one refers to: %w", chain.ErrMissing)
}

type filler struct {
	line   *chain.Line
	to     store.Store
	opt    Options
	total  int
	result Result

	done, shards, mended atomic.Int32
	bytes                atomic.Int64
}

// link copies the shards of one batch and then the batch.
func (f *filler) link(ctx context.Context, l *link) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for _, o := range l.introduces {
		group.Go(func() error { return f.shard(gctx, o) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return f.file(ctx, l)
}

// file publishes the batch file, in place of one that is none of the chain.
func (f *filler) file(ctx context.Context, l *link) error {
	there, err := f.to.Read(ctx, l.path, batch.MaxFile)
	switch {
	case err == nil && sha256.Sum256(there) == l.digest:
		return nil
	case err == nil:
		if err := SetAside(ctx, f.to, l.path, there); err != nil {
			return err
		}
	case !errors.Is(err, store.ErrNotExist):
		return err
	}
	b, err := f.line.Exactly(ctx, l.slot, l.digest)
	if err != nil {
		return err
	}
	data := b.File()
	if err := f.to.Publish(ctx, l.path, data); err != nil {
		return err
	}
	f.result.Batches++
	f.bytes.Add(int64(len(data)))
	return nil
}

// SetAside takes a batch that is not of the chain out of the way. It may be a side branch, so it is kept, under refused/.
func SetAside(ctx context.Context, s store.Store, name string, data []byte) error {
	err := s.Publish(ctx, "refused/"+path.Base(name)+".side-branch", data)
	if err == nil {
		err = s.Remove(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("set a batch aside that is not of the chain: %w", err)
	}
	return nil
}

// shard copies one shard if it is not there.
func (f *filler) shard(ctx context.Context, o batch.Object) error {
	has, mend, err := f.has(ctx, o)
	if err != nil {
		return fmt.Errorf("look for shard %s: %w", o.Digest, err)
	}
	if !has {
		data, err := f.line.Shard(ctx, o.Digest)
		if err != nil {
			return err
		}
		if mend {
			if err := f.to.Remove(ctx, o.Digest.Path()); err != nil {
				return fmt.Errorf("remove a rotten shard: %w", err)
			}
			f.mended.Add(1)
		}
		if err := f.to.Publish(ctx, o.Digest.Path(), data); err != nil {
			return fmt.Errorf("copy shard %s: %w", o.Digest, err)
		}
		f.shards.Add(1)
		f.bytes.Add(int64(len(data)))
	}
	if n := int(f.done.Add(1)); f.opt.Progress != nil {
		f.opt.Progress(n, f.total)
	}
	return nil
}

// has tells whether the store has the shard; mend: something else lies in its place.
func (f *filler) has(ctx context.Context, o batch.Object) (has, mend bool, err error) {
	info, err := f.to.Stat(ctx, o.Digest.Path())
	switch {
	case errors.Is(err, store.ErrNotExist):
		return false, false, nil
	case err != nil:
		return false, false, err
	case info.Size != o.Size:
		return false, true, nil
	case !f.opt.Deep:
		return true, false, nil
	}
	digest, _, err := store.Sum(ctx, f.to, o.Digest.Path(), shard.MaxSize)
	if err != nil {
		return false, false, err
	}
	sound := digest == o.Digest
	return sound, !sound, nil
}
