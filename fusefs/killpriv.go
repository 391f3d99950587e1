package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// The kernel leaves it to this process to take suid and sgid from files that are written to (HANDLE_KILLPRIV_V2; without it
// each write would cost an extra request). This process has CAP_FSETID, and so the file system below would leave them on.
// Four rules put that right, none of which repeats the kernel's own rule of what goes when:
//
//   - a change that the kernel marked as made without CAP_FSETID is made below without it (killing);
//   - where the kernel marks nothing, fallocate and copy_file_range, the caller is looked at (killsFor);
//   - a file that has such bits at its first open is not opened in passthrough;
//   - bits that are added while somebody without CAP_FSETID has the file open for writing in passthrough are watched: once the
//     modification time has moved since, they go before anybody is told of them (lateBits).
//
// File capabilities need nothing: the file system below removes them at every write, whoever writes.

// killing runs a change of n, without CAP_FSETID if who asked for it has it not and there is something to lose.
func (f *filesystem) killing(n *node, kill bool, who fuse.Caller, change func() error) error {
	if kill {
		if st, err := statx(n.fd, ""); err != nil || hasSetID(&st) {
			return f.creds.withoutFsetid(who, change)
		}
	}
	return change()
}

// killsFor tells whether a change of n by process pid takes suid and sgid.
func killsFor(n *node, pid uint32) bool {
	st, err := statx(n.fd, "")
	return err == nil && hasSetID(&st) && !privilegesOf(pid).has(unix.CAP_FSETID)
}

func hasSetID(st *unix.Statx_t) bool { return st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 }

// lateBits says that suid or sgid were added to a file while somebody might write to it unseen who may not keep them.
type lateBits struct {
	watched bool
	mtime   unix.StatxTimestamp // when they were added
	who     fuse.Caller         // might write
}

// releaseLag is how long the kernel may take to tell of a close(2).
const releaseLag = 5 * time.Millisecond

// watchBits begins to watch the bits that were just set on n, whose attributes are now st, where that is needed.
func (f *filesystem) watchBits(n *node, st *unix.Statx_t) {
	if !hasSetID(st) || n.kind != unix.S_IFREG {
		return
	}
	again := time.NewTicker(releaseLag / 20)
	defer again.Stop()
	for began := time.Now(); ; <-again.C { // close(2) does not wait for its release to arrive here
		h := f.mayLose(n)
		if h == nil {
			return
		}
		if time.Since(began) > releaseLag {
			n.mu.Lock()
			n.late = lateBits{watched: true, mtime: st.Mtime, who: h.who}
			n.mu.Unlock()
			return
		}
	}
}

// mayLose returns a handle with which somebody without CAP_FSETID may write to n in passthrough, nil if there is none.
func (f *filesystem) mayLose(n *node) *handle {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.mayLoseLocked(n)
}

func (f *filesystem) mayLoseLocked(n *node) *handle {
	if n.io != ioPassthrough || n.writers == 0 { // what is stored into a mapping takes nothing away
		return nil
	}
	return f.handles.anyOf(n, func(h *handle) bool {
		return h.write && (h.who.Uid != 0 || !privilegesOf(h.who.Pid).has(unix.CAP_FSETID))
	})
}

// stripWritten takes suid and sgid away as the first write after they were added would have. It comes before the attributes of n are read
// or changed.
func (f *filesystem) stripWritten(n *node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.late.watched {
		return
	}
	st, err := statx(n.fd, "")
	if err != nil || st.Mtime == n.late.mtime {
		return
	}
	who := n.late.who
	n.late = lateBits{}
	// A change of the owner to the present one is what takes them by the kernel's own rule.
	err = f.creds.withoutFsetid(who, func() error { return unix.Fchownat(n.fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH) })
	if err != nil {
		f.log.Error("take suid and sgid from a file that was written to", "node", n.id, "err", err)
	}
	if st, err = statx(n.fd, ""); err == nil {
		f.record(nodeRecord(journal.OpAttr, n, &st))
	}
}

// endWatch ends the watch when nobody is left who may not keep the bits, so that what others write takes nothing.
func (f *filesystem) endWatch(n *node) {
	n.mu.Lock() // throughout: whoever opens the file meanwhile begins a watch behind this
	defer n.mu.Unlock()
	if n.late.watched && f.mayLoseLocked(n) == nil {
		n.late = lateBits{}
	}
}

// keepWatching goes on from the present modification time, which this process has just moved.
func (f *filesystem) keepWatching(n *node, st *unix.Statx_t) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late.watched {
		n.late.mtime = st.Mtime
	}
}
