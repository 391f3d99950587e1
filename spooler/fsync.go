package spooler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/durability"
	"slipway/internal/journal"
	"slipway/spooler/pending"
)

// fsyncs are those that wait for a stage (`durability:`). The loop finds out what each waits for, has it read at once, and answers.
// They are kept in memory only: when this process dies the mount asks again.
type fsyncs struct {
	rules *durability.Rules

	mu       sync.Mutex // guards what follows, and the waiting ones
	waiting  []*fsync
	timedOut int
	last     string // the last one that timed out, in words
	lastAt   time.Time
}

// fsync is one that waits.
type fsync struct {
	ask  control.Durable
	pos  journal.Position // everything answered before the question lies before it
	done chan error       // capacity one

	// found by the loop
	found bool
	stage control.Stage
	held  []pending.Awaited // content that has to be read first
	ready time.Time         // when all of it had been read; zero: not yet
	seq   batch.Seq         // the batch that covers it; 0: not sealed yet
	why   string            // what it waits for, in words
}

// Durable implements control.Syncer.
func (s *Spooler) Durable(ctx context.Context, q control.Durable) error {
	pos, err := s.vol.position()
	if err != nil {
		return fmt.Errorf("read journal's end: %w", err)
	}
	w := &fsync{ask: q, pos: pos, done: make(chan error, 1), stage: q.Stage, why: "the spooler is busy"}
	s.fsyncs.add(w)
	s.nudge()
	patience := time.NewTimer(q.Within)
	defer patience.Stop()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done(): // interrupted
		s.fsyncs.remove(w)
		return ctx.Err()
	case <-patience.C:
		return s.fsyncs.giveUp(w, s.opt.Now())
	}
}

func (f *fsyncs) add(w *fsync) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, w)
}

func (f *fsyncs) remove(w *fsync) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(w)
}

func (f *fsyncs) removeLocked(w *fsync) {
	f.waiting = slices.DeleteFunc(f.waiting, func(x *fsync) bool { return x == w })
}

// giveUp ends an fsync that has waited long enough.
func (f *fsyncs) giveUp(w *fsync, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case err := <-w.done: // just now
		return err
	default:
	}
	f.removeLocked(w)
	f.timedOut++
	f.lastAt = now
	f.last = fmt.Sprintf("fsync of %q waited %v for stage %s and was answered with EIO: %s", w.ask.Path, w.ask.Within.Round(10*time.Millisecond), w.stage, w.why)
	return errors.New(w.why)
}

// any tells whether one waits.
func (f *fsyncs) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting) > 0
}

// blame notes why nothing is sealed at all.
func (f *fsyncs) blame(problem error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiting {
		w.why = "sealing does not go on: " + problem.Error()
	}
}

// remindFor is how long status reminds of an fsync that timed out.
const remindFor = 10 * time.Minute

// report returns how many wait, and a warning about the last one that did so in vain.
func (f *fsyncs) report(now time.Time) (*control.FsyncStatus, []string) {
	if f.rules == nil {
		return nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &control.FsyncStatus{Waiting: len(f.waiting), TimedOut: f.timedOut}
	if f.last == "" || now.Sub(f.lastAt) > remindFor {
		return st, nil
	}
	return st, []string{fmt.Sprintf("%s (at %s; %d since the spooler started)", f.last, f.lastAt.Format(time.TimeOnly), f.timedOut)}
}

// newsForFsyncs wakes the loop where somebody waits for a stage.
func (s *Spooler) newsForFsyncs() {
	if s.fsyncs.any() {
		s.nudge()
	}
}
