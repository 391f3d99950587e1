package history

import (
	"context"
	"errors"
	"slices"

	"slipway/internal/batch"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// SupersededAt looks in a store that is ahead for an epoch that another node has begun, named by a signed envelope of this one. That is
// a promotion, and the end of this node's ownership; any other epoch ahead is this node's own, whose state was lost. nil: none.
func (h *History) SupersededAt(ctx context.Context, s store.Store, name string) (*state.Superseded, error) {
	first := map[batch.Epoch]batch.Seq{}
	err := push.EachBatchFile(ctx, s, h.meta.Epoch, 0, func(e batch.Epoch, from, last batch.Seq) error {
		if seq, ok := first[e]; from == last && (!ok || last < seq) {
			first[e] = last
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var epochs []batch.Epoch
	for e := range first {
		epochs = append(epochs, e)
	}
	slices.Sort(epochs)
	for _, e := range epochs {
		data, err := s.Read(ctx, batch.Path(e, first[e], first[e]), batch.MaxFile)
		if errors.Is(err, store.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		b, err := batch.Parse(data)
		if err != nil || !h.namedByUs(b, e) {
			continue
		}
		return &state.Superseded{
			Epoch: e, Node: b.Envelope.Node, Key: b.Envelope.OwnerKey, First: b.Envelope.First, Store: name, At: h.opt.Now().UTC().Round(0),
		}, nil
	}
	return nil, nil
}

// namedByUs tells whether a batch begins an epoch by another key, which an envelope of this node, of the epoch before, named.
func (h *History) namedByUs(b *batch.Batch, e batch.Epoch) bool {
	env := &b.Envelope
	if env.OwnerKey == h.opt.Key || env.VolumeID != h.opt.VolumeID || env.Epoch != e || env.NamedBy == "" || b.Verify([]string{env.OwnerKey}) != nil {
		return false
	}
	by, err := batch.ParseSigned(env.NamedBy)
	return err == nil && by.Verify([]string{h.opt.Key}) == nil && by.Envelope.VolumeID == h.opt.VolumeID && by.Envelope.Epoch+1 == e &&
		slices.Contains(by.Envelope.NextKeys, env.OwnerKey)
}
