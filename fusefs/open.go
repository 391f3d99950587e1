package fusefs

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// handle is one open file or directory.
type handle struct {
	id    uint64
	node  *node
	fd    int
	write bool        // open for writing
	who   fuse.Caller // opened it
	// When the journal was last told of writes served here, nanoseconds of the monotonic clock; 0 never.
	dataAt atomic.Int64
	dir    *dirStream
}

// handleTable holds the open handles by the number the kernel knows them by.
type handleTable struct {
	mu   sync.RWMutex
	next uint64
	byID map[uint64]*handle
}

func newHandleTable() *handleTable { return &handleTable{byID: make(map[uint64]*handle)} }

func (t *handleTable) add(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	h.id = t.next
	t.byID[h.id] = h
}

// get returns the handle of a request, nil if there is none.
func (t *handleTable) get(id uint64) *handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

func (t *handleTable) remove(id uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id]
	delete(t.byID, id)
	return h
}

// anyOf returns a handle of n for which something holds, nil if there is none.
func (t *handleTable) anyOf(n *node, holds func(h *handle) bool) *handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, h := range t.byID {
		if h.node == n && holds(h) {
			return h
		}
	}
	return nil
}

func (t *handleTable) drain() []*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*handle, 0, len(t.byID))
	for _, h := range t.byID {
		all = append(all, h)
	}
	clear(t.byID)
	return all
}

// openHow is how an application opens a file.
type openHow struct {
	flags uint32
	kill  bool // O_TRUNC by someone without CAP_FSETID
	who   fuse.Caller
	fresh bool // just created: the kernel does not know the inode yet
}

// write tells whether the content may change through the handle.
func (o openHow) write() bool { return o.flags&unix.O_ACCMODE != unix.O_RDONLY }

// below returns the flags for the file below. O_NONBLOCK would make the open fail while somebody probes with a lease;
// O_APPEND would make pwrite ignore the offset, which the kernel above has set to the end under its lock.
func (o openHow) below() int {
	const kept = unix.O_ACCMODE | unix.O_TRUNC | unix.O_DIRECT | unix.O_SYNC | unix.O_NOATIME | unix.O_LARGEFILE
	return int(o.flags) & kept
}

// records names the operations that the journal is told of; truncates: the file was there before.
func (o openHow) records(truncates bool) []journal.Op {
	var ops []journal.Op
	if o.write() {
		ops = append(ops, journal.OpOpen)
	}
	if truncates && o.flags&unix.O_TRUNC != 0 {
		ops = append(ops, journal.OpTruncate)
	}
	return ops
}

// Open opens a regular file; an open for writing is journaled before it is answered.
func (f *filesystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.open(n, openHow{flags: in.Flags, kill: in.Mode&fuse.OPEN_KILL_SUIDGID != 0, who: in.Caller}, out))
}

func (f *filesystem) open(n *node, how openHow, out *fuse.OpenOut) error {
	f.stripWritten(n)
	fd := -1
	err := f.killing(n, how.kill, how.who, func() (err error) {
		fd, err = f.openat(unix.AT_FDCWD, procPath(n.fd), how.below(), 0)
		if errors.Is(err, unix.EPERM) && how.flags&unix.O_APPEND != 0 {
			// The file may only be appended to (chattr +a).
			fd, err = f.openat(unix.AT_FDCWD, procPath(n.fd), how.below()|unix.O_APPEND, 0)
		}
		return err
	})
	if err != nil {
		return err
	}
	st, err := statx(fd, "")
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	f.openHandle(n, fd, how, &st, out)
	if how.flags&unix.O_TRUNC != 0 {
		f.keepWatching(n, &st)
	}
	if how.write() {
		f.watchBits(n, &st) // the file may be in passthrough from before it had them
	}
	var rs []*journal.Record
	for _, op := range how.records(true) {
		rs = append(rs, nodeRecord(op, n, &st))
	}
	f.record(rs...)
	return nil
}

// openHandle makes a handle of an open descriptor, which it takes over.
func (f *filesystem) openHandle(n *node, fd int, how openHow, st *unix.Statx_t, out *fuse.OpenOut) {
	h := &handle{node: n, fd: fd, write: how.write(), who: how.who}
	n.mu.Lock()
	if n.opens == 0 {
		f.decideMode(n, fd, how, st)
	}
	switch n.io {
	case ioPassthrough:
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH
		out.BackingID = n.backing
	default:
		// Opening in passthrough dropped the pages cached before; only a mapping from then may still change the file.
		if !n.foreign && !n.unsettled.Load() {
			out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		}
	}
	n.opens++
	unsettle := false
	if h.write {
		n.writers++
		unsettle = n.io == ioPassthrough && !n.unsettled.Swap(true)
	}
	served := n.io == ioServed
	n.mu.Unlock()

	if served && how.flags&unix.O_DIRECT != 0 {
		// Requests served here come in buffers that need not be aligned as the file system below asks.
		clearDirect(fd)
	}
	if unsettle && !how.fresh {
		// Attributes the kernel has cached, or that are on their way to it, hold no longer than this.
		f.device.forgetAttributes(n.id)
	}
	f.nodes.hold(n)
	f.handles.add(h)
	out.Fh = h.id
}

func clearDirect(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
	}
}

// Release ends a handle. It is not the end of writing: a mapping may live on, and with passthrough its stores come by no way
// that leads through here: the file stays unsettled until a lease says that nobody has it.
func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := f.handles.remove(in.Fh); h != nil {
		f.stripWritten(h.node)
		f.recordRelease(h)
		f.closeHandle(h)
		f.endWatch(h.node)
	}
}

func (f *filesystem) recordRelease(h *handle) {
	if !h.write {
		return
	}
	st, err := statx(h.node.fd, "")
	if err != nil {
		f.gap("read the attributes of a released file: " + err.Error())
		return
	}
	f.recordSoon(nodeRecord(journal.OpRelease, h.node, &st))
}

// closeHandle gives back what openHandle took.
func (f *filesystem) closeHandle(h *handle) {
	n := h.node
	_ = unix.Close(h.fd)
	n.mu.Lock()
	n.opens--
	if h.write {
		n.writers--
	}
	probe := h.write && n.writers == 0 && n.unsettled.Load()
	if n.opens == 0 {
		f.endMode(n)
	}
	n.mu.Unlock()
	if probe {
		f.settle.add(n, f.nodes)
	}
	f.nodes.drop(n)
}
