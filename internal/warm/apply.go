package warm

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/restore/object"
)

// applier does in the directory what a step says. It needs nothing but the directory and the state.
type applier struct {
	t     *Tree
	s     *step
	stage int
	dirs  *dirs
}

// finish runs the step from the given part on. Died anywhere in it: it is run again from the part that the catalog names.
func (t *Tree) finish(s *step, from string) error {
	fd, err := t.openStage(s.Staging)
	if err != nil {
		return err
	}
	a := &applier{t: t, s: s, stage: fd}
	defer func() { _ = unix.Close(fd) }() // a directory: nothing is lost in closing it
	if from == stageDetach {
		if err := a.detachAll(); err != nil {
			return err
		}
		if err := t.sync(); err != nil {
			return err
		}
		// Died here: everything is detached, and detaching finds nothing to do.
		if err := errors.Join(t.at("mark"), t.mark(stageAttach)); err != nil {
			return err
		}
	}
	a.dirs = t.handles(nil)
	defer a.dirs.close()
	a.dirs.stage = fd
	for i := range s.Attach {
		if s.Attach[i].Dir {
			a.dirs.staged[s.Attach[i].ID] = s.Attach[i].Staged
		}
	}
	for _, part := range []func() error{a.attachAll, a.attributes, a.clear, a.rootAttributes, t.sync} {
		if err := part(); err != nil {
			return err
		}
	}
	return a.done()
}

// detachAll takes away the names that go. Objects that get other names wait in the staging directory.
func (a *applier) detachAll() error {
	old := make(map[batch.FileID]*move)
	a.dirs = a.t.handles(old)
	defer a.dirs.close()
	a.dirs.stage = a.stage
	for i := range a.s.Detach {
		if m := &a.s.Detach[i]; m.Dir {
			old[m.ID] = m
			if m.Kept {
				a.dirs.staged[m.ID] = keptName(m.ID)
			}
		}
	}
	for i := range a.s.Hold {
		if err := a.in(&a.s.Hold[i], "hold", a.hold); err != nil {
			return err
		}
	}
	for i := range a.s.Detach {
		if err := a.in(&a.s.Detach[i], "detach", a.detach); err != nil {
			return err
		}
	}
	return nil
}

// in runs fn in the directory of a name. A directory that is gone has taken its names with it.
func (a *applier) in(m *move, op string, fn func(fd int, m *move) error) error {
	if err := a.t.at(op); err != nil {
		return err
	}
	err := a.dirs.with(m.At.Parent, func(fd int) error { return fn(fd, m) })
	var lost *lostError
	if errors.As(err, &lost) {
		return nil // what does not find its place is found lost at the end
	}
	if err != nil {
		return fmt.Errorf("%s %q in directory %d: %w", op, m.At.Name, m.At.Parent, err)
	}
	return nil
}

func (a *applier) hold(fd int, m *move) error {
	err := unix.Linkat(fd, m.At.Name, a.stage, keptName(m.ID), 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func (a *applier) detach(fd int, m *move) error {
	now, err := look(fd, m.At.Name)
	switch {
	case err != nil:
		return err
	case now.Ino == 0:
		return nil // done before, or by somebody else
	case !m.Was.is(now):
		return a.aside(fd, m.At.Name)
	case m.Kept:
		err := unix.Renameat2(fd, m.At.Name, a.stage, keptName(m.ID), unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) { // one of its names is there already
			return unix.Unlinkat(fd, m.At.Name, 0)
		}
		return err
	case m.Dir:
		err := unix.Unlinkat(fd, m.At.Name, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) { // it holds what is not the tree's
			return a.aside(fd, m.At.Name)
		}
		return err
	}
	return unix.Unlinkat(fd, m.At.Name, 0)
}

// aside moves what is not the tree's to where it is kept for people.
func (a *applier) aside(fd int, name string) error {
	if err := unix.Mkdirat(a.stage, asideName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", asideName, err)
	}
	dir, err := object.OpenDir(a.stage, asideName)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }() // a directory: nothing is lost in closing it
	for i := 0; ; i++ {
		to := strconv.Itoa(i) + "-" + name
		err := unix.Renameat2(fd, name, dir, to[:min(len(to), maxName)], unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("move %q aside: %w", name, err)
		}
		a.t.opt.Log.Error("what is not the warm tree's was moved aside", "name", name, "to", a.s.Staging+"/"+asideName+"/"+to)
		return nil
	}
}

// attachAll gives objects their new names. An object that is not in the staging directory has them already.
func (a *applier) attachAll() error {
	for i := range a.s.Attach {
		m := &a.s.Attach[i]
		last := i+1 == len(a.s.Attach) || a.s.Attach[i+1].ID != m.ID
		err := a.in(m, "attach", func(fd int, m *move) error { return a.attach(fd, m, last) })
		if err != nil {
			return err
		}
	}
	return nil
}

// attach gives an object one name: with the last one it leaves the staging directory.
func (a *applier) attach(fd int, m *move, last bool) error {
	staged, err := look(a.stage, m.Staged)
	if err != nil || staged.Ino == 0 {
		return err
	}
	for {
		now, err := look(fd, m.At.Name)
		if err != nil {
			return err
		}
		switch {
		case now.Ino == 0:
			err = a.place(fd, m, last)
		case now.ident() == staged.ident(): // given before
			if last {
				err = unix.Unlinkat(a.stage, m.Staged, 0)
			}
		case m.Was.is(now):
			err = a.replace(fd, m, last)
		default:
			if err := a.aside(fd, m.At.Name); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		return err
	}
}

func (a *applier) place(fd int, m *move, last bool) error {
	if last {
		return unix.Renameat2(a.stage, m.Staged, fd, m.At.Name, unix.RENAME_NOREPLACE)
	}
	return unix.Linkat(a.stage, m.Staged, fd, m.At.Name, 0)
}

// replace puts a new version in the place of the old one, in one step.
func (a *applier) replace(fd int, m *move, last bool) error {
	from := m.Staged
	if !last {
		from = "l" + m.Staged
		if err := unix.Linkat(a.stage, m.Staged, a.stage, from, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	if err := a.t.at("replace"); err != nil {
		return err
	}
	return unix.Renameat(a.stage, from, fd, m.At.Name)
}

// clear removes the staging directory, unless something was moved aside.
func (a *applier) clear() error {
	if err := a.t.at("clear"); err != nil {
		return err
	}
	return a.t.unstage(a.stage, a.s.Staging)
}

// done notes in the catalog how everything was left, and that the step is over.
func (a *applier) done() error {
	left := make(map[batch.FileID]seen)
	for id := range a.s.touched() {
		now, ok, err := a.find(id)
		if err != nil {
			return err
		}
		if ok {
			left[id] = now
		}
	}
	if err := a.t.at("done"); err != nil {
		return err
	}
	err := a.t.cat.Update(func(tx *catalog.Tx) error {
		for id, now := range left {
			if err := noteLeft(tx, id, now); err != nil {
				return err
			}
		}
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		m.HeadTemp = ""
		return tx.SetMeta(m)
	})
	if err != nil {
		return err
	}
	return a.t.unsave()
}

func noteLeft(tx *catalog.Tx, id batch.FileID, now seen) error {
	in, ok, err := tx.Inode(id)
	if err != nil || !ok {
		return errors.Join(err, missing(id, ok))
	}
	if now.Ino == 0 && id != batch.Root {
		return forget(tx, id)
	}
	now.note(&in)
	return tx.PutInode(&in)
}
