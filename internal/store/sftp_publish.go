package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"slipway/internal/durable"

	"github.com/pkg/sftp"
)

var errSize = errors.New("the server holds another size than was sent")

// segment is what is written or read at once. With a limiter it is small, so that the line is used evenly.
const (
	segment        = 2 << 20
	limitedSegment = 256 << 10
)

// target is where an object is to be made.
type target struct {
	dir, path string
	handle    *sftp.File // the directory, for its fsync
	present   bool       // something has the object's name already
}

func (s *sftpStore) Publish(ctx context.Context, name string, data []byte) error {
	return s.make(ctx, "publish", name, data, func(ctx context.Context, c *conn, t *target) error {
		same := func() error { return c.compare(t.path, data, isShard(name)) }
		if t.present {
			return same()
		}
		defer s.tally.follow(c)()
		return c.create(ctx, t, data, same)
	})
}

func (s *sftpStore) CreateExclusive(ctx context.Context, name string, data []byte) error {
	return s.make(ctx, "create", name, data, func(ctx context.Context, c *conn, t *target) error {
		if t.present {
			return ErrExist
		}
		return c.create(ctx, t, data, func() error { return ErrExist })
	})
}

func (s *sftpStore) Replace(ctx context.Context, name string, data []byte) error {
	return s.make(ctx, "replace", name, data, func(ctx context.Context, c *conn, t *target) error {
		if !c.canReplace {
			return fmt.Errorf("%w: posix-rename@openssh.com, or the account is refused it", ErrLacks)
		}
		temp, err := c.upload(ctx, t.dir, data)
		if err != nil {
			return err
		}
		if err := c.call(usual, func() error { return c.sftp.PosixRename(temp, t.path) }); err != nil {
			return c.giveUp(temp, c.explain(t.dir, len(data), err))
		}
		return nil
	})
}

// make does what publish, create and replace have in common: the directory first, its fsync last.
func (s *sftpStore) make(ctx context.Context, verb, name string, data []byte,
	do func(ctx context.Context, c *conn, t *target) error) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return s.with(ctx, verb, name, int64(len(data)), func(ctx context.Context, c *conn) error {
		if err := s.left.sweep(c); err != nil {
			return err
		}
		t, err := c.arrive(path.Join(c.root, name))
		if err != nil {
			return err
		}
		defer c.release(t.handle)
		if err := do(ctx, c, t); err != nil {
			return err
		}
		// Present or made just now: it counts when this is done, since whoever made it may have died before.
		return c.explain(t.dir, 0, c.syncDir(t.handle))
	})
}

// arrive opens the object's directory and looks for the object, at once.
func (c *conn) arrive(name string) (*target, error) {
	t := &target{dir: path.Dir(name), path: name}
	err, statErr := both(
		func() (err error) { t.handle, err = c.enter(t.dir); return err },
		func() error { _, err := c.lstat(name); return err },
	)
	t.present = statErr == nil || errors.Is(statErr, errNotRegular)
	if err == nil && !t.present && !errors.Is(statErr, fs.ErrNotExist) {
		err = statErr
	}
	if err != nil {
		c.release(t.handle)
		return nil, err
	}
	return t, nil
}

// create uploads and gives the object its name, unless there is one by then: taken decides what that means.
func (c *conn) create(ctx context.Context, t *target, data []byte, taken func() error) error {
	temp, err := c.upload(ctx, t.dir, data)
	if err != nil {
		return err
	}
	err = c.call(usual, func() error { return c.sftp.Rename(temp, t.path) })
	if err == nil {
		return nil
	}
	// A taken name and a failure look the same: look.
	if !c.lost() {
		if _, statErr := c.lstat(t.path); statErr == nil {
			err = taken()
		} else {
			err = c.explain(t.dir, len(data), err)
		}
	}
	return c.giveUp(temp, err)
}

// upload writes data under a new temporary name, durably and of the right size. Dying on the way leaves a file that
// means nothing.
func (c *conn) upload(ctx context.Context, dir string, data []byte) (temp string, err error) {
	temp = path.Join(dir, durable.TempName())
	var f *sftp.File
	err = c.call(usual, func() error {
		f, err = c.sftp.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		return err
	})
	if err == nil {
		err = c.write(ctx, f, data)
		if err == nil {
			err = c.settle(f, temp, len(data))
		}
		c.release(f)
	} else if !c.lost() {
		return "", c.explain(dir, len(data), err) // nothing was made
	}
	if err != nil {
		return "", c.giveUp(temp, c.explain(dir, len(data), err))
	}
	return temp, nil
}

// write writes all of data; any error makes the file garbage, since later packets may have been written all the same.
func (c *conn) write(ctx context.Context, f *sftp.File, data []byte) error {
	size := segment
	if c.limit != nil {
		size = limitedSegment
	}
	for off := 0; off < len(data); off += size {
		part := data[off:min(off+size, len(data))]
		if err := pace(ctx, c.limit, len(part)); err != nil {
			return err
		}
		if err := c.call(usual, func() error { _, err := f.WriteAt(part, int64(off)); return err }); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the content durable and checks that the server has all of it: servers and libraries have lost writes
// without saying so.
func (c *conn) settle(f *sftp.File, temp string, size int) error {
	var info Info
	sync := func() error {
		if !c.canSync {
			return nil
		}
		return c.call(syncing, f.Sync)
	}
	stat := func() (err error) { info, err = c.lstat(temp); return err }
	if err := errors.Join(both(sync, stat)); err != nil {
		return err
	}
	if info.Size != int64(size) {
		return fmt.Errorf("%w: %d of %d bytes", errSize, info.Size, size)
	}
	return nil
}

// compare returns nil when the object is what we would have made.
func (c *conn) compare(name string, data []byte, bySize bool) error {
	info, err := c.lstat(name)
	if errors.Is(err, errNotRegular) || err == nil && (info.Dir || info.Size != int64(len(data))) {
		return fmt.Errorf("%w: %d bytes are there, %d were to be", ErrDiffers, info.Size, len(data))
	}
	if err != nil || bySize {
		return err
	}
	found, err := c.read(name, int64(len(data)))
	if err != nil {
		return err
	}
	if !bytes.Equal(found, data) {
		return fmt.Errorf("%w of the same size", ErrDiffers)
	}
	return nil
}

// read reads a whole object. Its size is asked for by name first, since opening something else than a file could block
// the server, and by handle again, since the name may have been replaced meanwhile.
func (c *conn) read(name string, max int64) ([]byte, error) {
	info, err := c.lstat(name)
	if err == nil && info.Dir {
		err = errNotRegular
	}
	if err == nil && info.Size > max {
		err = fmt.Errorf("%w: %d bytes, at most %d are expected", ErrTooLarge, info.Size, max)
	}
	if err != nil {
		return nil, err
	}
	var f *sftp.File
	err = c.call(usual, func() error {
		f, err = c.sftp.Open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.release(f)
	return c.readOpen(f, info.Size, max)
}

func (c *conn) readOpen(f *sftp.File, size, max int64) ([]byte, error) {
	data := make([]byte, size)
	var st fs.FileInfo
	stat := func() (err error) { st, err = f.Stat(); return err }
	readErr, statErr := both(
		func() error { return c.readAll(f, data) },
		func() error { return c.call(usual, stat) },
	)
	switch {
	case statErr != nil:
		return nil, statErr
	case st.Size() == size:
		return data, readErr
	case st.Size() < 0 || st.Size() > max:
		return nil, fmt.Errorf("%w: %d bytes, at most %d are expected", ErrTooLarge, st.Size(), max)
	}
	data = make([]byte, st.Size()) // replaced between the two looks; what is open now stays as it is
	return data, c.readAll(f, data)
}

// readAll fills data; the end before that is an error, since the size is known.
func (c *conn) readAll(f *sftp.File, data []byte) error {
	for off := 0; off < len(data); off += segment {
		part := data[off:min(off+segment, len(data))]
		err := c.call(usual, func() error {
			n, err := f.ReadAt(part, int64(off))
			if n == len(part) {
				return nil
			}
			return err
		})
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: the object ends too early", ErrTemporary)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
