package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// conn is one connection; one operation uses it at a time.
type conn struct {
	wire    *wire
	ssh     *ssh.Client
	sftp    *sftp.Client
	watch   *watch
	answers *answers
	limit   Limiter
	root    string     // of the store
	dirs    *dirSet    // the store's
	left    *leftovers // the store's
	used    time.Time  // guarded by the pool's lock

	canSync, canReplace, canStatVFS bool

	behind errgroup.Group // closing of handles, for which nobody waits
}

const (
	usual   = 1
	syncing = 3 // a busy disk may take this much longer over an fsync than over anything else
)

// call makes a request, or several that belong together, and waits for the answers. An error that is not an answer of the
// server's file system ends the connection: what came of the request is unknown then.
func (c *conn) call(factor int, request func() error) error {
	c.watch.begin(factor)
	err := request()
	c.watch.end()
	if err != nil && !isAnswer(err) {
		c.wire.fail(err)
	}
	return err
}

// both makes two requests at once.
func both(first, second func() error) (error, error) {
	var group errgroup.Group
	var err error
	group.Go(func() error {
		err = second()
		return nil
	})
	firstErr := first()
	return firstErr, errors.Join(group.Wait(), err)
}

func isAnswer(err error) bool {
	var status *sftp.StatusError
	return errors.As(err, &status) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, io.EOF)
}

// lost tells that the connection ended, so that what came of the last request is unknown.
func (c *conn) lost() bool { return c.wire.ended() != nil }

// release closes a handle without waiting for the answer.
func (c *conn) release(f *sftp.File) {
	if f != nil {
		c.behind.Go(func() error {
			_ = f.Close() // only a handle; the fsync before it is what counts
			return nil
		})
	}
}

// close ends the connection, TCP first: the library's own Close waits behind a request that is stalled.
func (c *conn) close() {
	c.wire.fail(errors.New("closed"))
	_ = c.behind.Wait()
	_ = c.sftp.Close()
	_ = c.ssh.Close()
}

// lstat tells about the object itself, never what a symbolic link leads to.
func (c *conn) lstat(name string) (info Info, err error) {
	var st fs.FileInfo
	err = c.call(usual, func() error {
		st, err = c.sftp.Lstat(name)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	if !st.IsDir() && !st.Mode().IsRegular() || st.Size() < 0 {
		return Info{}, fmt.Errorf("%s: %w", name, errNotRegular)
	}
	return Info{Name: name, Size: st.Size(), ModTime: st.ModTime(), Dir: st.IsDir()}, nil
}

// twice asks again before it believes that something is absent: other errors of a server look the same.
func twice(ask func() error) error {
	if err := ask(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return ask()
}

// openDir opens a directory for its fsync. A handle of OPENDIR would not do; OPEN for reading does.
func (c *conn) openDir(dir string) (f *sftp.File, err error) {
	if !c.canSync {
		info, err := c.lstat(dir)
		if err == nil && !info.Dir {
			err = unix.ENOTDIR
		}
		return nil, err
	}
	err = c.call(usual, func() error {
		f, err = c.sftp.Open(dir)
		return err
	})
	return f, err
}

// syncDir fsyncs what openDir returned. Dying before: what was made or renamed in it may be undone by a loss of power.
func (c *conn) syncDir(f *sftp.File) error {
	if f == nil {
		return nil // the server cannot; Weak says so
	}
	return c.call(syncing, f.Sync)
}

// enter opens the directory in which an object is to be made, makes it if need be, and sees to it that it and what is
// above it up to the root survive a loss of power: whoever made them may have died before their fsync.
func (c *conn) enter(dir string) (*sftp.File, error) {
	f, err := c.openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		c.dirs.forget()
		if err = c.makeDir(dir); err == nil {
			f, err = c.openDir(dir)
		}
	}
	if err != nil {
		return nil, c.explain(dir, 0, err)
	}
	if err := c.settleDirs(dir); err != nil {
		c.release(f)
		return nil, c.explain(dir, 0, err)
	}
	return f, nil
}

// settleDirs fsyncs a directory into its parent, and so on up to the root, unless that is known to be done.
func (c *conn) settleDirs(dir string) error {
	for at := dir; ; at = path.Dir(at) {
		if !c.dirs.has(at) {
			err := c.syncParent(at)
			if at == c.root && errors.Is(err, fs.ErrPermission) {
				err = nil // an account need not be able to read what is above its store
			}
			if err != nil {
				return err
			}
			c.dirs.add(at)
		}
		if at == c.root {
			return nil
		}
	}
}

func (c *conn) syncParent(dir string) error {
	f, err := c.openDir(path.Dir(dir))
	if err != nil {
		return err
	}
	defer c.release(f)
	return c.syncDir(f)
}

// makeDir makes a directory and those above it, each fsynced into its parent.
func (c *conn) makeDir(dir string) error {
	mkdir := func() error { return c.call(usual, func() error { return c.sftp.Mkdir(dir) }) }
	err := mkdir()
	if parent := path.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := c.makeDir(parent); err != nil {
			return err
		}
		err = mkdir()
	}
	if err != nil {
		if info, statErr := c.lstat(dir); statErr != nil || !info.Dir { // or somebody else was faster
			return err
		}
	}
	err = c.syncParent(dir)
	if err == nil {
		c.dirs.add(dir)
	}
	return err
}

// explain gives a refusal its class. The protocol has one code for a full disk, a read-only one and much else, so the
// server is asked for the state of its file system; need is what should have gone there.
func (c *conn) explain(dir string, need int, err error) error {
	var status *sftp.StatusError
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the account may not do this in %s: %w", dir, err)
	}
	if !errors.As(err, &status) || !c.canStatVFS || c.lost() {
		return err
	}
	vfs, askErr := c.statVFS(dir)
	const slack, readOnly = 64 << 10, 1
	switch {
	case askErr != nil:
		return err
	case vfs.Flag&readOnly != 0:
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case vfs.Bavail*vfs.Frsize < uint64(need)+slack, vfs.Files > 0 && vfs.Favail == 0:
		return fmt.Errorf("%w: %d bytes and %d files are free: %w", ErrFull, vfs.Bavail*vfs.Frsize, vfs.Favail, err)
	}
	return err
}

// statVFS asks for the file system of a directory, or of the nearest above it that exists.
func (c *conn) statVFS(dir string) (vfs *sftp.StatVFS, err error) {
	for {
		err = c.call(usual, func() error {
			vfs, err = c.sftp.StatVFS(dir)
			return err
		})
		if !errors.Is(err, fs.ErrNotExist) || dir == path.Dir(dir) {
			return vfs, err
		}
		dir = path.Dir(dir)
	}
}
