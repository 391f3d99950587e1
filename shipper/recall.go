package shipper

import (
	"context"
	"fmt"
	"slices"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
)

// recall reads, once after a start, what is remembered of a volume, and looks whether the store still holds it: names and
// sizes of all that has not been evicted. Digests are not computed again.
func (s *Shipper) recall(ctx context.Context, v *volume, id batch.VolumeID) error {
	v.mu.Lock()
	known := v.known
	v.mu.Unlock()
	if known {
		return nil
	}
	p, err := s.readCheckpoint(v.name)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.in.ID = id
	if p != nil {
		v.in.ID = p.VolumeID
		v.restoreLocked(p)
	}
	v.mu.Unlock()
	if p != nil {
		if err := s.recheck(ctx, v, p.Chain, p.Evicted); err != nil {
			return err
		}
	}
	if err := s.dropRemoved(ctx, v); err != nil {
		return err
	}
	v.mu.Lock()
	v.known, v.acksDirty = true, true
	v.mu.Unlock()
	v.wakeCursors()
	return nil
}

// dropRemoved removes the acks of backup hosts that the operator took out of the configuration: nobody would write them again,
// and readers would count them for ever.
func (s *Shipper) dropRemoved(ctx context.Context, v *volume) error {
	all, err := ack.ReadAll(ctx, v.in.Store)
	if err != nil {
		s.log.Warn("read acks", "volume", v.name, "error", err) // ours are written again, the others' are not our business
	}
	for _, a := range all {
		mine := slices.ContainsFunc(s.hosts, func(h *host) bool { return h.name == a.Store })
		if a.Kind != "backup" || mine {
			continue
		}
		s.log.Warn("a backup host is not in the configuration any more: its acknowledgements are dropped", "volume", v.name, "host", a.Store)
		if err := v.in.Store.Remove(ctx, ack.Path(a.Store)); err != nil {
			return fmt.Errorf("drop acks of %s: %w", a.Store, err)
		}
	}
	return nil
}

// recheck walks over what is remembered as checked. Where the store turns out to lack something, the chain ends before it.
func (s *Shipper) recheck(ctx context.Context, v *volume, p intake.Chain, evicted batch.Seq) error {
	if p.Head == 0 {
		return nil
	}
	var list []held
	for seq := max(min(v.needed(), evicted)+1, p.Low); seq <= p.Head; seq++ {
		b, data, err := v.in.Load(ctx, &p, seq)
		if err == nil && seq > evicted {
			err = v.in.Recheck(ctx, b)
		}
		if err != nil && !intake.Gone(err) {
			return err
		}
		if err != nil {
			s.log.Error("the cache has lost something while no shipper ran: the head goes back, and the sender is to fill it again",
				"volume", v.name, "batch", seq, "cause", err)
			v.hold(list)
			return s.cutBefore(ctx, v, &p, seq)
		}
		list = append(list, heldOf(b, int64(len(data)), v.in.ReceivedAt(b.Path())))
	}
	v.hold(list)
	return nil
}

// rehold reads the batches from one number on again, and applies change at the moment when they are held.
func (s *Shipper) rehold(ctx context.Context, v *volume, from batch.Seq, change func()) error {
	v.arriveMu.Lock()
	defer v.arriveMu.Unlock()
	p := v.copyChain()
	var list []held
	for seq := max(from, p.Low); seq <= p.Head && p.Head > 0; seq++ {
		b, data, err := v.in.Load(ctx, &p, seq)
		if err != nil {
			return err
		}
		list = append(list, heldOf(b, int64(len(data)), v.in.ReceivedAt(b.Path())))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holdAllLocked(list)
	change()
	return nil
}
