package warm

import (
	"fmt"
	"reflect"
	"slices"

	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// touched is a file that the change touches.
type touched struct {
	p      *planner
	id     batch.FileID
	old    catalog.Inode // zero: not in the tree
	had    bool
	was    seen // as left in the directory; zero: it is not there
	in     *batch.Inode
	before []name // its names
	after  []name
}

func (p *planner) file(id batch.FileID) (*touched, error) {
	f := &touched{p: p, id: id}
	var err error
	if f.old, f.had, err = p.tx.Inode(id); err != nil {
		return nil, err
	}
	if f.in, err = p.record(id); err != nil {
		return nil, err
	}
	if f.before, err = namesOf(p.tx, id); err != nil {
		return nil, err
	}
	for _, n := range f.before {
		if !slices.Contains(p.gone[id], n) {
			f.after = append(f.after, n)
		}
	}
	f.after = append(f.after, p.come[id]...)
	f.was = left(&f.old)
	return f, nil
}

// decide plans what becomes of the file.
func (f *touched) decide() error {
	switch {
	case f.id == batch.Root:
		return f.root()
	case len(f.after) == 0:
		f.leave(f.before, false)
		if f.had {
			f.p.deletes = append(f.p.deletes, f.id)
			f.p.lacks[f.id] = ""
		}
		return nil
	case f.in == nil:
		return fmt.Errorf("%w: nothing is known of inode %d", errFull, f.id)
	case isDir(f.in):
		return f.dir()
	}
	return f.file()
}

func (f *touched) root() error {
	if !isDir(f.in) {
		return fmt.Errorf("%w: the root is not a directory", errFull)
	}
	f.keep(f.in)
	f.attributes()
	return nil
}

// attributes plans that an object that stays gets what its record has and the object has not.
func (f *touched) attributes() {
	if !sameAttributes(&f.old.Inode, f.in) || f.p.change.lacked[f.id] {
		f.p.step.Attr = append(f.p.step.Attr, attr{ID: f.id, Gone: goneXattrs(&f.old.Inode, f.in)})
	}
}

// leave plans that the object goes from some of its names, and is held for others.
func (f *touched) leave(names []name, held bool) {
	if !f.had {
		return
	}
	dir := isDir(&f.old.Inode)
	for _, n := range names {
		m := move{ID: f.id, At: n, Was: f.was, Dir: dir, Kept: held}
		if dir && !held {
			f.p.removed = append(f.p.removed, m)
		} else {
			f.p.step.Detach = append(f.p.step.Detach, m)
		}
	}
}

// keep writes the record down and leaves the object as it is.
func (f *touched) keep(in *batch.Inode) {
	f.p.lacks[f.id] = ""
	if sameAttributes(&f.old.Inode, in) && reflect.DeepEqual(f.old.Content, in.Content) {
		return
	}
	next := f.old
	next.Inode = *in
	f.p.puts[f.id] = &next
}

func (f *touched) arrive(names []name, staged string, over bool) {
	for _, n := range names {
		m := move{ID: f.id, At: n, Staged: staged, Dir: isDir(f.in)}
		if over && slices.Contains(f.before, n) && !slices.Contains(f.p.come[f.id], n) {
			m.Was = f.was
		}
		f.p.step.Attach = append(f.p.step.Attach, m)
	}
}

func (f *touched) dir() error {
	there := f.was.Ino != 0 && isDir(&f.old.Inode)
	if there {
		if err := f.p.dirs.check(f.id); err != nil {
			return err
		}
		f.keep(f.in)
		if come := f.p.come[f.id]; len(come) > 0 {
			f.leave(f.p.gone[f.id], true)
			f.arrive(come, keptName(f.id), false)
		}
		f.attributes()
		return nil
	}
	f.leave(f.before, false)
	f.fresh()
	f.p.step.Mkdir = append(f.p.step.Mkdir, f.id)
	f.p.touchers[f.id] = true
	f.arrive(f.after, newName(f.in), false)
	return nil
}

// fresh writes the record down for an object that is not there yet.
func (f *touched) fresh() {
	f.p.puts[f.id] = &catalog.Inode{Inode: *f.in}
	f.p.lacks[f.id] = ""
}

func (f *touched) file() error {
	why, unread := f.p.unread[f.id]
	if !sealed(f.in) || unread {
		f.leave(f.before, false)
		f.fresh()
		f.p.lacks[f.id] = why
		return nil
	}
	come, gone := f.p.come[f.id], f.p.gone[f.id]
	if f.was.Ino != 0 && sameObject(&f.old.Inode, f.in) {
		ok, err := f.untouched()
		if err != nil {
			return err
		}
		if ok {
			f.move(come, gone)
			return nil
		}
	}
	if f.had && isDir(&f.old.Inode) {
		f.leave(f.before, false)
	} else {
		f.leave(gone, false)
	}
	f.fresh()
	f.p.step.Make = append(f.p.step.Make, f.id)
	f.arrive(f.after, newName(f.in), !f.had || !isDir(&f.old.Inode))
	return nil
}

// move plans for an object that stays what it is.
func (f *touched) move(come, gone []name) {
	f.keep(f.in)
	f.leave(gone, len(come) > 0)
	if len(come) > 0 && len(gone) == 0 {
		f.p.step.Hold = append(f.p.step.Hold, move{ID: f.id, At: f.before[0], Was: f.was})
	}
	f.arrive(come, keptName(f.id), false)
	f.attributes()
}

// untouched tells whether the object lies under all its names as it was left.
func (f *touched) untouched() (bool, error) {
	for _, n := range f.before {
		h, err := f.p.dirs.get(n.Parent)
		if err != nil {
			return false, err
		}
		now, err := look(h.fd, n.Name)
		f.p.dirs.put(h)
		if err != nil {
			return false, err
		}
		if !f.was.is(now) {
			return false, nil
		}
	}
	return true, nil
}
