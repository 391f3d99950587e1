package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is an open directory, for callers that have resolved its path themselves. Names given to its methods are base names.
type Dir struct {
	f *os.File
}

// OpenDir opens a directory.
func OpenDir(path string) (*Dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{f: f}, nil
}

// NewDir takes over a directory opened for reading.
func NewDir(f *os.File) *Dir { return &Dir{f: f} }

// Close closes the directory; nothing durable depends on it.
func (d *Dir) Close() error { return d.f.Close() }

// File returns the open directory.
func (d *Dir) File() *os.File { return d.f }

// Sync fsyncs the directory: what was created, renamed or removed in it before is there after a crash.
func (d *Dir) Sync() error {
	return d.step("syncdir", "", func() error { return unix.Fsync(d.fd()) })
}

// CreateExclusive makes name with data, or returns fs.ErrExist (wrapped).
func (d *Dir) CreateExclusive(name string, data []byte, perm os.FileMode) error {
	temp, err := d.writeTemp(data, perm)
	if err != nil {
		return err
	}
	if err := d.renameNoReplace(d, temp, name); err != nil {
		d.discard(temp)
		return err
	}
	return d.Sync() // dying before: whole under its name, or only under the temporary one
}

// CreateIdempotent makes name with data; present and equal is success, present and different is ErrDiffers.
func (d *Dir) CreateIdempotent(name string, data []byte, perm os.FileMode) error {
	err := d.compare(name, data)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.CreateExclusive(name, data, perm); err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrExist) {
			err = d.compare(name, data) // somebody else was faster
		}
	}
	if err != nil {
		return err
	}
	return d.Sync() // whoever made it may have died before this step
}

// Overwrite gives name a new content: after a crash the old or the new.
func (d *Dir) Overwrite(name string, data []byte, perm os.FileMode) error {
	temp, err := d.writeTemp(data, perm)
	if err != nil {
		return err
	}
	err = d.step("rename", name, func() error { return unix.Renameat(d.fd(), temp, d.fd(), name) })
	if err != nil {
		d.discard(temp)
		return err
	}
	return d.Sync()
}

// Remove removes a file; absent is success, fsynced all the same: whoever removed it may have died before that.
func (d *Dir) Remove(name string) error {
	err := d.step("remove", name, func() error { return unix.Unlinkat(d.fd(), name, 0) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.Sync()
}

// Mkdir makes a directory, or finds it, and fsyncs it into this one either way.
func (d *Dir) Mkdir(name string, perm os.FileMode) error {
	err := d.step("mkdir", name, func() error { return unix.Mkdirat(d.fd(), name, uint32(perm.Perm())) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.Sync()
}

// writeTemp writes and fsyncs data under a temporary name. The name itself is not durable yet.
func (d *Dir) writeTemp(data []byte, perm os.FileMode) (string, error) {
	name := TempName()
	var f *os.File
	err := d.step("create", name, func() error {
		fd, err := openat(d.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, perm)
		if err == nil {
			f = os.NewFile(uintptr(fd), d.path(name))
		}
		return err
	})
	if err == nil {
		err = d.step("write", name, func() error { _, err := f.Write(data); return err })
	}
	if err == nil {
		err = d.step("sync", name, f.Sync)
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		d.discard(name)
		return "", err
	}
	return name, nil
}

// discard removes a temporary file that is of no more use. If that does not work the file stays and means nothing.
func (d *Dir) discard(temp string) { _ = unix.Unlinkat(d.fd(), temp, 0) }

// renameNoReplace gives from's temp the name in d, unless that is taken. Where the file system has no such rename, a link
// does the same: dying between link and unlink leaves a second, temporary name.
func (d *Dir) renameNoReplace(from *Dir, temp, name string) error {
	return d.step("rename", name, func() error {
		err := unix.Renameat2(from.fd(), temp, d.fd(), name, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		return linkNoReplace(from.fd(), temp, d.fd(), name)
	})
}

func linkNoReplace(fromFd int, temp string, toFd int, name string) error {
	if err := unix.Linkat(fromFd, temp, toFd, name, 0); err != nil {
		return err
	}
	_ = unix.Unlinkat(fromFd, temp, 0) // the name is made; a spare temporary one means nothing
	return nil
}

// publishFrom is PublishTemp between open directories.
func (d *Dir) publishFrom(from *Dir, temp, name string) error {
	err := d.renameNoReplace(from, temp, name)
	switch {
	case errors.Is(err, fs.ErrExist):
		if err := d.compareWith(from, temp, name); err != nil {
			return err
		}
		from.discard(temp)
	case errors.Is(err, fs.ErrNotExist):
		if d.exists(name) != nil {
			return err // neither is there
		}
	case err != nil:
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if from.f.Name() == d.f.Name() {
		return nil
	}
	return from.Sync() // or the temporary name could come back beside the published one
}

func (d *Dir) compareWith(from *Dir, temp, name string) error {
	f, err := from.open(temp)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return d.compare(name, data)
}

// compare returns nil if name is a regular file with this content, ErrDiffers, or fs.ErrNotExist (wrapped).
func (d *Dir) compare(name string, data []byte) error {
	f, err := d.open(name)
	if err != nil {
		return err
	}
	found, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1)) // no more than decides
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !bytes.Equal(found, data) {
		return fmt.Errorf("%s: %w", d.path(name), ErrDiffers)
	}
	return nil
}

func (d *Dir) exists(name string) error {
	f, err := d.open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

// open opens a regular file for reading. Anything else under that name differs from what we would put there, and must
// neither be followed nor block.
func (d *Dir) open(name string) (*os.File, error) {
	fd, err := openat(d.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s is not a regular file: %w", d.path(name), ErrDiffers)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.path(name))
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", d.path(name), ErrDiffers)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *Dir) fd() int { return int(d.f.Fd()) }

func (d *Dir) path(name string) string { return filepath.Join(d.f.Name(), name) }

// fault lets tests fail a step, before or after it has taken effect. It is nil otherwise.
var fault func(op, path string, do func() error) error

// step does one system call (again when interrupted; File's methods see to that themselves) and names what failed.
func (d *Dir) step(op, name string, do func() error) error {
	again := func() error { return retryInterrupted(do) }
	var err error
	if fault != nil {
		err = fault(op, d.path(name), again)
	} else {
		err = again()
	}
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.path(name), Err: err}
}

func openat(dirFd int, name string, flags int, perm os.FileMode) (fd int, err error) {
	err = retryInterrupted(func() error {
		fd, err = unix.Openat(dirFd, name, flags|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	return fd, err
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
