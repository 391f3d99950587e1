package shipper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
)

// clockOff: a sender's clock further ahead than this is complained about.
const clockOff = 5 * time.Minute

// arrive takes what has come, in order of sequence, until something is missing. It returns how soon to look again by itself
// (0: at the next event or interval).
func (s *Shipper) arrive(ctx context.Context, v *volume) (again time.Duration, err error) {
	v.arriveMu.Lock()
	defer v.arriveMu.Unlock()
	take := s.taking(v)
	ready, err := take.Recognise(ctx)
	if !ready && err == nil && s.follow(v) {
		ready, err = take.Recognise(ctx) // the volume may have come before its directory was watched
	}
	if ready && err == nil {
		s.agreeSaid(ctx, v)
	}
	for ready && err == nil {
		again, err = take.Take(ctx)
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

func (s *Shipper) taking(v *volume) *intake.Pass {
	return &intake.Pass{Volume: &v.in, Taker: taker{s, v}, Log: s.log, Wait: &v.wait}
}

// taker is a volume during a pass.
type taker struct {
	s *Shipper
	v *volume
}

// Recall implements intake.Taker.
func (t taker) Recall(ctx context.Context, id batch.VolumeID) error { return t.s.recall(ctx, t.v, id) }

// Chain implements intake.Taker.
func (t taker) Chain() intake.Chain { return t.v.copyChain() }

// Closed implements intake.Taker: a cache that is full says so in its acks.
func (t taker) Closed() string { return "" }

// BeginAgain implements intake.Taker.
func (t taker) BeginAgain() {
	t.v.mu.Lock()
	t.v.held, t.v.evicted, t.v.gone = nil, 0, 0
	t.v.mu.Unlock()
}

// Refused implements intake.Taker.
func (t taker) Refused(r ack.Refusal) {
	t.v.mu.Lock()
	t.v.acks.Refuse(r)
	t.v.acksDirty, t.v.stateDirty = true, true
	t.v.mu.Unlock()
}

// SetNote implements intake.Taker.
func (t taker) SetNote(text string) { t.v.setNote(text) }

// SetFault implements intake.Taker.
func (t taker) SetFault(text string) { t.v.setFault(text) }

// Flush implements intake.Taker.
func (t taker) Flush(ctx context.Context) error { return t.s.flush(ctx, t.v) }

// Accept implements intake.Taker. From here on the batch may be shipped; the acks follow with the next flush, which is
// commit point 5. Dying before that leaves the batch to be checked again.
func (t taker) Accept(p *intake.Chain, a *intake.Arrival) {
	s, v, env := t.s, t.v, &a.Batch.Envelope
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
