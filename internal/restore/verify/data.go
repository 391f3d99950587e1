package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// secret looks for the volume's secret in the batches that may hold it. nil: chunk ids cannot be checked.
func (v *verifier) secret(ctx context.Context, h *holding) (*chunk.Keys, error) {
	if len(v.src.IDs) == 0 {
		return nil, nil
	}
	for i := range h.batches {
		b := &h.batches[i]
		if i > 0 && !b.env.Full && h.batches[i-1].env.Epoch == b.env.Epoch {
			continue
		}
		body, err := v.body(ctx, h, b)
		if err != nil {
			return nil, err
		}
		if body != nil && body.Secret != nil {
			keys := chunk.DeriveKeys(*body.Secret)
			return &keys, nil
		}
	}
	return nil, nil
}

// body opens a batch of one store; nil if it cannot be opened, which is a finding.
func (v *verifier) body(ctx context.Context, h *holding, b *held) (*batch.Body, error) {
	file, err := v.line.BatchOf(ctx, h.store.Store, &b.slot)
	if err == nil {
		var body *batch.Body
		body, err = file.Open(v.src.IDs, func(d shard.Digest) (io.ReaderAt, int64, error) {
			data, err := read(ctx, h.store.Store, d)
			return bytes.NewReader(data), int64(len(data)), err
		})
		if err == nil {
			return body, nil
		}
	}
	if ctx.Err() != nil || errors.Is(err, store.ErrTemporary) {
		return nil, err
	}
	if v.opt.MayEvict[h.store.Name] && errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	v.find(h.store, b.slot.Path(), err)
	return nil, nil
}

// read reads a shard whose bytes have the digest.
func read(ctx context.Context, s store.Store, d shard.Digest) ([]byte, error) {
	data, err := chain.ReadRetry(ctx, s, d.Path(), shard.MaxSize)
	if err != nil {
		return nil, err
	}
	if got := shard.Sum(data); got != d {
		return nil, fmt.Errorf("%w: its digest is %s", shard.ErrCorrupt, got)
	}
	return data, nil
}

// batchData reads the shards that a batch introduces, and checks the chunks that its own records place there.
func (v *verifier) batchData(ctx context.Context, h *holding, b *held, keys *chunk.Keys) error {
	pieces := make(map[shard.Digest]map[shard.Slot]bool)
	if len(v.src.IDs) > 0 {
		body, err := v.body(ctx, h, b)
		if err != nil {
			return err
		}
		if body != nil {
			v.collect(ctx, h, b, body, pieces)
		}
	}
	bodies := make(map[shard.Digest]bool)
	for _, o := range b.env.BodyShards {
		bodies[o.Digest] = true
	}
	for _, o := range b.env.Introduces {
		if size, there := h.shards[o.Digest]; !there || size != o.Size {
			continue // found already, or evicted
		}
		data, err := read(ctx, h.store.Store, o.Digest)
		if err == nil && len(v.src.IDs) > 0 && !bodies[o.Digest] {
			err = v.chunks(data, pieces[o.Digest], keys)
		}
		if ctx.Err() != nil || errors.Is(err, store.ErrTemporary) {
			return err
		}
		if err != nil {
			v.find(h.store, o.Digest.Path(), err)
		}
		v.read(o.Size)
	}
	return nil
}

// collect notes which slots of which shard a batch's records use. Lists of pieces are read to see those they name.
func (v *verifier) collect(ctx context.Context, h *holding, b *held, body *batch.Body, to map[shard.Digest]map[shard.Slot]bool) {
	add := func(list []batch.Piece) {
		for i := range list {
			p := &list[i]
			if to[p.Shard] == nil {
				to[p.Shard] = make(map[shard.Slot]bool)
			}
			to[p.Shard][p.Slot] = true
		}
	}
	for i := range body.Inodes {
		for c := body.Inodes[i].Content; c != nil; c = c.Before {
			add(c.Pieces)
			add(c.Lists)
			for k := range c.Lists {
				pieces, err := v.list(ctx, h, &c.Lists[k])
				if err != nil && (!v.opt.MayEvict[h.store.Name] || !errors.Is(err, store.ErrNotExist)) {
					v.find(h.store, b.slot.Path(), fmt.Errorf("list of inode %d: %w", body.Inodes[i].ID, err))
				}
				add(pieces)
			}
		}
	}
}

func (v *verifier) list(ctx context.Context, h *holding, p *batch.Piece) ([]batch.Piece, error) {
	data, err := read(ctx, h.store.Store, p.Shard)
	if err != nil {
		return nil, err
	}
	r, err := shard.Open(bytes.NewReader(data), int64(len(data)), v.src.IDs)
	if err != nil {
		return nil, err
	}
	raw, err := r.Chunk(p.Slot, nil)
	if err != nil {
		return nil, err
	}
	return batch.DecodeList(raw)
}

// chunks reads every chunk out of a shard, in the order in which they lie there: a frame holds many.
func (v *verifier) chunks(data []byte, slots map[shard.Slot]bool, keys *chunk.Keys) error {
	r, err := shard.Open(bytes.NewReader(data), int64(len(data)), v.src.IDs)
	if err != nil {
		return err
	}
	inOrder := slices.SortedFunc(maps.Keys(slots), func(a, b shard.Slot) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.In, b.In))
	})
	for _, s := range inOrder {
		if _, err := r.Chunk(s, keys); err != nil {
			return err
		}
	}
	return nil
}
