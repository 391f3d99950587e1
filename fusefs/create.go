package fusefs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

const (
	aclUnknown = iota
	aclNone
	aclSet
)

// hasDefaultACL tells whether what is created in dir inherits an ACL. The answer holds until the mount changes it.
func (n *node) hasDefaultACL() bool {
	switch n.defaultACL.Load() {
	case aclNone:
		return false
	case aclSet:
		return true
	}
	size, err := unix.Getxattr(procPath(n.fd), defaultACLXattr, nil)
	if err == nil && size > 0 {
		n.defaultACL.Store(aclSet)
		return true
	}
	if !n.foreign {
		n.defaultACL.Store(aclNone)
	}
	return false
}

// createMode applies the umask as the kernel would have: only where no default ACL takes its place.
func createMode(parent *node, mode, umask uint32) uint32 {
	if parent.hasDefaultACL() {
		return mode
	}
	return mode &^ (umask & 0o777)
}

// creation is one entry being made.
type creation struct {
	parent *node
	name   string
	owner  fuse.Owner
	target string                   // of a symbolic link
	make   func() error             // makes it
	more   []journal.Op             // further records for the same append
	out    *fuse.EntryOut           // the answer
	opened func(n *node, st *given) // a file: makes its handle
}

// create makes an entry as its caller and journals it before it is answered.
func (f *filesystem) create(c creation) error {
	if err := f.creds.asCaller(c.owner, func() error { return again(c.make) }); err != nil {
		return err
	}
	if err := f.created(c); err != nil {
		// It is there and we cannot say what it is.
		f.gap(fmt.Sprintf("look at what was just created: %v", err))
		return err
	}
	return nil
}

func (f *filesystem) created(c creation) error {
	fd, err := f.openat(c.parent.fd, c.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	n, st, err := f.adopt(fd, c.parent, c.name)
	if err != nil {
		return err
	}
	if c.opened != nil {
		c.opened(n, &st)
	}
	r := f.creationRecord(n.ident, &st.Statx_t, c.parent, c.name)
	n.plain.Store(!n.foreign && !c.parent.hasDefaultACL())
	if r != nil {
		r.Target = c.target
	}
	rs := []*journal.Record{r}
	for _, op := range c.more {
		rs = append(rs, nodeRecord(op, n, &st.Statx_t))
	}
	f.record(rs...)
	f.give(n, &st, c.parent, c.out)
	return nil
}

// creationRecord reports a new entry, which may have inherited an ACL.
func (f *filesystem) creationRecord(ident journal.Ident, st *unix.Statx_t, parent *node, name string) *journal.Record {
	r := f.entryRecord(journal.OpCreate, ident, st, parent, name)
	if r != nil && parent.hasDefaultACL() {
		r.Flags |= journal.FlagInherited
	}
	return r
}

// Mknod makes files, FIFOs, sockets and device nodes. The kernel encodes device numbers as mknod(2) takes them.
func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.create(creation{parent: parent, name: name, owner: in.Owner, out: out, make: func() error {
		return unix.Mknodat(parent.fd, name, createMode(parent, in.Mode, in.Umask), int(in.Rdev))
	}}))
}

// Mkdir makes a directory.
func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.create(creation{parent: parent, name: name, owner: in.Owner, out: out, make: func() error {
		return unix.Mkdirat(parent.fd, name, createMode(parent, in.Mode, in.Umask))
	}}))
}

// Symlink makes a symbolic link. Links have no mode of their own and inherit no ACL.
func (f *filesystem) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.create(creation{parent: parent, name: name, owner: in.Owner, target: target, out: out, make: func() error {
		return unix.Symlinkat(target, parent.fd, name)
	}}))
}

// Create makes a regular file and opens it. A file that is there although the kernel knew of none is only opened.
func (f *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	fd := -1
	how := openHow{flags: in.Flags, who: in.Caller, fresh: true}
	err = f.create(creation{
		parent: parent, name: name, owner: in.Owner, out: &out.EntryOut,
		make: func() (err error) {
			fd, err = f.openat(parent.fd, name, how.below()|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, createMode(parent, in.Mode, in.Umask))
			return err
		},
		more: how.records(false),
		opened: func(n *node, st *given) {
			f.openHandle(n, fd, how, &st.Statx_t, &out.OpenOut)
			fd = -1 // its attributes may be cached although it is open for writing: nothing can be stored into a file of no size, and what gives it one ends that
		},
	})
	if errors.Is(err, unix.EEXIST) && in.Flags&unix.O_EXCL == 0 {
		return f.openExisting(parent, name, in, out)
	}
	if fd >= 0 {
		_ = unix.Close(fd) // made, but not opened for anybody
	}
	return status(err)
}

// openExisting is Create without the creation.
func (f *filesystem) openExisting(parent *node, name string, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if err := f.lookup(parent, name, &out.EntryOut); err != nil {
		return status(err)
	}
	n, err := f.nodes.get(out.NodeId)
	if err == nil {
		err = f.open(n, openHow{flags: in.Flags, kill: in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0, who: in.Caller}, &out.OpenOut)
	}
	if err != nil {
		f.nodes.forget(out.NodeId, 1)
		return status(err)
	}
	var attr fuse.AttrOut
	if err := f.answerAttr(n, &attr, nil); err == nil {
		out.Attr = attr.Attr
		out.SetAttrTimeout(attr.Timeout())
	}
	return fuse.OK
}

// Tmpfile makes a file without a name. It enters the volume with the link that gives it one, so only its opening is journaled.
func (f *filesystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	how := openHow{flags: in.Flags, who: in.Caller, fresh: true}
	fd := -1
	err = f.creds.asCaller(in.Owner, func() (err error) {
		flags := how.below()&^unix.O_CREAT | unix.O_TMPFILE | int(in.Flags)&unix.O_EXCL
		fd, err = f.openat(parent.fd, ".", flags, createMode(parent, in.Mode, in.Umask))
		return err
	})
	if err != nil {
		return status(err)
	}
	path, err := f.openat(unix.AT_FDCWD, procPath(fd), unix.O_PATH, 0)
	if err != nil {
		_ = unix.Close(fd)
		return status(err)
	}
	n, st, err := f.adopt(path, nil, "")
	if err != nil {
		_ = unix.Close(fd)
		return status(err)
	}
	f.openHandle(n, fd, how, &st.Statx_t, &out.OpenOut)
	f.record(nodeRecord(journal.OpOpen, n, &st.Statx_t))
	f.give(n, &st, parent, &out.EntryOut)
	return fuse.OK
}
