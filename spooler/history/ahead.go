package history

import (
	"bytes"
	"context"
	"fmt"
	"path"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// Newest reads the newest batch file of a store.
func Newest(ctx context.Context, s store.Store) (string, []byte, error) {
	names, err := batchesOf(ctx, s)
	if err != nil {
		return "", nil, err
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("newest batch: %w", store.ErrNotExist)
	}
	name := names[len(names)-1]
	data, err := s.Read(ctx, name, batch.MaxFile)
	return name, data, err
}

// AdoptForeign puts another store's newest batch into the own store, after checking that one of the owners signed it. What
// this node sealed under its number or behind it is a side branch.
func (h *History) AdoptForeign(ctx context.Context, name string, data []byte, owners []string) error {
	b, err := batch.Parse(data)
	if err != nil {
		return fmt.Errorf("read batch %s: %w", name, err)
	}
	if b.Envelope.VolumeID != h.opt.VolumeID {
		return fmt.Errorf("read batch %s: it is of another volume", name)
	}
	if err := b.Verify(owners); err != nil {
		return fmt.Errorf("read batch %s: %w", name, err)
	}
	names, err := batchesOf(ctx, h.opt.Own)
	if err != nil {
		return err
	}
	for _, ours := range names {
		if ours < name { // names sort by epoch and sequence
			continue
		}
		if err := h.branchOff(ctx, ours, data); err != nil {
			return err
		}
	}
	return h.opt.Own.Publish(ctx, name, data)
}

// branchOff keeps a batch of ours that is no part of the history any more under refused/; one that equals theirs stays.
func (h *History) branchOff(ctx context.Context, name string, theirs []byte) error {
	ours, err := h.opt.Own.Read(ctx, name, batch.MaxFile)
	if err != nil {
		return err
	}
	if bytes.Equal(ours, theirs) {
		return nil
	}
	if err := h.opt.Own.Publish(ctx, "refused/"+path.Base(name)+".side-branch", ours); err != nil {
		return err
	}
	return h.opt.Own.Remove(ctx, name)
}
