package warm

import (
	"container/list"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/journal"
	"slipway/internal/restore/object"
)

// maxHandles is how many directories stay open between two operations in them.
const maxHandles = 256

// lostError says that a directory is not where it was left.
type lostError struct {
	id  batch.FileID
	err error
}

func (e *lostError) Error() string { return fmt.Sprintf("open directory %d: %v", e.id, e.err) }
func (e *lostError) Unwrap() error { return e.err }

// dirs opens directories by their ids, each from its parent by one name, so that neither a symbolic link put in place of one
// leads outside nor the length of a path matters. Directories used last stay open; a descriptor stays right when its
// directory is moved. Not for concurrent use.
type dirs struct {
	t     *Tree
	stage int // the staging directory; -1: none
	// While things are detached, these directories are in the staging directory, or still under the names that they had.
	old    map[batch.FileID]*move
	staged map[batch.FileID]string

	open  map[batch.FileID]*handle
	order *list.List // of *handle, the last used first
}

type handle struct {
	fd    int
	id    batch.FileID
	uses  int
	place *list.Element
}

func (t *Tree) handles(old map[batch.FileID]*move) *dirs {
	return &dirs{
		t: t, stage: -1, old: old, staged: make(map[batch.FileID]string),
		open: make(map[batch.FileID]*handle), order: list.New(),
	}
}

// get opens a directory; put gives it back.
func (d *dirs) get(id batch.FileID) (*handle, error) {
	if id == batch.Root {
		return &handle{fd: d.t.rootFd(), id: id}, nil
	}
	if h := d.open[id]; h != nil {
		h.uses++
		d.order.MoveToFront(h.place)
		return h, nil
	}
	at, ident, err := d.find(id)
	if err != nil {
		return nil, err
	}
	fd, err := d.openAt(id, at)
	if err != nil {
		return nil, err
	}
	now, err := look(fd, "")
	if err == nil && !ident.IsZero() && now.ident() != ident {
		err = &lostError{id, object.ErrMoved}
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return d.keep(id, fd), nil
}

// find returns where a directory is without the staging directory, and which object it is.
func (d *dirs) find(id batch.FileID) (at name, ident journal.Ident, err error) {
	err = d.t.cat.View(func(tx *catalog.Tx) error {
		in, _, err := tx.Inode(id)
		if err != nil {
			return err
		}
		ident = in.Ident
		if m := d.old[id]; m != nil {
			at, ident = m.At, m.Was.ident()
			return nil
		}
		names, err := namesOf(tx, id)
		if err == nil && len(names) == 0 {
			err = &lostError{id, unix.ENOENT}
		}
		if err == nil {
			at = names[0]
		}
		return err
	})
	return at, ident, err
}

func (d *dirs) openAt(id batch.FileID, at name) (int, error) {
	if s := d.staged[id]; s != "" && d.stage >= 0 {
		fd, err := object.OpenDir(d.stage, s)
		if !errors.Is(err, unix.ENOENT) {
			return fd, err
		}
	}
	parent, err := d.get(at.Parent)
	if err != nil {
		return -1, err
	}
	defer d.put(parent)
	fd, err := object.OpenDir(parent.fd, at.Name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		err = &lostError{id, err}
	}
	return fd, err
}

func (d *dirs) keep(id batch.FileID, fd int) *handle {
	h := &handle{fd: fd, id: id, uses: 1}
	h.place = d.order.PushFront(h)
	d.open[id] = h
	for e := d.order.Back(); e != nil && d.order.Len() > maxHandles; {
		old := e.Value.(*handle)
		e = e.Prev()
		if old.uses == 0 {
			d.drop(old)
		}
	}
	return h
}

func (d *dirs) drop(h *handle) {
	d.order.Remove(h.place)
	delete(d.open, h.id)
	_ = unix.Close(h.fd) // a directory: nothing is lost in closing it
}

func (d *dirs) put(h *handle) {
	if h.place != nil {
		h.uses--
	}
}

// check tells whether a directory is there.
func (d *dirs) check(id batch.FileID) error {
	h, err := d.get(id)
	if err == nil {
		d.put(h)
	}
	return err
}

// with runs fn in a directory.
func (d *dirs) with(id batch.FileID, fn func(fd int) error) error {
	h, err := d.get(id)
	if err != nil {
		return err
	}
	defer d.put(h)
	return fn(h.fd)
}

func (d *dirs) close() {
	for _, h := range d.open {
		d.drop(h)
	}
}
