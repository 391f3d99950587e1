package access

import (
	"context"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/restore/chain"
	"slipway/internal/store"
)

// Shown is a batch's envelope with the digest of its file, and where the batch is.
type Shown struct {
	Digest batch.Digest `json:"digest"`
	Size   int64        `json:"size"`
	Stage  string       `json:"stage,omitempty"` // this and the next three: as the node knows
	Copies int          `json:"copies"`
	Stores []string     `json:"stores,omitempty"`
	Held   bool         `json:"held,omitempty"`
	Named  bool         `json:"owner_named"` // the configuration or this node's key names the owner whose signature it bears
	batch.Envelope
}

// Stands adds where the batch is.
func (s *Shown) Stands(rows []control.BatchRow) {
	for _, r := range rows {
		if r.Volume == s.Volume && r.Seq == uint64(s.Last) && r.Epoch == uint32(s.Epoch) {
			s.Stage, s.Copies, s.Stores, s.Held = r.Stage, r.Copies, r.Stores, r.Held
		}
	}
}

// ShowBatch reads a batch from the first store of a request that has it. Its signature is checked against the key that its
// own envelope names; whether that key may own the volume is verify's question.
func ShowBatch(ctx context.Context, r Request, seq uint64) (*Shown, error) {
	v, err := Open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	for _, s := range v.Stores {
		slots, _, err := chain.List(ctx, s.Store)
		if err != nil {
			return nil, fmt.Errorf("list batches of %s: %w", s.Name, err)
		}
		for i := len(slots) - 1; i >= 0; i-- { // the highest epoch first
			if uint64(slots[i].First) <= seq && seq <= uint64(slots[i].Last) {
				return v.showSlot(ctx, s.Store, &slots[i])
			}
		}
	}
	return nil, fmt.Errorf("show batch %d: %w", seq, store.ErrNotExist)
}

func (v *Volume) showSlot(ctx context.Context, s store.Store, slot *chain.Slot) (*Shown, error) {
	data, err := s.Read(ctx, slot.Path(), batch.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", slot.Path(), err)
	}
	b, err := chain.Check(data, slot)
	if err == nil {
		err = b.Verify([]string{b.Envelope.OwnerKey})
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", slot.Path(), err)
	}
	named := b.Verify(v.Owners) == nil
	return &Shown{Digest: b.Digest, Size: int64(len(data)), Named: named, Envelope: b.Envelope}, nil
}
