package fsyncs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/spooler/pending"
)

// Hasten finds what fsyncs wait for and makes it due at once. It is called by a step with the tree open, behind the folding.
func (f *Fsyncs) Hasten() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var gone []*fsync
	var u urgency
	for _, w := range f.waiting {
		if w.seq > 0 {
			continue
		}
		err := f.hastenOne(w, &u)
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
	f.opt.Sealer.Urge(u.ready, u.reading)
	return nil
}

// urgency is what fsyncs mean for the next batch.
type urgency struct {
	ready   time.Time // since then something is ready to be sealed; zero: nothing
	reading bool      // and more is being read
}

func (f *Fsyncs) hastenOne(w *fsync, u *urgency) error {
	if slices.ContainsFunc(w.held, pending.Awaited.Lost) {
		w.found = false // removed; or dropped and found again by the walk
	}
	if !w.found {
		if err := f.find(w); err != nil || !w.found {
			return err
		}
	}
	all := true
	for _, a := range w.held {
		if !a.Read() {
			all = false
			f.opt.Pending.Hurry(a)
		}
	}
	if !all {
		u.reading, w.ready, w.why = true, time.Time{}, f.opt.Pending.WhyUnread(w.held, f.opt.Room())
		return nil
	}
	if w.ready.IsZero() {
		w.ready = f.opt.Now()
	}
	w.why = "the next batch"
	if u.ready.IsZero() || w.ready.Before(u.ready) {
		u.ready = w.ready
	}
	return nil
}

// find resolves what an fsync is about, once the journal is folded up to it: the file's content, or the names in a directory.
func (f *Fsyncs) find(w *fsync) error {
	if f.opt.Mirror.Folded().Before(w.pos) {
		w.why = "the spooler reads the journal"
		return nil
	}
	id, ok, err := f.opt.Tree.ByIdent(w.ask.Object)
	if err != nil {
		return err
	}
	if !ok {
		if f.opt.Mirror.Walking() {
			w.why = "its directory has not been compared with the source yet"
			return nil
		}
		return fmt.Errorf("fsync of %q: it is not in the volume: %w", w.ask.Path, fs.ErrNotExist)
	}
	n, err := f.opt.Tree.Get(id)
	if err != nil || n == nil {
		return err
	}
	if w.ask.Names {
		if w.stage, err = f.stageByNames(id, w.ask.Stage); err != nil {
			return err
		}
	}
	w.found, w.held = true, nil
	switch {
	case w.stage == control.Pending:
		return nil // none of its names asks for anything
	case n.IsRegular():
		p := f.opt.Pending.Mark(id, pending.Written, n.Attr.Size, f.opt.Mirror.Folded())
		w.held = []pending.Awaited{p.Await()}
	case n.IsDir():
		w.held, err = f.unreadNames(id, w.pos)
	}
	return err
}

// stageByNames returns the highest stage that one of a file's names asks for.
func (f *Fsyncs) stageByNames(id batch.FileID, least control.Stage) (control.Stage, error) {
	names, err := f.opt.Tree.NamesOf(id)
	if err != nil {
		return least, err
	}
	for _, k := range names {
		dir, ok, err := f.opt.Tree.Path(k.Parent)
		if err != nil {
			return least, err
		}
		if ok {
			least = max(least, f.opt.Rules.File(joinPath(dir, k.Name)))
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
func (f *Fsyncs) unreadNames(dir batch.FileID, pos journal.Position) (held []pending.Awaited, err error) {
	for id := range f.opt.Tree.UnsealedIn(dir) {
		p := f.opt.Pending.Get(id)
		if p == nil || !p.ChangedBefore(pos) {
			continue
		}
		n, err := f.opt.Tree.Get(id)
		if err != nil {
			return nil, err
		}
		if n == nil || !n.IsRegular() || n.Content != nil {
			continue
		}
		held = append(held, p.AwaitAny())
	}
	return held, nil
}

// Answer answers those that wait no longer. A step calls it behind the sealing.
func (f *Fsyncs) Answer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w *fsync) bool {
		if w.found && w.stage == control.Pending {
			w.done <- nil
			return true
		}
		if w.found && w.seq == 0 && f.seals(w) {
			w.seq = f.opt.History.Meta().Head
		}
		if w.seq == 0 {
			return false
		}
		stage, _ := f.opt.Stages.Of(w.seq)
		if stage < w.stage {
			w.why, _ = f.opt.Stages.Why(w.seq, stage, f.opt.Now())
			return false
		}
		w.done <- nil
		return true
	})
}

// seals tells whether the batches up to the head have everything that an fsync is about: the content, and the names and attributes of
// its position.
func (f *Fsyncs) seals(w *fsync) bool {
	for _, a := range w.held {
		if !a.Sealed() {
			return false
		}
	}
	return f.opt.History.Meta().Head > 0 && f.opt.Sealer.Covers(w.pos)
}
