package restore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/internal/restore/object"
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
	// Died between here and the rename: the next run removes the temporary file.
	st, err := r.make.Make(ctx, h.fd, temp, f.inode, p.path(), func(n int64) { r.wrote(n, count) })
	if err == nil {
		*id = identity{st.Dev, st.Ino}
		err = r.rename(h.fd, temp, p.name)
	}
	if err != nil {
		_ = unix.Unlinkat(h.fd, temp, 0) // the first error counts; the next run removes it otherwise
		return err
	}
	r.note(func(res *Result) { res.Files++ })
	return nil
}

// wrote counts bytes of content that were written.
func (r *run) wrote(n int64, count *int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Bytes += n
	*count -= n
	r.done += n
	if r.opt.Progress != nil {
		r.opt.Progress(r.done, r.plan.total)
	}
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
		err = object.ErrMoved
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
