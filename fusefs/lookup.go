package fusefs

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Lookup answers what lies under a name. That nothing does is an answer to be cached as well.
func (f *filesystem) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	err = f.lookup(parent, name, out)
	if errors.Is(err, unix.ENOENT) {
		out.NodeId = 0
		out.SetEntryTimeout(entryTimeout(parent))
		return fuse.OK
	}
	return status(err)
}

// Forget takes back what Lookup and its like gave.
func (f *filesystem) Forget(nodeID, lookups uint64) {
	f.nodes.forget(nodeID, lookups)
}

func entryTimeout(parent *node) time.Duration {
	if parent.foreign {
		return foreignTimeout
	}
	return longTimeout
}

// lookup finds the object called name in parent and gives it to the kernel.
func (f *filesystem) lookup(parent *node, name string, out *fuse.EntryOut) error {
	fd, err := f.openat(parent.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	n, st, err := f.adopt(fd, parent, name)
	if err != nil {
		return err
	}
	f.give(n, &st, parent, out)
	return nil
}

// given is a node with one lookup counted, and its attributes together with how long they hold.
type given struct {
	unix.Statx_t
	timeout time.Duration
}

// adopt turns a fresh O_PATH descriptor, which it takes over, into a node with one more lookup. name is "" for a file that
// has none.
func (f *filesystem) adopt(fd int, parent *node, name string) (*node, given, error) {
	st, err := statx(fd, "")
	if err != nil {
		_ = unix.Close(fd)
		return nil, given{}, err
	}
	ident, err := f.fsids.ident(fd, &st)
	if err != nil {
		_ = unix.Close(fd)
		return nil, given{}, err
	}
	fresh := &node{
		fd:      fd,
		key:     keyOf(&st),
		ident:   ident,
		kind:    uint32(st.Mode) & unix.S_IFMT,
		foreign: st.Mnt_id != f.nodes.mntID,
	}
	n, old := f.nodes.enter(fresh, parent, name)
	if !old {
		return n, given{st, attrTimeout(n, false)}, nil
	}
	_ = unix.Close(fd)
	f.stripWritten(n)
	unsettled := n.unsettled.Load()
	st, err = statx(n.fd, "") // again, because the first was before unsettled was known
	if err != nil {
		f.nodes.forget(n.id, 1)
		return nil, given{}, err
	}
	return n, given{st, attrTimeout(n, unsettled)}, nil
}

// give fills the kernel's entry. Node ids are never used twice, so the generation is always 0.
func (f *filesystem) give(n *node, st *given, parent *node, out *fuse.EntryOut) {
	out.NodeId = n.id
	out.Generation = 0
	f.fillAttr(n, &st.Statx_t, &out.Attr)
	out.SetEntryTimeout(entryTimeout(parent))
	out.SetAttrTimeout(st.timeout)
}

// Readlink answers the target of a symbolic link.
func (f *filesystem) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(n.fd, "", buf)
	if err != nil {
		return nil, status(err)
	}
	return buf[:size], fuse.OK
}
