package restore

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"slipway/internal/restore/object"
)

// maxHandles is how many directories stay open between two files in them.
const maxHandles = 256

// handles opens directories of the target, each from its parent by one name, so that neither a symbolic link put in place of
// one leads outside nor the length of a path matters. Directories used last stay open.
type handles struct {
	root int

	mu    sync.Mutex
	open  map[*dir]*handle
	order *list.List // of *handle, the last used first
}

type handle struct {
	fd    int
	dir   *dir
	uses  int
	place *list.Element
}

func newHandles(root int) *handles {
	return &handles{root: root, open: make(map[*dir]*handle), order: list.New()}
}

// get opens a directory, or shares it with others who have it open. put gives it back.
func (h *handles) get(d *dir) (*handle, error) {
	if d.parent == nil {
		return &handle{fd: h.root, dir: d}, nil
	}
	if d.state != dirThere {
		return nil, fmt.Errorf("open directory %q: %w", d.path(), unix.ENOENT)
	}
	h.mu.Lock()
	if o := h.open[d]; o != nil {
		o.uses++
		h.order.MoveToFront(o.place)
		h.mu.Unlock()
		return o, nil
	}
	h.mu.Unlock()

	parent, err := h.get(d.parent)
	if err != nil {
		return nil, err
	}
	defer h.put(parent)
	fd, err := object.OpenDir(parent.fd, d.name)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || d.ino != 0 && (st.Dev != d.dev || st.Ino != d.ino) {
		_ = unix.Close(fd) // nothing was written through it
		return nil, errors.Join(fmt.Errorf("open directory %q: %w", d.path(), object.ErrMoved), err)
	}
	return h.keep(d, fd), nil
}

func (h *handles) keep(d *dir, fd int) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.open[d]; o != nil { // somebody was faster
		_ = unix.Close(fd)
		o.uses++
		return o
	}
	o := &handle{fd: fd, dir: d, uses: 1}
	o.place = h.order.PushFront(o)
	h.open[d] = o
	for e := h.order.Back(); e != nil && h.order.Len() > maxHandles; {
		old := e.Value.(*handle)
		e = e.Prev()
		if old.uses == 0 {
			h.drop(old)
		}
	}
	return o
}

func (h *handles) drop(o *handle) {
	h.order.Remove(o.place)
	delete(h.open, o.dir)
	_ = unix.Close(o.fd) // a directory: nothing is lost in closing it
}

func (h *handles) put(o *handle) {
	if o.place == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o.uses--
}

func (h *handles) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.open {
		h.drop(o)
	}
}
