// Package spooler turns the journal of a mount into batches and pushes them: journal → pending → chunks → shards and batches →
// own store → replica peers and the cache. It is a process of its own, so that it may die without the mount noticing.
//
// One loop owns the volume's state and does everything that must happen in order: it folds the journal into the tree, compares
// directories with the source after a gap, hands settled files to the capture workers, and seals what they bring. Workers read,
// chunk, compress and publish shards beside it. One pusher a destination follows the catalog.
//
// After a crash: what the catalog says is sealed is durable in the own store (commit points 1-3 of docs/guarantees.md); what was
// folded or captured beyond it is folded and captured again from the journal and the source; shards that no batch names are
// found and abandoned. Nothing is lost and at most one batch's work is repeated.
package spooler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"slipway/internal/config"
	"slipway/internal/leftout"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/fsyncs"
	"slipway/spooler/push"
	"slipway/spooler/seal"
	"slipway/spooler/sender"
	"slipway/spooler/stages"
	"slipway/spooler/watch"
	"slipway/spooler/workers"
)

// Options of a spooler.
type Options struct {
	Config *config.Primary
	Source *os.File // the source directory, opened before anything was mounted over it
	Log    *slog.Logger

	// BatchInterval is the shortest time between two batches; 0: one second.
	BatchInterval time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Spooler is one owned volume at work.
type Spooler struct {
	opt     Options
	state   state.Dir
	vol     *volume
	left    *leftout.Finder // what `exclude:` leaves out
	wake    chan struct{}   // capacity one: something happened
	fsyncs  *fsyncs.Fsyncs
	pushers []*push.Pusher // to the replica peers; the last one to the cache
	sender  *sender.Sender // when the last one may send
	stores  []store.Store  // the pushers' destinations
	backups []store.Store  // backup hosts that this node may read
	closers []store.Store
	stages  *stages.Stages
	asking  singleflight.Group // for a status
	told    atomic.Pointer[told]

	endMu sync.Mutex    // guards what follows
	end   *epochEnd     // set when the epoch cannot go on
	rots  []push.Rotten // damaged shards of the own store met in this run

	strangeKeys map[string]string // replica peers that show another key than they did at first contact, and what was met

	log *slog.Logger
}

// idlePoll is how often the journal is looked at even when no event came.
const idlePoll = time.Second

// New opens the volume's state and finishes what the last run left open. Nothing is started.
func New(opt Options) (*Spooler, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.BatchInterval == 0 {
		opt.BatchInterval = time.Second
	}
	s := &Spooler{
		opt:   opt,
		state: state.Dir(opt.Config.State),
		wake:  make(chan struct{}, 1),
		log:   opt.Log,
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends what New opened.
func (s *Spooler) Close() error {
	return errors.Join(s.closeStores(), s.vol.close())
}

// Run works until ctx ends or memory can no longer be trusted.
func (s *Spooler) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range workers.Count {
		g.Go(func() error { return s.vol.pool.Loop(ctx, false) })
	}
	if s.fsyncs.Asked() {
		g.Go(func() error { return s.vol.pool.Loop(ctx, true) })
	}
	g.Go(func() error { return s.loop(ctx) })
	g.Go(func() error { return s.watchJournal(ctx) })
	g.Go(func() error { return s.keyLoop(ctx) })
	for _, p := range s.pushers[:len(s.pushers)-1] {
		g.Go(func() error { return p.Run(ctx) })
	}
	g.Go(func() error { return s.sender.Run(ctx) })
	g.Go(func() error { return s.evictLoop(ctx) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = errors.Join(err, s.rest())
	}
	return err
}

// rest leaves the catalog as far as the journal has been read, when the spooler ends in order.
func (s *Spooler) rest() error {
	s.vol.mu.Lock()
	defer s.vol.mu.Unlock()
	return s.vol.sealer.Advance(1)
}

// nudge wakes the loop.
func (s *Spooler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// loop steps until ctx ends or memory can no longer be trusted.
func (s *Spooler) loop(ctx context.Context) error {
	return s.steps(ctx, func(again time.Duration, err error) (time.Duration, bool, error) {
		var fatal *seal.Fatal
		if errors.As(err, &fatal) {
			return 0, true, err
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("sealing does not go on", "error", err)
			s.vol.setProblem(err)
			s.fsyncs.Blame(err)
			again = time.Second
		}
		return again, false, nil
	})
}

// steps runs Step whenever something happened or is due. judge says of each when the next is due, or that it was the last.
func (s *Spooler) steps(ctx context.Context, judge func(again time.Duration, err error) (next time.Duration, last bool, fault error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		}
		next, last, fault := judge(s.Step(ctx))
		if last {
			return fault
		}
		timer.Reset(next)
	}
}

// Step does all that is due now and returns after what time something will be, if nothing happens before.
func (s *Spooler) Step(ctx context.Context) (time.Duration, error) {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := s.beginAnew(ctx); err != nil {
		return 0, err
	}
	if err := v.sealer.Resume(ctx); err != nil {
		return 0, err
	}
	v.collect()
	more := false
	if err := v.tree.Within(func() (err error) {
		if more, err = v.mirror.Fold(); err != nil || more {
			return err
		}
		return v.mirror.Walk()
	}); err != nil {
		return 0, &seal.Fatal{Err: err}
	}
	if more {
		return 0, nil
	}
	if err := v.tree.Within(func() error {
		if err := s.fsyncs.Hasten(); err != nil {
			return err
		}
		return v.tree.ManyPaths(v.dispatch)
	}); err != nil {
		return 0, &seal.Fatal{Err: err}
	}
	due, next := v.sealer.Due()
	if due {
		if _, err := v.sealer.Seal(ctx); err != nil {
			return 0, err
		}
		next = time.Time{}
	} else if err := v.sealer.Advance(seal.AdvanceBytes); err != nil {
		return 0, err
	}
	s.fsyncs.Answer()
	return s.pause(next), nil
}

// pause returns how long nothing is due.
func (s *Spooler) pause(next time.Time) time.Duration {
	v := s.vol
	if v.mirror.WalkDue() {
		return time.Millisecond
	}
	now := v.now()
	wait := idlePoll
	if due := v.pending.Next(); !due.IsZero() && v.pool.HasRoom() {
		wait = min(wait, due.Sub(now))
	}
	if !next.IsZero() {
		wait = min(wait, next.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// watchJournal wakes the loop when the journal grows.
func (s *Spooler) watchJournal(ctx context.Context) error {
	w, err := watch.New(s.state.Journal())
	if err != nil {
		return fmt.Errorf("watch journal: %w", err)
	}
	return w.Run(ctx, s.nudge)
}
