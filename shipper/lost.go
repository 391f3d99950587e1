package shipper

import (
	"context"
	"errors"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// refuse moves an object that failed its checks aside, where it is kept and counted.
func (s *Shipper) refuse(v *volume, r *intake.Refusal) error {
	s.log.Error("refuse what arrived", "volume", v.name, "object", r.Name, "reason", r.Reason, "cause", r.Cause)
	v.mu.Lock()
	v.acks.Refuse(ack.Refusal{Name: r.Name, Reason: r.Reason + ": " + r.Cause.Error(), At: s.now()})
	v.acksDirty, v.stateDirty = true, true
	v.mu.Unlock()
	return v.in.SetAside(r)
}

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
		if err := s.refuse(v, r); err != nil {
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
	var last *batch.Batch
	for seq--; last == nil && seq >= p.Low && seq > 0; seq-- {
		b, _, err := v.in.Load(ctx, p, seq)
		if err != nil && !gone(err) {
			return err
		}
		last = b
	}
	p.Cut(last)
	var digest batch.Digest
	if last != nil {
		digest = last.Digest
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

// gone tells what is missing or damaged for good from what could not be read now.
func gone(err error) bool {
	var r *intake.Refusal
	return errors.As(err, &r) || errors.Is(err, store.ErrNotExist)
}
