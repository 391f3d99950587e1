package fusefs

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
)

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// statx is statx(2) of name below dir, of dir itself for "", never following a link.
func statx(dir int, name string) (st unix.Statx_t, err error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err = again(func() error { return unix.Statx(dir, name, flags, statMask, &st) })
	return st, err
}

// ident names the object that fd and st describe as source.Stat does, but asks for the file system's id once a device.
func (t *fsidTable) ident(fd int, st *unix.Statx_t) (journal.Ident, error) {
	id := journal.Ident{Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = nanoseconds(st.Btime)
	}
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	t.mu.Lock()
	defer t.mu.Unlock()
	fsid, ok := t.known[dev]
	if !ok {
		whole, _, err := source.Stat(fd, "")
		if err != nil {
			return journal.Ident{}, err
		}
		fsid = whole.FS
		t.known[dev] = fsid
	}
	id.FS = fsid
	return id, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// journalAttr is what the journal keeps of st.
func journalAttr(st *unix.Statx_t) journal.Attr {
	return journal.Attr{
		Mode:  uint32(st.Mode),
		UID:   st.Uid,
		GID:   st.Gid,
		Nlink: st.Nlink,
		Rdev:  unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Size:  int64(st.Size),
		Mtime: nanoseconds(st.Mtime),
		Ctime: nanoseconds(st.Ctime),
	}
}

// fillAttr is what the kernel gets of st.
func (f *filesystem) fillAttr(n *node, st *unix.Statx_t, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino:       f.inode(n),
		Size:      st.Size,
		Blocks:    st.Blocks,
		Atime:     uint64(st.Atime.Sec),
		Mtime:     uint64(st.Mtime.Sec),
		Ctime:     uint64(st.Ctime.Sec),
		Atimensec: st.Atime.Nsec,
		Mtimensec: st.Mtime.Nsec,
		Ctimensec: st.Ctime.Nsec,
		Mode:      uint32(st.Mode),
		Nlink:     st.Nlink,
		Owner:     fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev:      st.Rdev_minor&0xff | st.Rdev_major<<8 | (st.Rdev_minor&^0xff)<<12,
		Blksize:   st.Blksize,
	}
}

// inode returns the inode number shown: the source's own in its root's file system. The mount has one device number, so
// those of subvolumes and of other file systems are made different, and the same again after a restart.
func (f *filesystem) inode(n *node) uint64 {
	if n.key.dev == f.nodes.root.key.dev {
		return n.key.ino
	}
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], n.ident.FS)
	h := fnv.New64a()
	_, _ = h.Write(raw[:])
	return (h.Sum64()|1<<63)&^(1<<47-1) ^ n.key.ino
}

// attrTimeout says how long attributes may be cached that were read after unsettled was. In that order: whoever makes the
// file unsettled meanwhile also tells the kernel to distrust answers that are on their way.
func attrTimeout(n *node, unsettled bool) time.Duration {
	switch {
	case unsettled:
		return 0
	case n.foreign:
		return foreignTimeout
	}
	return longTimeout
}

// GetAttr answers stat(2) where the kernel's cache does not.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	f.stripWritten(n)
	return status(f.answerAttr(n, out, nil))
}

// answerAttr reads the attributes of n into out. record, if any, makes journal records of them before they are answered.
func (f *filesystem) answerAttr(n *node, out *fuse.AttrOut, record func(st *unix.Statx_t)) error {
	unsettled := n.unsettled.Load()
	st, err := statx(n.fd, "")
	if err != nil {
		return err
	}
	if record != nil {
		record(&st)
	}
	f.fillAttr(n, &st, &out.Attr)
	out.SetTimeout(attrTimeout(n, unsettled))
	return nil
}

// StatFs answers statfs(2) with the source's numbers.
func (f *filesystem) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(n.fd, &st) }); err != nil {
		return status(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), uint32(st.Namelen)
	return fuse.OK
}
