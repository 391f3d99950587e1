package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// listBound is how many bytes the answer to one List may have: over a hundred thousand names.
const listBound = 32 << 20

func (s *sftpStore) Read(ctx context.Context, name string, max int64) (data []byte, err error) {
	err = s.look(ctx, "read", name, max, func(c *conn) error {
		data, err = c.read(path.Join(c.root, name), max)
		return err
	})
	return data, err
}

func (s *sftpStore) Stat(ctx context.Context, name string) (info Info, err error) {
	err = s.look(ctx, "stat", name, 0, func(c *conn) error {
		info, err = c.lstat(path.Join(c.root, name))
		return err
	})
	info.Name = name
	return info, err
}

// look asks for an object and maps its absence.
func (s *sftpStore) look(ctx context.Context, verb, name string, size int64, ask func(c *conn) error) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return s.with(ctx, verb, name, size, func(_ context.Context, c *conn) error {
		err := twice(func() error { return ask(c) })
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrNotExist, err)
		}
		return err
	})
}

func (s *sftpStore) List(ctx context.Context, dir string) (found []Info, err error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	err = s.with(ctx, "list", dir, 0, func(ctx context.Context, c *conn) error {
		err := twice(func() error {
			found, err = c.list(ctx, path.Join(c.root, dir))
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return found, err
}

func (c *conn) list(ctx context.Context, dir string) ([]Info, error) {
	defer c.answers.bound(listBound)()
	var entries []fs.FileInfo
	err := c.call(usual, func() (err error) {
		entries, err = c.sftp.ReadDirContext(ctx, dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	var found []Info
	for _, st := range entries {
		if st.IsDir() || st.Mode().IsRegular() {
			found = append(found, Info{Name: st.Name(), Size: st.Size(), ModTime: st.ModTime(), Dir: st.IsDir()})
		}
	}
	return accept(found), nil
}

// Remove is refused: accounts must not be able to remove anything, and whoever holds the store does it there.
func (s *sftpStore) Remove(_ context.Context, name string) error {
	return fmt.Errorf("remove %s at %s: %w", name, s.place.addr(), ErrReadSide)
}

func (s *sftpStore) space(ctx context.Context) (free, total uint64, err error) {
	err = s.with(ctx, "ask for space", "", 0, func(_ context.Context, c *conn) error {
		if !c.canStatVFS {
			return fmt.Errorf("%w: statvfs@openssh.com", ErrLacks)
		}
		vfs, err := c.statVFS(c.root)
		if err == nil {
			free, total = vfs.Bavail*vfs.Frsize, vfs.Blocks*vfs.Frsize
		}
		return err
	})
	return free, total, err
}
