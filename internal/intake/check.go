package intake

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/store"
)

// Check asks everything of one batch file that must hold before it counts as the chain's next. The error is a *Refusal, a
// *Missing, or a fault of the store itself.
func (v *Volume) Check(ctx context.Context, c *Chain, name string) (*Arrival, error) {
	b, size, err := v.parse(ctx, name)
	if err != nil {
		return nil, err
	}
	a := &Arrival{Batch: b, Size: size, Received: v.ReceivedAt(name)}
	if a.Pin, err = v.vouched(c, name, b); err != nil {
		return nil, err
	}
	if err := follows(c, name, b); err != nil {
		return nil, err
	}
	if err := v.present(ctx, b); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, o := range b.Envelope.Introduces {
		group.Go(func() error { return v.checkShard(ctx, o) })
	}
	return a, group.Wait()
}

func (v *Volume) parse(ctx context.Context, name string) (*batch.Batch, int64, error) {
	if err := v.regular(name); err != nil {
		return nil, 0, err
	}
	data, err := v.Store.Read(ctx, name, batch.MaxFile)
	if errors.Is(err, store.ErrTooLarge) {
		return nil, 0, refuse(name, "size", "it is larger than a batch may be: %w", err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("check %s: %w", name, err)
	}
	b, err := batch.Parse(data)
	if err != nil {
		return nil, 0, &Refusal{name, "format", err}
	}
	return b, int64(len(data)), nil
}

// vouched checks who says so, and that it is said of this volume and this name.
func (v *Volume) vouched(c *Chain, name string, b *batch.Batch) (pin bool, err error) {
	env := &b.Envelope
	keys, pin, err := v.trusted(c, b)
	if err != nil {
		return false, err
	}
	if err := b.Verify(keys); err != nil {
		reason := "signature"
		if !hasKey(keys, env.OwnerKey) {
			reason = "owner"
		}
		return false, &Refusal{name, reason, err}
	}
	if env.VolumeID != v.ID {
		return false, refuse(name, "volume", "it belongs to the volume with id %s, this is %s", env.VolumeID, v.ID)
	}
	if b.Path() != name {
		return false, refuse(name, "name", "inside it is %s", b.Path())
	}
	return pin, nil
}

// follows checks that the batch is the one after the chain's last. The first batch of a chain begins it: at 1, or, in a store
// that is filled again, wherever the sender's base lies.
func follows(c *Chain, name string, b *batch.Batch) error {
	env := &b.Envelope
	if env.Base > env.First {
		return refuse(name, "base", "its base %d lies above it", env.Base)
	}
	if c.Head == 0 {
		return nil
	}
	if env.Prev == nil || *env.Prev != c.Digest {
		return refuse(name, "chain", "it does not name batch %d as it is here as the one before it", c.Head)
	}
	if env.Base < c.Base {
		return refuse(name, "base", "its base %d lies below that of the batch before it, %d", env.Base, c.Base)
	}
	return nil
}

// present looks whether every shard that the batch introduces has come.
func (v *Volume) present(ctx context.Context, b *batch.Batch) error {
	objects := b.Envelope.Introduces
	missing := Missing{Seq: b.Envelope.First, Of: len(objects)}
	for _, o := range objects {
		if err := v.regular(o.Digest.Path()); err != nil {
			return err
		}
		_, err := v.Store.Stat(ctx, o.Digest.Path())
		if errors.Is(err, store.ErrNotExist) {
			if missing.Count == 0 {
				missing.Digest = o.Digest
			}
			missing.Count++
			continue
		}
		if err != nil {
			return fmt.Errorf("check shard %s: %w", o.Digest, err)
		}
	}
	if missing.Count > 0 {
		return &missing
	}
	return nil
}

// checkShard reads a shard piece by piece: a hostile file in its place is neither followed, nor waited for, nor read whole.
func (v *Volume) checkShard(ctx context.Context, o batch.Object) error {
	name := o.Digest.Path()
	digest, size, err := store.Sum(ctx, v.Store, name, o.Size)
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return refuse(name, "size", "it has more than the %d bytes that its batch says", o.Size)
	case err != nil:
		return fmt.Errorf("check shard %s: %w", o.Digest, err)
	case size != o.Size:
		return refuse(name, "size", "it has %d bytes, its batch says %d", size, o.Size)
	case digest != o.Digest:
		return refuse(name, "digest", "its bytes are not those that its name says")
	}
	return nil
}

// Recheck looks whether the shards of a batch that was checked before are still there, by name and size.
func (v *Volume) Recheck(ctx context.Context, b *batch.Batch) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, o := range b.Envelope.Introduces {
		group.Go(func() error {
			info, err := v.Store.Stat(ctx, o.Digest.Path())
			if err != nil {
				return fmt.Errorf("look for shard %s: %w", o.Digest, err)
			}
			if info.Size != o.Size {
				return refuse(o.Digest.Path(), "size", "it has %d bytes, its batch says %d", info.Size, o.Size)
			}
			return nil
		})
	}
	return group.Wait()
}

// Load reads a batch of the chain again, as it is to be shipped or looked up, and checks once more that it is the owner's. A
// *Refusal: it is not what it was.
func (v *Volume) Load(ctx context.Context, c *Chain, seq batch.Seq) (*batch.Batch, []byte, error) {
	begin := c.At(seq)
	name := c.Path(seq)
	data, err := v.Store.Read(ctx, name, batch.MaxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read batch %d: %w", seq, err)
	}
	b, err := batch.Parse(data)
	if err == nil {
		err = b.Verify([]string{begin.Key})
	}
	if err == nil && (b.Path() != name || b.Envelope.VolumeID != v.ID) {
		err = fmt.Errorf("it is %s of the volume with id %s", b.Path(), b.Envelope.VolumeID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read batch %d: %w", seq, &Refusal{name, "damaged", err})
	}
	return b, data, nil
}

// Listed returns what listings show of a chain's batches from a number on, at most limit of them. rows is where they are remembered.
func (v *Volume) Listed(ctx context.Context, c *Chain, rows string, from batch.Seq, limit int) ([]batchlist.Row, error) {
	first := max(from, c.Low, 1)
	last := min(c.Head, first+batch.Seq(limit)-1)
	known := batchlist.Open(rows, v.Dir, first, last)
	defer known.Close()
	list := make([]batchlist.Row, 0, max(last+1, first)-first)
	for seq := first; seq <= last; seq++ {
		r, err := known.Row(c.At(seq).Epoch, seq, func() (*batch.Envelope, error) {
			b, _, err := v.Load(ctx, c, seq)
			if err != nil {
				return nil, err
			}
			return &b.Envelope, nil
		})
		if err != nil {
			return list, err
		}
		list = append(list, r)
	}
	return list, nil
}
