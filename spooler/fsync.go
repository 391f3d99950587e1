package spooler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/durability"
	"slipway/internal/journal"
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
	held  []awaited // content that has to be read first
	ready time.Time // when all of it had been read; zero: not yet
	seq   batch.Seq // the batch that covers it; 0: not sealed yet
	why   string    // what it waits for, in words
}

// awaited is a file, and the least generation that a capture has to have: one that began earlier may lack what was written before the
// question. Generations are no times, so a clock that is set matters to nobody.
type awaited struct {
	file *pendingFile
	gen  uint64
}

// sealed tells whether a capture that is new enough is in a batch, or found that the batches have it.
func (a awaited) sealed() bool { return a.file.covers >= a.gen }

// read tells whether only the seal is missing.
func (a awaited) read() bool {
	return a.sealed() || a.file.done != nil && a.file.done.Clean && a.file.startGen >= a.gen
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

// hasten finds what fsyncs wait for and makes it due at once. It is called by a step with the tree open, behind the folding.
func (s *Spooler) hasten() error {
	f, v := &s.fsyncs, s.vol
	f.mu.Lock()
	defer f.mu.Unlock()
	v.urgent, v.urgentReads = time.Time{}, false
	var gone []*fsync
	for _, w := range f.waiting {
		if w.seq > 0 {
			continue
		}
		err := s.hastenOne(w)
		if errors.Is(err, fs.ErrNotExist) {
			w.done <- err
			gone = append(gone, w)
		} else if err != nil {
			return err
		}
	}
	for _, w := range gone {
		f.removeLocked(w)
	}
	return nil
}

func (s *Spooler) hastenOne(w *fsync) error {
	v := s.vol
	if slices.ContainsFunc(w.held, func(a awaited) bool { return a.file.gone && !a.sealed() }) {
		w.found = false // removed; or dropped and found again by the walk
	}
	if !w.found {
		if err := s.find(w); err != nil || !w.found {
			return err
		}
	}
	all := true
	for _, a := range w.held {
		if !a.read() {
			all = false
			v.pending.hurry(a.file)
		}
	}
	if !all {
		v.urgentReads, w.ready, w.why = true, time.Time{}, v.whyUnread(w.held)
		return nil
	}
	if w.ready.IsZero() {
		w.ready = v.now()
	}
	w.why = "the next batch"
	v.urgent = earliest(v.urgent, w.ready)
	return nil
}

// whyUnread says what keeps content from being read.
func (v *volume) whyUnread(held []awaited) string {
	for _, a := range held {
		if a.read() {
			continue
		}
		if a.file.moved {
			return "others change the file all the time: it could not be read as it was at one moment"
		}
		return v.whyPending(a.file)
	}
	return ""
}

// find resolves what an fsync is about, once the journal is folded up to it: the file's content, or the names in a directory.
func (s *Spooler) find(w *fsync) error {
	v := s.vol
	if v.folded.Before(w.pos) {
		w.why = "the spooler reads the journal"
		return nil
	}
	id, ok, err := v.tree.byIdent(w.ask.Object)
	if err != nil {
		return err
	}
	if !ok {
		if v.walking() {
			w.why = "its directory has not been compared with the source yet"
			return nil
		}
		return fmt.Errorf("fsync of %q: it is not in the volume: %w", w.ask.Path, fs.ErrNotExist)
	}
	n, err := v.tree.get(id)
	if err != nil || n == nil {
		return err
	}
	if w.ask.Names {
		if w.stage, err = s.stageByNames(id, w.ask.Stage); err != nil {
			return err
		}
	}
	w.found, w.held = true, nil
	switch {
	case w.stage == control.Pending:
		return nil // none of its names asks for anything
	case n.isRegular():
		p := v.pending.mark(id, reasonWritten, n.Attr.Size, v.folded)
		w.held = []awaited{{p, p.gen}}
	case n.isDir():
		w.held, err = v.unreadNames(id, w.pos)
	}
	return err
}

// stageByNames returns the highest stage that one of a file's names asks for.
func (s *Spooler) stageByNames(id batch.FileID, least control.Stage) (control.Stage, error) {
	names, err := s.vol.tree.namesOf(id)
	if err != nil {
		return least, err
	}
	for _, k := range names {
		dir, ok, err := s.vol.tree.path(k.parent)
		if err != nil {
			return least, err
		}
		if ok {
			least = max(least, s.fsyncs.rules.File(joinPath(dir, k.name)))
		}
	}
	return least, nil
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// unreadNames returns the files that keep names of a directory out of the batches: those that were there at a position and whose content
// was never sealed.
func (v *volume) unreadNames(dir batch.FileID, pos journal.Position) (held []awaited, err error) {
	for _, id := range v.tree.entries[dir] {
		p := v.pending.files[id]
		if id == 0 || p == nil || pos.Before(p.pos) {
			continue
		}
		n, err := v.tree.get(id)
		if err != nil {
			return nil, err
		}
		if n == nil || !n.isRegular() || n.Content != nil {
			continue
		}
		gen := p.gen
		if p.running || p.done != nil {
			gen = p.startGen // any content will do
		}
		held = append(held, awaited{p, gen})
	}
	return held, nil
}

// answerFsyncs answers those that wait no longer. A step calls it behind the sealing.
func (s *Spooler) answerFsyncs() {
	f, v := &s.fsyncs, s.vol
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w *fsync) bool {
		if w.found && w.stage == control.Pending {
			w.done <- nil
			return true
		}
		if w.found && w.seq == 0 && v.seals(w) {
			w.seq = v.meta.Head
		}
		if w.seq == 0 {
			return false
		}
		stage, _ := s.stages.of(w.seq)
		if stage < w.stage {
			w.why, _ = s.whyAt(w.seq, stage)
			return false
		}
		w.done <- nil
		return true
	})
}

// seals tells whether the batches up to the head have everything that an fsync is about: the content, and the names and attributes of
// its position.
func (v *volume) seals(w *fsync) bool {
	for _, a := range w.held {
		if !a.sealed() {
			return false
		}
	}
	return v.meta.Head > 0 && (v.dirtySince.IsZero() || !v.meta.Position.Before(w.pos))
}

// urgentShare is the part of the interval between batches that is kept when an fsync waits for the next one, and that it waits for others
// which are being read: many fsyncs share a batch.
const urgentShare = 10

// sealUrgent is sealDue while something is ready that an fsync waits for.
func (v *volume) sealUrgent(now time.Time) (bool, time.Time) {
	pause := v.timing.batch / urgentShare
	next := v.lastSeal.Add(pause)
	if v.urgentReads {
		next = later(next, v.urgent.Add(pause))
	}
	if next.After(now) {
		return false, next
	}
	return true, time.Time{}
}
