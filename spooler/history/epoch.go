package history

import (
	"context"
	"fmt"
	"slices"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// beginEpochIfLost gives a new catalog its epoch: the first, or, where the own store holds batches that the catalog knows nothing
// of, the next one, chained to the newest of them. This node cannot read what it sealed, so the new epoch begins empty and
// incomplete with itself as base, and the whole tree is read again.
//
// Until the first batch of the epoch is committed, meta.Base is 0: dying in between repeats only that.
func (h *History) beginEpochIfLost() error {
	var meta catalog.Meta
	err := h.cat.View(func(tx *catalog.Tx) (err error) {
		meta, err = tx.Meta()
		return err
	})
	if err != nil {
		return fmt.Errorf("read catalog: %w", err)
	}
	if meta.Epoch > 0 {
		if meta.VolumeID != h.opt.VolumeID {
			return fmt.Errorf("the catalog is of volume %s, the state directory of %s", meta.VolumeID, h.opt.VolumeID)
		}
		return h.loadFresh(meta)
	}
	found, err := batchesOf(context.Background(), h.opt.Own)
	if err != nil {
		return err
	}
	meta = catalog.Meta{VolumeID: h.opt.VolumeID, Epoch: 1, NextFile: batch.Root + 1}
	if len(found) > 0 {
		if meta, err = h.nextEpoch(found); err != nil {
			return err
		}
		h.opt.Log.Warn("the catalog is gone: a new epoch begins and the whole tree is read again", "epoch", meta.Epoch, "after_batch", meta.Head)
	}
	if err := h.cat.Update(func(tx *catalog.Tx) error { return h.importBatches(tx, found, meta) }); err != nil {
		return fmt.Errorf("begin epoch %d: %w", meta.Epoch, err)
	}
	return h.loadFresh(meta)
}

// nextEpoch chains a new epoch to the newest batch found.
func (h *History) nextEpoch(found []string) (catalog.Meta, error) {
	newest := found[len(found)-1]
	b, err := h.ReadBatch(newest)
	if err != nil {
		return catalog.Meta{}, err
	}
	e := b.Envelope
	return catalog.Meta{
		VolumeID: h.opt.VolumeID, Epoch: e.Epoch + 1, Head: e.Last, HeadDigest: b.Digest, SealedAt: e.SealedAt,
		NextFile: catalog.FirstFile(e.Epoch + 1),
	}, nil
}

// loadFresh prepares the first batch of an epoch that has none yet. Where the catalog holds the tree of the batch that the epoch
// follows (internal/promote has put it there), the epoch continues it: with its base, and the whole tree in the first batch.
func (h *History) loadFresh(meta catalog.Meta) error {
	h.first.Fresh, h.first.Continued = meta.Base == 0, false
	if meta.Base > 0 {
		err := h.cat.View(func(tx *catalog.Tx) error {
			b, ok, err := tx.Batch(meta.Head)
			h.first.Continued = ok && b.Epoch < meta.Epoch
			return err
		})
		if err != nil {
			return fmt.Errorf("read catalog: %w", err)
		}
		h.first.Fresh = h.first.Continued
	}
	if !h.first.Fresh || meta.Head == 0 {
		return nil
	}
	return h.findNaming(meta)
}

// findNaming finds the signed envelope of the epoch before that named this node's key, the newest one: this node's own if it owned
// that epoch, else that of the owner that it was a peer of.
func (h *History) findNaming(meta catalog.Meta) error {
	found, err := batchesOf(context.Background(), h.opt.Own)
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(found) {
		e, _, last, err := batch.ParsePath(name)
		if err != nil || last > meta.Head || e+1 != meta.Epoch {
			continue
		}
		b, err := h.ReadBatch(name)
		if err != nil {
			return err
		}
		if last == meta.Head && b.Digest != meta.HeadDigest {
			break
		}
		if slices.Contains(append(b.Envelope.NextKeys, b.Envelope.OwnerKey), h.opt.Key) {
			h.first.NamedBy = b.SignedEnvelope()
			return nil
		}
	}
	return fmt.Errorf("no batch in the own store, up to batch %d which epoch %d follows, names this node's key", meta.Head, meta.Epoch)
}

// importBatches notes what the own store holds, so that what was not delivered still is, and its shards are not taken for
// unnamed ones.
func (h *History) importBatches(tx *catalog.Tx, found []string, meta catalog.Meta) error {
	for _, name := range found {
		b, err := h.ReadBatch(name)
		if err != nil {
			h.opt.Log.Error("batch in the own store cannot be read, it is passed over", "batch", name, "error", err)
			continue
		}
		e := b.Envelope
		info := catalog.BatchInfo{
			Epoch: e.Epoch, Seq: e.Last, SealedAt: e.SealedAt, Digest: b.Digest, Files: e.Counts.Files, Bytes: e.Counts.Bytes,
			Removals: e.Counts.Removals, Shards: len(e.Introduces), Complete: e.Complete,
		}
		for _, o := range e.Introduces {
			info.Stored += o.Size
			if err := tx.PutShard(o.Digest, catalog.ShardInfo{Size: o.Size, Seq: e.Last}); err != nil {
				return err
			}
		}
		if err := tx.PutBatch(info); err != nil {
			return err
		}
	}
	return tx.SetMeta(meta)
}

// ReadBatch reads a batch file of the own store and checks that this node or an owner before it signed it.
func (h *History) ReadBatch(name string) (*batch.Batch, error) {
	data, err := h.opt.Own.Read(context.Background(), name, batch.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read batch %s: %w", name, err)
	}
	b, err := batch.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read batch %s: %w", name, err)
	}
	if b.Envelope.VolumeID != h.opt.VolumeID {
		return nil, fmt.Errorf("read batch %s: it is of another volume, %s", name, b.Envelope.VolumeID)
	}
	return b, nil
}

// batchesOf returns the names of all batch files of a store, in order of epoch and sequence.
func batchesOf(ctx context.Context, s store.Store) ([]string, error) {
	var names []string
	err := push.EachBatchFile(ctx, s, 0, 0, func(e batch.Epoch, first, last batch.Seq) error {
		names = append(names, batch.Path(e, first, last))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list own batches: %w", err)
	}
	return names, nil
}
