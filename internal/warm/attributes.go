package warm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/restore/object"
)

// attributes sets what objects get, and the times of directories that were worked in.
func (a *applier) attributes() error {
	maker := a.t.maker(nil)
	for i := range a.s.Attr {
		at := &a.s.Attr[i]
		if at.ID == batch.Root {
			continue // when everything else is done
		}
		if err := a.t.at("attributes"); err != nil {
			return err
		}
		if err := a.set(maker, at); err != nil {
			return fmt.Errorf("set attributes of inode %d: %w", at.ID, err)
		}
	}
	return nil
}

// rootAttributes comes after the staging directory is gone, which moves the root's times.
func (a *applier) rootAttributes() error {
	if a.s.NoRoot {
		return nil
	}
	for i := range a.s.Attr {
		if at := &a.s.Attr[i]; at.ID == batch.Root {
			return a.set(a.t.maker(nil), at)
		}
	}
	return nil
}

func (a *applier) set(maker *object.Maker, at *attr) error {
	in, at1, ok, err := a.known(at.ID)
	if err != nil || !ok {
		return errors.Join(err, missing(at.ID, ok))
	}
	apply := func(o object.Object) error {
		for _, name := range at.Gone {
			if err := o.RemoveXattr(name); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
				maker.Skip("removed attributes", name, err)
			}
		}
		return maker.SetAttributes(o, &in.Inode, fmt.Sprintf("inode %d", at.ID))
	}
	if isDir(&in.Inode) {
		return notLost(a.dirs.with(at.ID, func(fd int) error { return apply(object.Object{FD: fd}) }))
	}
	return notLost(a.dirs.with(at1.Parent, func(fd int) error {
		o, err := object.Hold(fd, at1.Name, in.Mode&unix.S_IFMT)
		if errors.Is(err, unix.ENOENT) {
			return nil // found lost at the end
		}
		if err != nil {
			return err
		}
		now, err := look(o.FD, "")
		if err == nil && now.ident() == in.Ident {
			err = apply(o)
		}
		return errors.Join(err, unix.Close(o.FD))
	}))
}

// notLost passes over what is found lost at the end of the step.
func notLost(err error) error {
	var lost *lostError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// known returns a file's record and one of its names, if it is still in the tree.
func (a *applier) known(id batch.FileID) (in catalog.Inode, at name, ok bool, err error) {
	err = a.t.cat.View(func(tx *catalog.Tx) error {
		if in, ok, err = tx.Inode(id); err != nil || !ok {
			return err
		}
		list, err := namesOf(tx, id)
		if err == nil && len(list) > 0 {
			at = list[0]
		}
		return err
	})
	return in, at, ok, err
}

// find looks at an object under its name, if it is still in the tree.
func (a *applier) find(id batch.FileID) (now seen, ok bool, err error) {
	in, at, ok, err := a.known(id)
	if err != nil || !ok {
		return now, ok, err
	}
	dir, sub := at.Parent, at.Name
	if isDir(&in.Inode) {
		dir, sub = id, ""
	}
	err = notLost(a.dirs.with(dir, func(fd int) error {
		now, err = look(fd, sub)
		return err
	}))
	other := !in.Ident.IsZero() && in.Ident != now.ident() // of a new object nothing is known yet
	if err == nil && (other || now.Mode&unix.S_IFMT != in.Mode&unix.S_IFMT) {
		now = seen{}
	}
	return now, true, err
}
