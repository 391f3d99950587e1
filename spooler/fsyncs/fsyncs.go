// Package fsyncs holds the fsyncs that wait for a stage (`durability:`). The spooler's loop finds out what each waits for, has it read at
// once, and answers.
//
// They are kept in memory only: when this process dies the mount asks again.
package fsyncs

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
	"slipway/spooler/history"
	"slipway/spooler/mirror"
	"slipway/spooler/pending"
	"slipway/spooler/seal"
	"slipway/spooler/stages"
	"slipway/spooler/tree"
)

// Options of fsyncs.
type Options struct {
	Rules   *durability.Rules // nil: nobody waits
	Journal string            // its directory
	Tree    *tree.Tree
	Pending *pending.Set
	Mirror  *mirror.Mirror
	Sealer  *seal.Sealer
	History *history.History
	Stages  *stages.Stages
	Room    func() bool // whether the own store may take more
	Wake    func()      // wakes the loop
	Now     func() time.Time
}

// Fsyncs are those that wait.
type Fsyncs struct {
	opt Options

	mu       sync.Mutex // guards what follows, and the waiting ones
	waiting  []*fsync
	timedOut int
	last     string // the last one that timed out, in words
	lastAt   time.Time
}

// New makes a set in which nobody waits.
func New(opt Options) *Fsyncs { return &Fsyncs{opt: opt} }

// Asked tells whether fsyncs wait at all in this volume.
func (f *Fsyncs) Asked() bool { return f.opt.Rules != nil }

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

// Durable returns when what an fsync is about has reached the stage, or with the reason why it has not in time. It may be called at any
// time, as may Any, Blame, Report and News; whoever calls the others holds the lock of the volume.
func (f *Fsyncs) Durable(ctx context.Context, q control.Durable) error {
	pos, err := journal.End(f.opt.Journal)
	if err != nil {
		return fmt.Errorf("read journal's end: %w", err)
	}
	w := &fsync{ask: q, pos: pos, done: make(chan error, 1), stage: q.Stage, why: "the spooler is busy"}
	f.add(w)
	f.opt.Wake()
	patience := time.NewTimer(q.Within)
	defer patience.Stop()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done(): // interrupted
		f.remove(w)
		return ctx.Err()
	case <-patience.C:
		return f.giveUp(w, f.opt.Now())
	}
}

func (f *Fsyncs) add(w *fsync) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, w)
}

func (f *Fsyncs) remove(w *fsync) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(w)
}

func (f *Fsyncs) removeLocked(w *fsync) {
	f.waiting = slices.DeleteFunc(f.waiting, func(x *fsync) bool { return x == w })
}

// giveUp ends an fsync that has waited long enough.
func (f *Fsyncs) giveUp(w *fsync, now time.Time) error {
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

// Any tells whether one waits.
func (f *Fsyncs) Any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting) > 0
}

// Blame notes why nothing is sealed at all.
func (f *Fsyncs) Blame(problem error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiting {
		w.why = "sealing does not go on: " + problem.Error()
	}
}

// remindFor is how long status reminds of an fsync that timed out.
const remindFor = 10 * time.Minute

// Report returns how many wait, and a warning about the last one that did so in vain.
func (f *Fsyncs) Report(now time.Time) (*control.FsyncStatus, []string) {
	if f.opt.Rules == nil {
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

// News wakes the loop where somebody waits for a stage.
func (f *Fsyncs) News() {
	if f.Any() {
		f.opt.Wake()
	}
}
