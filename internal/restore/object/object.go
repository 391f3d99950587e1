// Package object makes single files, links, devices and directories as a batch records them, by the descriptor of their
// directory and one name, with content and every attribute. Whoever asks for one names it, moves it into its place and makes
// it durable.
//
// What is true after a crash: an object that was being made lies under the name that its maker was given, in whatever state;
// a name counts only once it was given by a rename after Make had returned.
package object

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/content"
)

// Classes of errors.
var (
	// ErrRecord: the record cannot be made into a file.
	ErrRecord = errors.New("its record is not in any batch")
	// ErrMoved: somebody works in the same directory.
	ErrMoved = errors.New("another object took its place meanwhile")
)

// Maker makes objects. Safe for concurrent use.
type Maker struct {
	Content *content.Reader
	NoSUID  bool                               // without set-user-id, set-group-id and file capabilities
	Euid    int                                // of this process: only root can give objects away
	Skip    func(kind, path string, err error) // an attribute that this process may not set
}

// Make makes an object under a name that nobody else uses: content, then attributes, times last. What an earlier attempt left
// there is removed. wrote, if not nil, is told of every run of bytes.
func (m *Maker) Make(ctx context.Context, dirfd int, name string, in *batch.Inode, path string, wrote func(int64)) (st unix.Stat_t, err error) {
	o, err := create(dirfd, name, in)
	if err != nil {
		return st, err
	}
	err = func() error {
		if isReg(in) {
			c, _, _ := Content(in)
			if err := m.fill(ctx, o, c, wrote); err != nil {
				return err
			}
		}
		if err := m.SetAttributes(o, in, path); err != nil {
			return err
		}
		if err := unix.Fstatat(o.FD, "", &st, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("look at the new file: %w", err)
		}
		return nil
	}()
	return st, errors.Join(err, unix.Close(o.FD))
}

// create makes an empty object of the inode's type, and opens it.
func create(dirfd int, temp string, in *batch.Inode) (Object, error) {
	kind := in.Mode & unix.S_IFMT
	attempt := func() (int, error) {
		switch kind {
		case unix.S_IFREG:
			return unix.Openat(dirfd, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		case unix.S_IFLNK:
			return -1, unix.Symlinkat(in.Target, dirfd, temp)
		case unix.S_IFIFO, unix.S_IFSOCK:
			return -1, unix.Mknodat(dirfd, temp, kind|0o600, 0)
		case unix.S_IFCHR, unix.S_IFBLK:
			return -1, unix.Mknodat(dirfd, temp, kind|0o600, int(in.Rdev))
		}
		return -1, fmt.Errorf("%w: mode %o", ErrRecord, in.Mode)
	}
	fd, err := attempt()
	if errors.Is(err, unix.EEXIST) { // left by an interrupted run
		if err = unix.Unlinkat(dirfd, temp, 0); err == nil {
			fd, err = attempt()
		}
	}
	if err != nil {
		return Object{}, fmt.Errorf("make file: %w", err)
	}
	if kind == unix.S_IFREG {
		return Object{FD: fd}, nil
	}
	return Hold(dirfd, temp, kind)
}

// Hold opens what cannot be opened to read or write: the object of that kind (S_IFMT) which lies there, and not what a link
// leads to.
func Hold(dirfd int, name string, kind uint32) (Object, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Object{}, fmt.Errorf("open file: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "", &st, unix.AT_EMPTY_PATH); err != nil || st.Mode&unix.S_IFMT != kind {
		return Object{}, errors.Join(ErrMoved, err, unix.Close(fd))
	}
	return Object{FD: fd, ByPath: true}, nil
}

// fill writes a file's content; what is not written stays a hole.
func (m *Maker) fill(ctx context.Context, o Object, c *batch.Content, wrote func(int64)) error {
	if c == nil {
		return fmt.Errorf("%w: no content", ErrRecord)
	}
	if err := unix.Ftruncate(o.FD, c.Size); err != nil {
		return fmt.Errorf("set size %d: %w", c.Size, err)
	}
	if wrote == nil {
		wrote = func(int64) {}
	}
	return m.Content.WriteAt(ctx, c, fdWriter(o.FD), wrote)
}

// fdWriter writes at offsets of a descriptor.
type fdWriter int

func (w fdWriter) WriteAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		k, err := unix.Pwrite(int(w), p[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, os.NewSyscallError("pwrite", err)
		}
		n += k
	}
	return len(p), nil
}

// OpenDir opens a directory by one name, which may lead nowhere but one step down.
func OpenDir(parent int, name string) (int, error) {
	for {
		fd, err := unix.Openat2(parent, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// Content returns what to restore of a regular file: clean content where there is one. nil: it was not sealed yet.
func Content(in *batch.Inode) (c *batch.Content, earlier, unclean bool) {
	c = in.Content
	switch {
	case c == nil, c.Clean:
		return c, false, false
	case c.Before != nil:
		return c.Before, true, false
	}
	return c, false, true
}

// Equal compares by type, size, times, mode and (as root) owner, without reading content.
func (m *Maker) Equal(dirfd int, name string, in *batch.Inode, st *unix.Stat_t) bool {
	kind := in.Mode & unix.S_IFMT
	if st.Mode&unix.S_IFMT != kind || unix.TimespecToNsec(st.Mtim) != in.Mtime {
		return false
	}
	if m.Euid == 0 && (st.Uid != in.UID || st.Gid != in.GID) {
		return false
	}
	if kind == unix.S_IFLNK {
		buf := make([]byte, len(in.Target)+1)
		n, err := unix.Readlinkat(dirfd, name, buf)
		return err == nil && string(buf[:n]) == in.Target
	}
	if st.Mode&0o7777 != m.Mode(in, st.Uid, st.Gid) {
		return false
	}
	switch kind {
	case unix.S_IFREG:
		c, _, _ := Content(in)
		return c != nil && st.Size == c.Size
	case unix.S_IFCHR, unix.S_IFBLK:
		return st.Rdev == in.Rdev
	}
	return true
}

func isDir(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFDIR }
func isReg(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFREG }
