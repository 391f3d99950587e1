package restore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
)

// write makes the file under a temporary name, gives it content and attributes, and renames it. count goes down by what was
// written.
func (r *run) write(ctx context.Context, f *file, p place, id *identity, count *int64) error {
	h, err := r.dirs.get(p.dir)
	if err != nil {
		return err
	}
	defer r.dirs.put(h)
	temp := p.temp()
	o, err := r.create(h.fd, temp, f.inode)
	if err != nil {
		return err
	}
	// Died between here and the rename: the next run removes the temporary file.
	err = func() error {
		if c := f.content(); c != nil {
			if err := r.fill(ctx, o, c, count); err != nil {
				return err
			}
		}
		if err := r.setAttributes(o, f.inode, p.path()); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(o.fd, "", &st, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("look at the new file: %w", err)
		}
		*id = identity{st.Dev, st.Ino}
		return nil
	}()
	err = errors.Join(err, unix.Close(o.fd))
	if err == nil {
		err = r.rename(h.fd, temp, p.name)
	}
	if err != nil {
		_ = unix.Unlinkat(h.fd, temp, 0) // the first error counts; the next run removes it otherwise
		return err
	}
	r.note(func(res *Result) { res.Files++ })
	return nil
}

// create makes an empty object of the inode's type under a name that nobody else uses, and opens it.
func (r *run) create(dirfd int, temp string, in *batch.Inode) (object, error) {
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
		return object{}, fmt.Errorf("make file: %w", err)
	}
	if kind == unix.S_IFREG {
		return object{fd: fd}, nil
	}
	fd, err = unix.Openat(dirfd, temp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return object{}, fmt.Errorf("open the new file: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "", &st, unix.AT_EMPTY_PATH); err != nil || st.Mode&unix.S_IFMT != kind {
		return object{}, errors.Join(errMoved, err, unix.Close(fd))
	}
	return object{fd: fd, byPath: true}, nil
}

// fill writes a file's content; what is not written stays a hole.
func (r *run) fill(ctx context.Context, o object, c *batch.Content, count *int64) error {
	if err := unix.Ftruncate(o.fd, c.Size); err != nil {
		return fmt.Errorf("set size %d: %w", c.Size, err)
	}
	var written int64
	err := r.t.content.WriteAt(ctx, c, fdWriter(o.fd), func(n int64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.result.Bytes += n
		written += n
		r.done += n
		if r.opt.Progress != nil {
			r.opt.Progress(r.done, r.plan.total)
		}
	})
	*count -= written
	return err
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

// link gives a file that is there another name.
func (r *run) link(same copyOf, p place) error {
	from, err := r.dirs.get(same.at.dir)
	if err != nil {
		return err
	}
	defer r.dirs.put(from)
	to, err := r.dirs.get(p.dir)
	if err != nil {
		return err
	}
	defer r.dirs.put(to)
	temp := p.temp()
	err = unix.Linkat(from.fd, same.at.name, to.fd, temp, 0)
	if errors.Is(err, unix.EEXIST) {
		if err = unix.Unlinkat(to.fd, temp, 0); err == nil {
			err = unix.Linkat(from.fd, same.at.name, to.fd, temp, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", same.at.path(), err)
	}
	var st unix.Stat_t
	err = unix.Fstatat(to.fd, temp, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (identity{st.Dev, st.Ino} != same.id) {
		err = errMoved
	}
	if err == nil {
		err = r.rename(to.fd, temp, p.name)
	}
	// Renaming one name of a file over another name of it does nothing and leaves both.
	if uerr := unix.Unlinkat(to.fd, temp, 0); err == nil && uerr != nil && !errors.Is(uerr, unix.ENOENT) {
		err = uerr
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", same.at.path(), err)
	}
	r.note(func(res *Result) { res.Files++ })
	return nil
}

// rename puts a finished file in its place. Without --overwrite it replaces nothing but what an interrupted run left.
func (r *run) rename(dirfd int, temp, name string) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if r.opt.Overwrite || r.untrusted {
		flags = 0
	}
	err := unix.Renameat2(dirfd, temp, dirfd, name, flags)
	if errors.Is(err, unix.EISDIR) && flags == 0 {
		// A directory gives way only when it is empty: what lies in it is not for a file of the same name to remove.
		if err = unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR); err == nil {
			err = unix.Renameat2(dirfd, temp, dirfd, name, flags)
		}
	}
	if errors.Is(err, unix.EINVAL) && flags != 0 { // a file system without the flag; a link refuses an existing name as well
		if err = unix.Linkat(dirfd, temp, dirfd, name, 0); err == nil {
			err = unix.Unlinkat(dirfd, temp, 0)
		}
	}
	return wrap("put file in its place", err)
}
