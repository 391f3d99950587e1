package shipper

import (
	"context"
	"errors"

	"slipway/internal/batch"
	"slipway/internal/intake"
)

// lost takes the chain back to before a batch that the cache does not hold any more, in whole or in part: the acks' head goes
// back, which is the sender's sign to fill it again. Dying before the acks are written leaves a head that a restart takes back.
func (s *Shipper) lost(ctx context.Context, v *volume, seq batch.Seq, cause error) error {
	v.arriveMu.Lock()
	defer v.arriveMu.Unlock()
	return s.lostLocked(ctx, v, seq, cause)
}

func (s *Shipper) lostLocked(ctx context.Context, v *volume, seq batch.Seq, cause error) error {
	p := v.copyChain()
	if seq > p.Head {
		return nil // somebody else has seen it
	}
	s.log.Error("a batch in the cache is damaged or incomplete: the head goes back, and the sender is to fill it again",
		"volume", v.name, "batch", seq, "cause", cause)
	var r *intake.Refusal
	if errors.As(cause, &r) {
		if err := s.taking(v).Refuse(r); err != nil {
			return err
		}
	}
	if err := s.cutBefore(ctx, v, &p, seq); err != nil {
		return err
	}
	return s.flush(ctx, v)
}

// cutBefore ends the chain before batch seq, or before an earlier one if that is gone too.
func (s *Shipper) cutBefore(ctx context.Context, v *volume, p *intake.Chain, seq batch.Seq) error {
	digest, err := v.in.CutBefore(ctx, p, seq)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.chain = *p
	v.evicted, v.gone = min(v.evicted, p.Head), min(v.gone, p.Head)
	v.acks.Rewind(p.Present().Epoch, p.Head, digest)
	v.held = append([]held(nil), v.heldLocked(0, p.Head)...)
	v.acksDirty, v.stateDirty = true, true
	return nil
}
