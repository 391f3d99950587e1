package restore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/content"
	"slipway/internal/restore/object"
)

// found is what lies at a place before the restore.
type found int

const (
	foundNothing found = iota
	foundSame          // the file itself, as wanted
	foundStale         // it looks like it, but an interrupted run's bytes may never have reached the disk
	foundOther
)

// identity tells objects of one file system apart.
type identity struct{ dev, ino uint64 }

// file restores a file under all its names: once written, the others are links. An error ends the restore.
func (r *run) file(ctx context.Context, f *file) error {
	in := f.inode
	if special(in) && r.opt.NoSpecial {
		r.note(func(res *Result) { res.Skipped += int64(len(f.places)) })
		return nil
	}
	todo, same, have, err := r.look(f)
	if err != nil {
		return err
	}
	count := f.data()
	for len(todo) > 0 && !have {
		same.at, todo = todo[0], todo[1:]
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.write(ctx, f, same.at, &same.id, &count)
		if have = err == nil; have {
			r.there(f.inode, same.at)
			continue
		}
		if err := r.notThere(same.at, err); err != nil {
			return err
		}
		var read *content.Error
		for errors.As(err, &read) && len(todo) > 0 { // its bytes are not to be had under any of its names
			if err := r.notThere(todo[0], err); err != nil {
				return err
			}
			todo = todo[1:]
		}
	}
	r.progress(count) // what did not have to be written
	for _, p := range todo {
		err := r.link(same, p)
		if err == nil {
			r.there(f.inode, p)
		} else if err := r.notThere(p, err); err != nil {
			return err
		}
	}
	return nil
}

// there notes a place where the file is now.
func (r *run) there(in *batch.Inode, p place) {
	_, earlier, unclean := object.Content(in)
	if !earlier && !unclean {
		return
	}
	r.note(func(res *Result) {
		if earlier {
			res.Earlier = append(res.Earlier, p.path())
		} else {
			res.Unclean = append(res.Unclean, p.path())
		}
	})
}

// notThere notes a place where it is not, or returns the error if that ends the restore.
func (r *run) notThere(p place, err error) error {
	if errors.Is(err, unix.EEXIST) && !r.opt.Overwrite { // appeared while it was written
		r.note(func(res *Result) { res.Kept = append(res.Kept, p.path()) })
		return nil
	}
	return r.fail(p.path(), err)
}

func special(in *batch.Inode) bool {
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFDIR:
		return false
	}
	return true
}

// copyOf is a place where the file is.
type copyOf struct {
	at place
	id identity
}

// look sorts a file's places: those to write, and one where it is already.
func (r *run) look(f *file) (todo []place, same copyOf, have bool, err error) {
	for _, p := range f.places {
		what, id, err := r.find(f.inode, p)
		if err != nil {
			if err := r.fail(p.path(), err); err != nil {
				return nil, same, false, err
			}
			continue
		}
		switch {
		case what == foundSame:
			if !have {
				same, have = copyOf{p, id}, true
			}
			r.note(func(res *Result) { res.Same++ })
			r.there(f.inode, p)
		case what == foundOther && !r.opt.Overwrite:
			r.note(func(res *Result) { res.Kept = append(res.Kept, p.path()) })
		default:
			todo = append(todo, p)
		}
	}
	return todo, same, have, nil
}

var errParent = errors.New("its directory could not be made")

// find looks at what lies at a place.
func (r *run) find(in *batch.Inode, p place) (found, identity, error) {
	switch p.dir.state {
	case dirFailed:
		return 0, identity{}, errParent
	case dirAbsent:
		return foundNothing, identity{}, nil
	}
	h, err := r.dirs.get(p.dir)
	if err != nil {
		return 0, identity{}, err
	}
	defer r.dirs.put(h)
	var st unix.Stat_t
	if err := unix.Fstatat(h.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return foundNothing, identity{}, nil
		}
		return 0, identity{}, fmt.Errorf("look at what is there: %w", err)
	}
	if !r.make.Equal(h.fd, p.name, in, &st) {
		return foundOther, identity{}, nil
	}
	if r.untrusted && isReg(in) && st.Size > 0 {
		return foundStale, identity{}, nil
	}
	return foundSame, identity{st.Dev, st.Ino}, nil
}
