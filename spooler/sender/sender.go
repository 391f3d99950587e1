// Package sender decides which node of a volume's cluster sends it to the cache, and lets this node do so while it is its turn:
// looks at the cache, judges the present sender by its progress, claims the next term when that one does not work, and tells its
// own progress while it sends. The owner and every replica peer run the same code; docs/sending.md has the table of states.
//
// Two senders at once do no harm, since batches and shards are immutable and carry their names: a claim only saves work. After a
// crash nothing is lost: the newest claim on the cache says whose turn it is, and what the cache holds says where delivery stands.
package sender

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/loop"
	"slipway/internal/progress"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// Present is the history as this node holds it.
type Present struct {
	Epoch batch.Epoch
	Owner string   // node
	Peers []string // nodes, in the owner's order
	Held  batch.Seq
}

// Place is a store that progress is written to.
type Place struct {
	Name  string
	Store store.Store // rooted at the volume
}

// Options of a Sender.
type Options struct {
	Node     string
	VolumeID batch.VolumeID
	Volume   string
	Present  func() Present

	Own    store.Store // this node's own store, rooted at the volume: others write their progress there
	Cache  Place
	Others []Place // the other nodes' stores
	Pusher *push.Pusher

	StaleAfter, StallAfter, Step, PreferAfter time.Duration // zero: 5 s, 5 s, 1 s, 1 min

	// Owner says that this node has become the volume's owner, under an epoch that Present does not know: another process of it sends, and
	// tells under its name. May be nil.
	Owner   func() bool
	OnThere func(batch.Seq) // told of each look's newest batch on the cache; may be nil
	Now     func() time.Time
	Log     *slog.Logger
}

// Sender is one node's part in sending one volume.
type Sender struct {
	opt     Options
	run     string // of this process, in progress files
	wake    chan struct{}
	look    chan struct{} // capacity one: look at the cache now
	compose chan struct{} // capacity one: something may have to be told
	tellers []*teller

	mu      sync.Mutex // guards what follows
	judge   progress.Judge
	epoch   batch.Epoch // that the rest speaks of
	claim   claim.Claim
	claimAt time.Time
	cacheAt time.Time
	cache   error // why the cache cannot be asked
	looked  bool
	there   batch.Seq
	noticed batch.Seq // newest batch that the cache was looked at for
	state   State
	since   time.Time
	reason  string // why this node sends, or wants to
	heard   progress.Progress
	told    progress.Progress // of this node, composed last
	clash   string            // the cache holds another batch than this node under a number
}

// Intervals of looking.
const (
	lookBusy  = 500 * time.Millisecond // at the cache, while something is undelivered or about to change
	lookIdle  = 5 * time.Second        // otherwise: an operator's claim has to be found
	tellEach  = time.Second            // progress, while something is undelivered
	tellMoved = 400 * time.Millisecond // progress that shows that something was delivered since the last
)

// New makes a Sender. Nothing is started and nobody is contacted.
func New(opt Options) *Sender {
	setDefault(&opt.StaleAfter, 5*time.Second)
	setDefault(&opt.StallAfter, 5*time.Second)
	setDefault(&opt.Step, time.Second)
	setDefault(&opt.PreferAfter, time.Minute)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{
		opt: opt, run: newRun(), wake: make(chan struct{}, 1), look: make(chan struct{}, 1), compose: make(chan struct{}, 1),
		judge: progress.Judge{StaleAfter: opt.StaleAfter, StallAfter: opt.StallAfter},
		state: Standby, since: opt.Now(),
	}
	for _, p := range append([]Place{opt.Cache}, opt.Others...) {
		s.tellers = append(s.tellers, &teller{place: p, wake: make(chan struct{}, 1)})
	}
	return s
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// Wake tells that this node holds more than before.
func (s *Sender) Wake() { loop.Nudge(s.wake) }

// Run takes part until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.lookLoop(ctx) })
	g.Go(func() error { return s.loop(ctx, g) })
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.opt.Pusher.RunAcks(ctx) })
	g.Go(func() error { return s.composeLoop(ctx) })
	for _, t := range s.tellers {
		g.Go(func() error { return s.tellLoop(ctx, t) })
	}
	return g.Wait()
}

// term is the sending under one term: a context that dies with it.
type term struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// loop takes decisions and keeps the pusher sending while it is this node's turn.
func (s *Sender) loop(ctx context.Context, g *errgroup.Group) error {
	var now *term
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		}
		sends, again := s.Step(ctx)
		switch {
		case sends && now == nil:
			now = s.beginTerm(ctx, g)
		case !sends && now != nil:
			now.cancel()
			<-now.ended
			now = nil
			s.opt.Pusher.StandBy()
		}
		timer.Reset(again)
	}
}

func (s *Sender) beginTerm(ctx context.Context, g *errgroup.Group) *term {
	sending, cancel := context.WithCancel(ctx)
	t := &term{cancel: cancel, ended: make(chan struct{})}
	g.Go(func() error {
		defer close(t.ended)
		defer cancel()
		err := s.opt.Pusher.RunSending(sending)
		if sending.Err() != nil {
			return nil
		}
		return err
	})
	return t
}

// Step judges, decides and claims once. It tells whether this node is to send, and when to step again if nothing happens.
func (s *Sender) Step(ctx context.Context) (sends bool, again time.Duration) {
	s.readOwn(ctx)
	d := s.decide()
	if d.State == Claiming {
		s.enter(d)
		s.claimNext(ctx, d.Reason)
		d = s.decide()
		if d.State == Claiming { // it failed: not at once again
			d.Again = s.opt.Now().Add(tellEach)
		}
	}
	s.enter(d)
	wait := lookIdle
	if !d.Again.IsZero() {
		wait = min(wait, max(d.Again.Sub(s.opt.Now()), time.Millisecond))
	}
	return d.State == Sending, wait
}

// decide makes a view of what is known and applies the rule.
func (s *Sender) decide() Decision {
	present, now := s.opt.Present(), s.opt.Now()
	if s.opt.Owner != nil && s.opt.Owner() {
		return Decision{State: Standby, Again: now.Add(s.opt.Step)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enterEpochLocked(present.Epoch, now)
	if !s.looked && s.cache == nil {
		return Decision{State: Standby} // the first look tells whose term it is
	}
	v := s.viewLocked(&present, now)
	d := Decide(v)
	if next := s.judge.Next(now); !next.IsZero() && (d.Again.IsZero() || next.Before(d.Again)) {
		d.Again = next
	}
	return d
}

func (s *Sender) viewLocked(present *Present, now time.Time) *View {
	v := &View{
		Now: now, Self: s.opt.Node, Owner: present.Owner, Peers: present.Peers,
		Claim: s.claim, ClaimAt: s.claimAt, CacheAt: s.cacheAt, Held: present.Held, There: s.thereLocked(),
		StaleAfter: s.opt.StaleAfter, Step: s.opt.Step, PreferAfter: s.opt.PreferAfter,
	}
	s.judge.Begin(v.sender(), s.epoch, s.claim.Term, now)
	if v.Held > v.There && v.Held > s.noticed {
		s.noticed = v.Held // what the cache has is known from before this batch: look
		loop.Nudge(s.look)
		loop.Nudge(s.compose)
	}
	s.judge.Expect(now, v.Held, v.There)
	v.Verdict, v.Since, v.Why = s.judge.Verdict(now)
	return v
}

// thereLocked returns the newest batch on the cache, as far as this node knows.
func (s *Sender) thereLocked() batch.Seq {
	if s.state == Sending {
		return max(s.there, s.opt.Pusher.Report().Published)
	}
	return s.there
}

// enterEpochLocked forgets what was known of an earlier epoch: its claims say nothing any more.
func (s *Sender) enterEpochLocked(e batch.Epoch, now time.Time) {
	if s.epoch == e {
		return
	}
	s.epoch, s.claim, s.claimAt, s.looked, s.cache = e, claim.Claim{}, now, false, nil
	s.heard, s.there, s.noticed = progress.Progress{}, 0, 0
	loop.Nudge(s.look)
}

// enter is the one place where the state changes.
func (s *Sender) enter(d Decision) {
	s.mu.Lock()
	was := s.state
	if was != d.State {
		s.state, s.since = d.State, s.opt.Now()
	}
	s.reason = d.Reason
	term, node := s.claim.Term, s.claim.Node
	s.mu.Unlock()
	if was == d.State {
		return
	}
	s.opt.Log.Info("sender", "volume", s.opt.Volume, "from", was, "to", d.State, "term", term, "sender", node, "reason", d.Reason)
	if !Legal(was, d.State) {
		s.opt.Log.Error("illegal transition", "from", was, "to", d.State)
	}
	loop.Nudge(s.look)
	loop.Nudge(s.compose)
}
