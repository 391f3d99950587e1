package fusefs

import (
	"golang.org/x/sys/unix"
)

// decideMode decides at the first open of an inode who reads and writes it. It is called with n.mu held, and that lock
// belongs to one inode only, so a slow registration holds up nobody else.
func (f *filesystem) decideMode(n *node, fd int, how openHow, st *unix.Statx_t) {
	n.io, n.backing = ioServed, 0
	if !f.passthrough || n.kind != unix.S_IFREG || hasSetID(st) || f.waitsAtSync(n) {
		return
	}
	if how.write() && how.flags&unix.O_NONBLOCK != 0 && !how.fresh {
		// The kernel opens the file below with the same flags, and that fails while somebody probes it with a lease. Nobody can probe yet
		// what was just created, and tar creates files so.
		return
	}
	id, err := f.device.registerBacking(fd)
	if err != nil {
		// Too deep a stack of file systems, no memory: it concerns this inode, until it is opened anew.
		f.log.Debug("passthrough refused", "node", n.id, "err", err)
		return
	}
	n.io, n.backing = ioPassthrough, id
}

// endMode forgets the decision at the last release. Called with n.mu held.
func (f *filesystem) endMode(n *node) {
	if n.io == ioPassthrough {
		f.device.unregisterBacking(n.backing)
	}
	n.io, n.backing = ioNone, 0
}
