package fusefs

import (
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// procPath leads back to the object of an O_PATH descriptor, whatever its name is now; also to a symbolic link itself.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// SetAttr answers chmod, chown, truncate and utimens. The kernel asks for one kind of change at a time, as a rule.
func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	f.stripWritten(n)
	// The file system below takes file capabilities from what is given to somebody.
	capable := n.kind == unix.S_IFREG && in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 && n.hasXattr(capabilityXattr)
	for _, change := range []func(*node, *fuse.SetAttrIn) error{f.chown, f.chmod, f.truncate, f.utimens} {
		if err := change(n, in); err != nil {
			return status(err)
		}
	}
	return status(f.answerAttr(n, out, func(st *unix.Statx_t) {
		f.record(f.attrRecords(n, in.Valid, capable, st)...)
		if in.Valid&(fuse.FATTR_MTIME|fuse.FATTR_SIZE) != 0 {
			f.keepWatching(n, st)
		}
		if in.Valid&fuse.FATTR_MODE != 0 {
			f.watchBits(n, st)
		}
	}))
}

// attrRecords reports a change of attributes that left n as st, with the extended attributes that it may have changed.
func (f *filesystem) attrRecords(n *node, valid uint32, capable bool, st *unix.Statx_t) []*journal.Record {
	var rs []*journal.Record
	if valid&fuse.FATTR_SIZE != 0 {
		rs = append(rs, nodeRecord(journal.OpTruncate, n, st))
	}
	const attrs = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if valid&attrs != 0 {
		rs = append(rs, nodeRecord(journal.OpAttr, n, st))
	}
	if valid&fuse.FATTR_MODE != 0 && n.hasXattr(accessACLXattr) {
		rs = append(rs, xattrRecord(n, accessACLXattr, st)) // its mask is the group's part of the mode
	}
	if capable {
		rs = append(rs, xattrRecord(n, capabilityXattr, st))
	}
	return rs
}

// chown lets the file system below take suid and file capabilities away, which it does for everybody, and sgid, which also stays where
// the group may not execute and the caller may keep it.
func (f *filesystem) chown(n *node, in *fuse.SetAttrIn) error {
	uid, gid := -1, -1
	if u, ok := in.GetUID(); ok {
		uid = int(u)
	}
	if g, ok := in.GetGID(); ok {
		gid = int(g)
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	return f.killing(n, in.Caller.Uid != 0, in.Caller, func() error {
		return unix.Fchownat(n.fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (f *filesystem) chmod(n *node, in *fuse.SetAttrIn) error {
	mode, ok := in.GetMode()
	if !ok {
		return nil
	}
	if n.kind == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod(procPath(n.fd), mode)
}

// truncate works on the handle where there is one: a file that may only be appended to, or was opened before its permissions
// went, can be cut through it and in no other way.
func (f *filesystem) truncate(n *node, in *fuse.SetAttrIn) error {
	size, ok := in.GetSize()
	if !ok {
		return nil
	}
	cut := func() error { return unix.Truncate(procPath(n.fd), int64(size)) }
	if fh, ok := in.GetFh(); ok {
		if h := f.handles.get(fh); h != nil && h.write {
			cut = func() error { return unix.Ftruncate(h.fd, int64(size)) }
		}
	}
	return f.killing(n, in.Valid&fuse.FATTR_KILL_SUIDGID != 0, in.Caller, func() error { return again(cut) })
}

func (f *filesystem) utimens(n *node, in *fuse.SetAttrIn) error {
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	times := []unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return unix.UtimesNanoAt(n.fd, "", times, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}
