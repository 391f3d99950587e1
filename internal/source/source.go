// Package source is access to the source directory by descriptor: identity and attributes, opening below it, extended
// attributes, holes, and the lease probe that finds writers no one else can see. Nothing here follows a symbolic link or
// leaves the directory, and nothing is asked by a path from the root: once the mount is up, such a path leads into the mount.
//
// What is true after a crash: nothing is written here, so nothing changes. Descriptors die with the process.
package source

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

var (
	// ErrMoved says that what lies at the path is not the object that was asked for.
	ErrMoved = errors.New("another object lies at this path")
	// ErrSpecial says that the object is neither a regular file nor a directory, so only O_PATH opens it: opening a device may do something.
	ErrSpecial = errors.New("neither a regular file nor a directory")
	// ErrNoLease says that no lease can be had on this file, so it cannot be said whether anybody writes to it.
	ErrNoLease = errors.New("no lease to be had on this file")
)

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// Stat returns identity and attributes of name below dirfd (name "" and AT_EMPTY_PATH: of dirfd itself); never follows a link.
// One statx(2); the f_fsid of each device is asked once.
func Stat(dirfd int, name string) (journal.Ident, journal.Attr, error) {
	var st unix.Statx_t
	if err := statx(dirfd, name, &st); err != nil {
		return journal.Ident{}, journal.Attr{}, fmt.Errorf("stat %q: %w", name, err)
	}
	fs, err := fsid(dirfd, name, &st)
	if err != nil {
		return journal.Ident{}, journal.Attr{}, fmt.Errorf("stat file system of %q: %w", name, err)
	}
	id := journal.Ident{FS: fs, Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = nanoseconds(st.Btime)
	}
	return id, journal.Attr{
		Mode:  uint32(st.Mode),
		UID:   st.Uid,
		GID:   st.Gid,
		Nlink: st.Nlink,
		Rdev:  unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Size:  int64(st.Size),
		Mtime: nanoseconds(st.Mtime),
		Ctime: nanoseconds(st.Ctime),
	}, nil
}

func statx(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return retry(func() error { return unix.Statx(dirfd, name, flags, statMask, st) })
}

// nanoseconds saturates: what lies before 1677 or after 2262 becomes the nearest time that 64 bits of nanoseconds can hold, and not
// one centuries away.
func nanoseconds(t unix.StatxTimestamp) int64 {
	switch {
	case t.Sec >= math.MaxInt64/int64(1e9):
		return math.MaxInt64
	case t.Sec <= math.MinInt64/int64(1e9):
		return math.MinInt64
	}
	return t.Sec*1e9 + int64(t.Nsec)
}

// retry repeats a system call that a signal interrupted; Go sends itself some.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// fsids remembers the f_fsid of each device: st_dev alone is another one after the next mount, and does not tell a subvolume.
var fsids sync.Map // uint64 → uint64

// Forget drops what is remembered of file systems, for a process that outlives their mounts: the numbers of their devices come again.
func Forget() { fsids.Clear() }

func fsid(dirfd int, name string, st *unix.Statx_t) (uint64, error) {
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	if v, ok := fsids.Load(dev); ok {
		return v.(uint64), nil
	}
	fd := dirfd
	if name != "" {
		var err error
		err = retry(func() error {
			fd, err = unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			return err
		})
		if err != nil {
			return 0, err
		}
		defer func() { _ = unix.Close(fd) }()
	}
	return askFsid(fd, dev)
}

// askFsid asks for the f_fsid of fd's file system and remembers it, if it is still the one with device dev.
func askFsid(fd int, dev uint64) (uint64, error) {
	var sf unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &sf) }); err != nil {
		return 0, err
	}
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return 0, err
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) != dev {
		return 0, ErrMoved
	}
	id := uint64(uint32(sf.Fsid.Val[1]))<<32 | uint64(uint32(sf.Fsid.Val[0]))
	if id == 0 {
		id = dev
	}
	fsids.Store(dev, id)
	return id, nil
}
