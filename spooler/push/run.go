package push

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/store"
)

// State is what a pusher is doing.
type State string

// The states. connecting → sending ⇄ idle; from each of them to full, waiting or refused, and from there to connecting again
// (from full to sending). Standby is entered and left with the term.
const (
	Connecting State = "connecting"
	Sending    State = "sending"
	Idle       State = "idle"    // everything sealed is there
	Waiting    State = "waiting" // after a fault, until the next attempt
	Full       State = "full"    // the destination has no room
	Refused    State = "refused" // an operator is needed; tried again all the same
	Standby    State = "standby" // another node sends to this destination
)

// Report is a copy of how a pusher stands.
type Report struct {
	Name, Kind, URL string

	State     State
	Since     time.Time // of the state
	Error     string    // the last one; empty once it has gone on
	Delivered batch.Seq // what counts as delivered: Acked, or Published where no daemon says anything
	Published batch.Seq // durable there, by our own doing or seen
	Acked     batch.Seq // by its daemon
	Checked   bool      // it has a daemon that writes acks, and acknowledges what is there
	Full      bool      // the daemon says so
	Sent      int64     // bytes, in this run
	Batch     batch.Seq // on its way; 0: none
	Shards    int       // delivered, of those that travel together with the batch
	Of        int       // how many these are
	Weak      []string  // what its server lacks
	Free      uint64    // bytes on its disk, as of a minute ago at most
	Total     uint64    // 0: it does not say

	Skew time.Duration // how far its clock is ahead of this node's (negative: behind); 0 within five minutes
}

// Rate returns the bytes a second that the destination confirms now.
func (p *Pusher) Rate(now time.Time) float64 { return p.meter.Rate(now) }

// Report returns how the pusher stands.
func (p *Pusher) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.report
	r.Delivered = r.Published
	if r.Checked {
		r.Delivered = r.Acked
	}
	p.tellSilenceLocked(&r)
	return r
}

// tellDelivered hands on how far it has got.
func (p *Pusher) tellDelivered() {
	if p.t.OnDelivered != nil {
		p.t.OnDelivered(p.t.Name, p.Report().Delivered)
	}
}

// Run pushes and reads acks until ctx ends.
func (p *Pusher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.RunSending(ctx) })
	g.Go(func() error { return p.RunAcks(ctx) })
	return g.Wait()
}

// RunSending pushes until ctx ends: the context of a term, where several nodes may send. The next call compares with the
// destination anew. Not to be called twice at a time.
func (p *Pusher) RunSending(ctx context.Context) error {
	p.sending.Store(true)
	defer func() {
		p.connected.Store(false)
		p.sending.Store(false)
		p.stopped()
	}()
	pause := &backoff.ExponentialBackOff{
		InitialInterval: backoffInitial, MaxInterval: backoffMax, Multiplier: 2, RandomizationFactor: 0.5,
	}
	if p.t.RetryMax > 0 {
		pause.MaxInterval = p.t.RetryMax
	}
	for {
		n, err := p.PushOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n > 0 {
			pause.Reset()
		}
		state := stateAfter(err)
		p.enter(state, err)
		if err != nil && p.t.OnTrouble != nil {
			p.t.OnTrouble(p.t.Name, err)
		}
		if err := p.rest(ctx, state, pause); err != nil {
			return err
		}
	}
}

// stateAfter classes the outcome of an attempt.
func stateAfter(err error) State {
	var ahead *AheadError
	switch {
	case err == nil:
		return Idle
	case errors.Is(err, errTargetFull), errors.Is(err, store.ErrFull):
		return Full
	case errors.As(err, &ahead), errors.Is(err, errForeign), errors.Is(err, errClaimed), errors.Is(err, errDamaged), errors.Is(err, store.ErrDiffers),
		errors.Is(err, store.ErrHostKey), errors.Is(err, store.ErrAuth):
		return Refused
	}
	return Waiting
}

// rest waits for what the state waits for. New work wakes only a pusher that is idle: a destination that just failed is left
// alone until its time has come.
func (p *Pusher) rest(ctx context.Context, state State, pause *backoff.ExponentialBackOff) error {
	wait, wake := idleLook, p.dirty
	switch state {
	case Idle:
		pause.Reset()
	case Full:
		// The acks wake us when they no longer say full; a full disk is tried again.
		wait = pause.NextBackOff()
		if p.isFull() {
			wait = idleLook
		}
	default:
		wait, wake = pause.NextBackOff(), nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-t.C:
	}
	return nil
}

// enter is the one place where the state changes.
func (p *Pusher) enter(s State, err error) {
	p.mu.Lock()
	was := p.report.State
	if was != s {
		p.report.State, p.report.Since = s, time.Now()
	}
	switch {
	case err != nil:
		p.report.Error = store.WithRemedy(err)
	case s == Idle || s == Sending || s == Standby:
		p.report.Error = ""
	}
	p.mu.Unlock()
	switch {
	case err != nil && was != s:
		p.t.Logger.Warn("push stopped", "store", p.t.Name, "state", s, "error", err)
	case was != s && (s == Idle && was != Sending || was == Waiting && s == Sending):
		p.t.Logger.Info("push goes on", "store", p.t.Name, "state", s)
	}
}

func (p *Pusher) count(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Sent += n
}

// stopped forgets what was on its way.
func (p *Pusher) stopped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Batch, p.report.Shards, p.report.Of = 0, 0, 0
}

// Seen tells that another node has delivered up to a batch.
func (p *Pusher) Seen(seq batch.Seq) {
	p.mu.Lock()
	p.report.Published = max(p.report.Published, seq)
	p.mu.Unlock()
	p.tellDelivered()
}

// StandBy notes that another node sends now. Called when RunSending has returned.
func (p *Pusher) StandBy() { p.enter(Standby, nil) }

// spaceEvery is how often a destination is asked for its space.
const spaceEvery = time.Minute

// askSpace notes how much room there is, once in a while. Not every server can tell.
func (p *Pusher) askSpace(ctx context.Context) {
	p.mu.Lock()
	asked := time.Since(p.spaceAsked) < spaceEvery
	if !asked {
		p.spaceAsked = time.Now()
	}
	p.mu.Unlock()
	if asked {
		return
	}
	free, total, err := store.Space(ctx, p.t.Dest)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Free, p.report.Total = free, total
}

// RunAcks reads the acks until ctx ends. While this node sends, only the sending side reconnects, with its back-off.
func (p *Pusher) RunAcks(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.acked:
		case <-t.C:
		}
		if p.connected.Load() || !p.sending.Load() {
			if err := p.PollAcks(ctx); errors.Is(err, store.ErrTemporary) && p.sending.Load() {
				p.connected.Store(false)
				p.Wake()
			}
		}
		t.Reset(p.ackPace())
	}
}

// readAcksSoon makes the next reading of acks come at once.
func (p *Pusher) readAcksSoon() {
	select {
	case p.acked <- struct{}{}:
	default:
	}
}

func (p *Pusher) ackPace() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !time.Now().Before(p.fastTill):
	case p.t.Hurry != nil && p.t.Hurry():
		return ackPollHurry
	default:
		return ackPollFast
	}
	return ackPoll
}

// PollAcks reads every acks file at the destination, its own and those of backup hosts, and hands them on. What the damaged
// ones say is unknown; the others count all the same.
func (p *Pusher) PollAcks(ctx context.Context) error {
	all, err := ack.ReadAll(ctx, p.t.Dest)
	if err != nil && len(all) == 0 {
		return err
	}
	ours := all[:0]
	behind := false
	head := p.Report().Published
	own := ack.Acks{}
	for _, a := range all {
		if a.VolumeID != p.t.Volume.ID {
			continue
		}
		if a.Store == p.t.Name {
			own = a
		}
		behind = behind || a.Head < head && a.Kind != "replica" // a peer's word on the cache: nothing waits for it
		ours = append(ours, a)
	}
	later, lerr := p.laterEpoch(own)
	if lerr != nil {
		return lerr
	}
	if !later && (own.Store != "" || err == nil) { // unread is not gone
		p.noteOwn(own)
	}
	p.tellDelivered()
	p.askSpace(ctx)
	p.slowDown(behind)
	if p.t.OnAcks != nil {
		p.t.OnAcks(p.t.Name, ours)
	}
	return err
}

// laterEpoch tells whether the destination says that it has gone on under a later epoch than the owner's own. Its numbers say nothing
// about our batches. What it means is for the next connect to find out; once is enough.
func (p *Pusher) laterEpoch(own ack.Acks) (bool, error) {
	bounds, err := p.t.Log.Bounds()
	if err != nil || p.t.Follower || own.Epoch <= bounds.Epoch {
		return false, err
	}
	p.mu.Lock()
	known := p.later == own.HeadDigest
	p.later = own.HeadDigest
	p.mu.Unlock()
	if !known {
		p.connected.Store(false)
		p.Wake()
	}
	return true, nil
}

// noteOwn takes over what the destination's daemon says of itself. A head that went back means that the store did: compare
// again and fill it.
func (p *Pusher) noteOwn(a ack.Acks) {
	p.mu.Lock()
	was := p.report.Acked
	back := a.Head < was
	wasFull := p.report.Full
	p.report.Acked, p.report.Checked, p.report.Full = a.Head, a.Store != "", a.Full
	p.noteSilenceLocked(was)
	stuck := p.stuckLocked(a.Head)
	p.mu.Unlock()
	if back {
		p.t.Logger.Warn("acknowledged head went back", "store", p.t.Name, "to", a.Head)
	}
	if stuck {
		p.t.Logger.Warn("the store does not acknowledge what was sent, it is compared again", "store", p.t.Name, "acknowledged", a.Head)
		p.distrust.Store(true)
	}
	if back || stuck {
		p.connected.Store(false)
	}
	if back || stuck || wasFull && !a.Full {
		p.Wake()
	}
}

// stuckAfter is how long a daemon may leave what was sent unacknowledged before the store is compared again: it was emptied, or lost
// something, before its daemon had said anything of it.
const stuckAfter = 30 * time.Second

// stuckLocked tells whether the acknowledged head has stood below what was published for too long.
func (p *Pusher) stuckLocked(head batch.Seq) bool {
	if now := time.Now(); !p.report.Checked || head >= p.report.Published || head != p.stuckAt || p.stuckSince.IsZero() {
		p.stuckAt, p.stuckSince = head, now
	} else if now.Sub(p.stuckSince) >= stuckAfter {
		p.stuckSince = now
		return true
	}
	return false
}

// slowDown ends the fast pace once every acks file has caught up with what was delivered.
func (p *Pusher) slowDown(behind bool) {
	if behind {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fastTill = time.Time{}
}

func (p *Pusher) isFull() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.report.Full
}

func (p *Pusher) stopIfFull() error {
	if p.isFull() {
		return errTargetFull
	}
	return nil
}
