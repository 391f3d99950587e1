package shipper

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// State is where a cursor stands. docs/sending.md has the table of what moves it.
type State uint8

// The states.
const (
	Looking State = iota // asks the host where it stands
	Idle                 // the host has everything that arrived
	Holding              // batches wait for a condition
	Sending              // a batch is on its way
	Waiting              // the host did not take it; tried again after a while
	Refused              // the host or what it holds is not what it should be; tried again, but an operator is needed
)

var stateNames = [...]string{"looking", "idle", "holding", "sending", "waiting", "refused"}

// String returns the state's word.
func (s State) String() string { return stateNames[s] }

// transitions are the legal ones; to stay in a state is always one.
var transitions = map[State][]State{
	Looking: {Idle, Holding, Sending, Waiting, Refused},
	Idle:    {Looking, Holding, Sending},
	Holding: {Looking, Idle, Sending},
	Sending: {Looking, Idle, Holding, Waiting, Refused},
	Waiting: {Looking},
	Refused: {Looking},
}

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
	// After so long without a word from the host it is asked where it stands before anything is sent: its disk may have been
	// put back to an older state, or another one put in its place.
	stale = 30 * time.Second
	// A host that has everything is asked this often whether it still has.
	lookEvery = 5 * time.Minute
)

// cursor is how far one backup host has got with one volume, and the loop that moves it.
type cursor struct {
	s     *Shipper
	v     *volume
	h     *host
	store store.Store // the volume's directory on the host
	wake  chan struct{}
	again chan struct{} // wakes the verifying loop

	// Owned by the loop:
	backoff *backoff.ExponentialBackOff
	next    time.Time // when something would be due
	fresh   bool      // nothing was sent since the host was looked at

	sent atomic.Int64 // bytes of the present batch that the host has taken

	// Guarded by v.mu:
	state     State
	since     time.Time
	contact   time.Time // when the host last answered
	looked    bool      // the host was asked where it stands since this process started
	until     time.Time // Waiting, Refused: when it is tried again
	err       error     // Waiting, Refused: why
	full      bool      // that is because its disk is full or read-only
	damage    string    // what reading back found
	back      wentBack
	weak      []string
	skew      time.Duration
	begun     []batch.Seq // for each item of ship.when: up to where it has held
	acks      ack.Acks
	acksDirty bool
	told      time.Time  // when the wait in the acks was last put in words
	marks     []ack.Mark // what is to be read back, and since when it has been there
}

func newCursor(s *Shipper, v *volume, h *host) *cursor {
	c := &cursor{
		s: s, v: v, h: h, store: store.Sub(h.store, v.name),
		wake: make(chan struct{}, 1), again: make(chan struct{}, 1),
		backoff: backoff.NewExponentialBackOff(),
		since:   s.now(),
		acks:    ack.Acks{Store: h.name, Kind: "backup", URL: h.url},
	}
	c.backoff.InitialInterval, c.backoff.MaxInterval, c.backoff.Multiplier = firstRetry, lastRetry/3*2, 2
	return c
}

// run moves the cursor until ctx ends.
func (c *cursor) run(ctx context.Context) error {
	for st := Looking; ctx.Err() == nil; {
		st = c.step(ctx, st)
	}
	return nil
}

// once moves the cursor until there is nothing to do now, and returns why the host did not take what is due.
func (c *cursor) once(ctx context.Context) error {
	for st := c.step(ctx, Looking); ctx.Err() == nil && (st == Sending || st == Looking); {
		st = c.step(ctx, st)
	}
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	if c.state == Waiting || c.state == Refused {
		return c.err
	}
	return nil
}

// step runs the function of a state and enters the one it returns.
func (c *cursor) step(ctx context.Context, st State) State {
	c.enter(st)
	next := st
	switch st {
	case Looking:
		next = c.looking(ctx)
	case Idle, Holding:
		next = c.resting(ctx)
	case Sending:
		next = c.sending(ctx)
	case Waiting, Refused:
		next = c.waiting(ctx)
	}
	c.enter(next)
	return next
}

// enter is the only place where the state changes.
func (c *cursor) enter(next State) {
	c.v.mu.Lock()
	last, err := c.state, c.err
	legal := next == last || slices.Contains(transitions[last], next)
	if next != last {
		c.state, c.since = next, c.s.now()
	}
	c.v.mu.Unlock()
	if next == last {
		return
	}
	level, args := slog.LevelDebug, []any{"volume", c.v.name, "host", c.h.name, "from", last, "to", next}
	if next == Waiting || next == Refused {
		level, args = slog.LevelWarn, append(args, "error", err)
	}
	if !legal {
		level, args = slog.LevelError, append(args, "illegal", true)
	}
	c.s.log.Log(context.Background(), level, "backup host", args...)
}

// resting waits for something to be due.
func (c *cursor) resting(ctx context.Context) State {
	now := c.s.now()
	c.v.mu.Lock()
	at := c.contact.Add(lookEvery)
	st := c.state
	c.v.mu.Unlock()
	// A condition on the clock is looked at again at least every listEvery: clocks are set.
	if !c.next.IsZero() {
		at = earlier(at, c.next)
	}
	at = earlier(at, now.Add(listEvery))
	timer := time.NewTimer(max(at.Sub(now), time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return st
	case <-c.wake:
	case <-timer.C:
	}
	if c.lastContact(lookEvery) || c.mayLookNow() {
		return Looking
	}
	return c.decide(ctx)
}

// mayLookNow tells a host that could not be looked at when this process started, because the volume was not known to be whole, and can be
// by now. Until it is, nothing is read back from it.
func (c *cursor) mayLookNow() bool {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return !c.looked && c.v.known && c.v.agreement.compared && c.v.fault == ""
}

// lastContact tells whether the host has not been heard of for so long.
func (c *cursor) lastContact(ago time.Duration) bool {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return c.s.now().Sub(c.contact) >= ago
}

func (c *cursor) hasLooked() bool {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return c.looked
}

// decide asks the conditions.
func (c *cursor) decide(ctx context.Context) State {
	now := c.s.now()
	c.v.mu.Lock()
	d := c.decideLocked(now)
	told := c.tellWaitLocked(d, now)
	c.v.mu.Unlock()
	if told {
		c.flush(ctx)
	}
	c.next = d.next
	switch {
	case d.upTo > 0 && (!c.hasLooked() || c.lastContact(stale)):
		return Looking
	case d.upTo > 0:
		return Sending
	case d.waits:
		return Holding
	}
	return Idle
}

// waiting lets the host alone for a while.
func (c *cursor) waiting(ctx context.Context) State {
	c.v.mu.Lock()
	st, until := c.state, c.until
	c.v.mu.Unlock()
	timer := time.NewTimer(until.Sub(c.s.now()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return st
	case <-timer.C:
		return Looking
	}
}

// failed notes why the host did not take or tell something, and says how to go on.
func (c *cursor) failed(ctx context.Context, err error) State {
	if ctx.Err() != nil {
		c.v.mu.Lock()
		defer c.v.mu.Unlock()
		return c.state
	}
	delay := c.backoff.NextBackOff()
	next, word := Waiting, ""
	if needsOperator(err) {
		next, word = Refused, ack.Refused
	}
	c.v.mu.Lock()
	changed := c.acks.Error != err.Error() || c.acks.State != word
	c.err, c.until = err, c.s.now().Add(delay)
	c.full = errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrReadOnly)
	c.acks.Error, c.acks.Full, c.acks.State = err.Error(), c.full, word
	c.acksDirty = c.acksDirty || changed
	c.v.mu.Unlock()
	if changed {
		c.flush(ctx)
	}
	return next
}

// needsOperator tells a host that is not what it should be from one that is away.
func needsOperator(err error) bool {
	for _, class := range []error{store.ErrHostKey, store.ErrAuth, store.ErrDiffers, store.ErrNotDir, fs.ErrPermission, intake.ErrOtherVolume, errFork} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// answered notes that all is well with the host.
func (c *cursor) answered() {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	c.contact = c.s.now()
	if c.err != nil || c.acks.Error != "" {
		c.err, c.full = nil, false
		c.acks.Error, c.acks.Full, c.acks.State, c.acksDirty = "", false, "", true
	}
}

func (c *cursor) flush(ctx context.Context) {
	if err := c.s.flush(ctx, c.v); err != nil {
		c.s.log.Error("write acks", "volume", c.v.name, "error", err)
	}
}
