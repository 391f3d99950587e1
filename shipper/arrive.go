package shipper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/intake"
	"slipway/internal/store"
)

const (
	// A batch that waits longer than this for its shards is complained about.
	lateAfter = 10 * time.Second
	// During a long pass the acks are written this often.
	flushEvery = time.Second
	// A sender's clock further ahead than this is complained about.
	clockOff = 5 * time.Minute
)

// arrive takes what has come, in order of sequence, until something is missing. It returns how soon to look again by itself
// (0: at the next event or interval).
func (s *Shipper) arrive(ctx context.Context, v *volume) (again time.Duration, err error) {
	v.arriveMu.Lock()
	defer v.arriveMu.Unlock()
	ready, err := s.recognise(ctx, v)
	if !ready && err == nil && s.follow(v) {
		ready, err = s.recognise(ctx, v) // the volume may have come before its directory was watched
	}
	if ready && err == nil {
		s.agreeSaid(ctx, v)
	}
	for ready && err == nil {
		again, err = s.pass(ctx, v)
		// A directory that has come since is watched from now on, and what came into it before that is looked for.
		if err != nil || !s.follow(v) {
			break
		}
	}
	if err != nil {
		v.setNote(err.Error())
	} else if ready {
		v.mu.Lock()
		v.unfinished = false
		v.mu.Unlock()
	}
	if ready && err == nil {
		s.agreeSaid(ctx, v)
	}
	return again, errors.Join(err, s.flush(ctx, v))
}

// follow watches the directories in which the volume's next batch may appear.
func (s *Shipper) follow(v *volume) bool {
	p := v.copyChain()
	return s.watch.Follow(&v.in, &p)
}

// recognise reads whose volume it is, and once after a start what is known of it.
func (s *Shipper) recognise(ctx context.Context, v *volume) (ready bool, err error) {
	file, err := intake.ReadVolumeFile(ctx, v.in.Store)
	if errors.Is(err, store.ErrNotExist) {
		v.setNote("nothing has arrived: there is no " + intake.VolumeFile)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := s.recall(ctx, v, file.ID); err != nil {
		return false, err
	}
	if v.in.ID != file.ID {
		v.setFault(fmt.Sprintf("%s names the volume with id %s, but this has been the place of %s: put %s back, or give the other volume another name",
			intake.VolumeFile, file.ID, v.in.ID, intake.VolumeFile))
		return false, fmt.Errorf("read volume %s: %w", v.name, errOtherVolume)
	}
	v.setFault("")
	return true, nil
}

// pass takes batch after batch.
func (s *Shipper) pass(ctx context.Context, v *volume) (again time.Duration, err error) {
	p := v.copyChain()
	if err := s.beginLower(ctx, v, &p); err != nil {
		return 0, err
	}
	flushed := s.now()
	for ctx.Err() == nil {
		a, err := s.next(ctx, v, &p)
		var r *intake.Refusal
		var m *intake.Missing
		switch {
		case errors.As(err, &r):
			if err := s.refuse(v, r); err != nil {
				return 0, err
			}
			continue
		case errors.As(err, &m):
			return s.waitFor(v, m), nil
		case errors.Is(err, intake.ErrForked):
			v.setFault(err.Error())
			return 0, nil
		case err != nil || a == nil:
			return 0, err
		}
		if err := s.accept(v, &p, a); err != nil {
			return 0, err
		}
		if now := s.now(); now.Sub(flushed) > flushEvery {
			flushed = now
			if err := s.flush(ctx, v); err != nil {
				return 0, err
			}
		}
	}
	return 0, ctx.Err()
}

// next returns the batch that continues the chain, checked; nil if it has not come.
func (s *Shipper) next(ctx context.Context, v *volume, p *intake.Chain) (*intake.Arrival, error) {
	name, err := v.in.Next(ctx, p)
	if err != nil || name == "" {
		return nil, err
	}
	return v.in.Check(ctx, p, name)
}

// beginLower begins the chain again when a lower batch has come, as long as it does not count: a store that is filled from the
// middle holds no copy before its batches refer to nothing outside it.
func (s *Shipper) beginLower(ctx context.Context, v *volume, p *intake.Chain) error {
	if p.Low <= 1 || p.Whole() {
		return nil
	}
	_, low, err := v.in.Lowest(ctx)
	if err != nil {
		return err
	}
	if low == 0 || low >= p.Low {
		v.setNote(fmt.Sprintf("the store begins at batch %d, but its batches refer back to batch %d", p.Low, p.Base))
		return nil
	}
	*p = intake.Chain{}
	v.mu.Lock()
	v.held, v.evicted, v.gone = nil, 0, 0
	v.mu.Unlock()
	return nil
}

// accept makes a checked batch part of the chain. From here on it may be shipped; the acks follow with the next flush, which is
// commit point 5. Dying before that leaves the batch to be checked again.
func (s *Shipper) accept(v *volume, p *intake.Chain, a *intake.Arrival) error {
	env := &a.Batch.Envelope
	if err := s.welcome(v, p, a); err != nil {
		return err
	}
	p.Extend(a.Batch)
	h := heldOf(a.Batch, a.Size, a.Received)
	s.usage.add(v.name, h.bytes, a.Received)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.chain = p.Clone()
	v.note, v.ahead = "", ""
	if d := env.SealedAt.Sub(a.Received); d > clockOff {
		v.ahead = fmt.Sprintf("the clock of %s is %s ahead of this host's: set one of them right", env.Node, d.Round(time.Second))
	}
	v.evicted, v.gone = max(v.evicted, p.Low-1), max(v.gone, p.Low-1)
	if len(env.Abandons) > 0 {
		v.toSweep = append(v.toSweep, env.First)
	}
	v.holdLocked(h)
	v.stateDirty = true
	v.suspectLocked(a.Batch, s.now())
	if p.Whole() {
		v.acks.Advance(env.Epoch, env.Last, a.Batch.Digest, s.now())
		v.acksDirty = true
		v.trimLocked() // where there are no backup hosts
		v.wakeCursors()
	}
	return nil
}

// welcome says loudly, and notes, whose word counts from this batch on.
func (s *Shipper) welcome(v *volume, p *intake.Chain, a *intake.Arrival) error {
	env := &a.Batch.Envelope
	args := []any{"volume", v.name, "node", env.Node, "key", env.OwnerKey, "epoch", env.Epoch, "batch", env.First}
	switch present := p.Present(); {
	case a.Pin:
		s.log.Warn("pin the first owner key seen for this volume: compare it with node.key.pub of the primary, or set owners: in the configuration", args...)
	case present.Epoch == 0 || present.Epoch == env.Epoch:
		return nil
	default:
		s.log.Warn("a new epoch begins", args...)
	}
	if len(v.in.Owners) > 0 {
		return nil
	}
	return v.in.Pins.Add(v.name, env.OwnerKey, s.now())
}

// waitFor notes a batch whose shards are not all there. That is no fault: they may be on their way.
func (s *Shipper) waitFor(v *volume, m *intake.Missing) time.Duration {
	v.setNote(m.Error())
	if v.warned != m.Seq {
		v.warned, v.lateFrom = m.Seq, s.now()
	}
	if !v.lateFrom.IsZero() && s.now().Sub(v.lateFrom) > lateAfter {
		v.lateFrom = time.Time{} // once
		s.log.Warn("a batch waits for shards that do not come", "volume", v.name, "batch", m.Seq, "missing", m.Count, "of", m.Of, "first", m.Digest)
	}
	return missingEvery
}

func (v *volume) setFault(fault string) {
	v.mu.Lock()
	v.fault = fault
	v.mu.Unlock()
}

func (v *volume) setNote(note string) {
	v.mu.Lock()
	v.note = note
	v.mu.Unlock()
}
