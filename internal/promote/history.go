package promote

import (
	"fmt"
	"slices"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/restore/chain"
)

// history notes the batches from the head back to its base, each the one that the next is chained to, and the shards that they
// introduce. Side branches lie beside them and are passed over.
func (w *seeder) history() error {
	slots, _, err := chain.List(w.ctx, w.s.Own)
	if err != nil {
		return err
	}
	base, last, want := w.s.Head.Envelope.Base, w.s.Head.Envelope.Last, w.s.Head.Digest
	for _, s := range slices.Backward(slots) {
		if s.Last != last {
			continue
		}
		data, err := w.s.Own.Read(w.ctx, s.Path(), batch.MaxFile)
		if err != nil {
			return fmt.Errorf("read batch %d: %w", s.Last, err)
		}
		b, err := batch.Parse(data)
		if err != nil || b.Digest != want {
			continue
		}
		if err := w.sealed(b, int64(len(data))); err != nil || s.First <= base {
			return err
		}
		last, want = s.First-1, *b.Envelope.Prev
	}
	return fmt.Errorf("find batch %d in the own store: %w", last, chain.ErrMissing)
}

// sealed notes one batch.
func (w *seeder) sealed(b *batch.Batch, size int64) error {
	e := &b.Envelope
	info := catalog.BatchInfo{
		Epoch: e.Epoch, Seq: e.Last, SealedAt: e.SealedAt, Digest: b.Digest, Files: e.Counts.Files, Bytes: e.Counts.Bytes,
		Removals: e.Counts.Removals, Shards: len(e.Introduces), Stored: size, Complete: e.Complete,
	}
	for _, o := range e.Introduces {
		info.Stored += o.Size
		if err := w.tx.PutShard(o.Digest, catalog.ShardInfo{Size: o.Size, Seq: e.Last}); err != nil {
			return err
		}
	}
	return w.tx.PutBatch(info)
}

// meta says that the epoch after the head's begins, behind it and with its base: the spooler's next batch is the epoch's first.
func (w *seeder) meta() error {
	e := &w.s.Head.Envelope
	m := catalog.Meta{
		VolumeID: w.s.Volume.ID, Epoch: e.Epoch + 1, Head: e.Last, HeadDigest: w.s.Head.Digest, Base: e.Base, SealedAt: e.SealedAt,
		LastWhole: e.LastWhole, Complete: e.Complete, NextFile: max(w.max+1, catalog.FirstFile(e.Epoch+1)),
	}
	if e.Complete {
		m.LastWhole = e.Last
	}
	return w.tx.SetMeta(m)
}
