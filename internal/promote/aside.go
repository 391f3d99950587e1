package promote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/journal"
	"slipway/internal/restore"
	"slipway/internal/restore/object"
	"slipway/internal/source"
)

// aside moves away what lies in the source and is not as in the tree: other names, other kinds, other attributes, other content, which is
// read for that. What is the same stays, so that only the difference has to be brought back, and nothing is lost that only this node
// has. Directories of the tree stay, and lose the extended attributes that they should not have.
//
// After a crash the same call goes on: what has been moved is not there any more.
func (r *run) aside(ctx context.Context, tree *restore.Tree) error {
	root, err := os.Open(r.opt.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("compare what lies in the source: %w", err)
	}
	defer func() { _ = root.Close() }() // only looked from
	m := &mover{ctx: ctx, r: r, tree: tree, kids: map[batch.FileID]map[string]*batch.Inode{}, make: object.Maker{Euid: os.Geteuid()}}
	if err := tree.Each(m.note); err != nil {
		return err
	}
	if err := m.dir(root, batch.Root, ""); err != nil {
		return fmt.Errorf("compare what lies in %s: %w", r.opt.Source, err)
	}
	r.result.Aside = m.moved
	return nil
}

type mover struct {
	ctx   context.Context
	r     *run
	tree  *restore.Tree
	kids  map[batch.FileID]map[string]*batch.Inode
	make  object.Maker
	moved []string
}

// note takes one entry of the tree. What cannot be restored is no entry: what lies under its name is moved.
func (m *mover) note(parent batch.FileID, name string, in *batch.Inode, err error) error {
	if err != nil || parent == 0 {
		return m.ctx.Err()
	}
	if m.kids[parent] == nil {
		m.kids[parent] = map[string]*batch.Inode{}
	}
	m.kids[parent][name] = in
	return m.ctx.Err()
}

// dir compares what lies in one directory of the tree.
func (m *mover) dir(dir *os.File, id batch.FileID, path string) error {
	names, err := source.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		if err := m.entry(dir, m.kids[id][name], name, filepath.Join(path, name)); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	return nil
}

func (m *mover) entry(dir *os.File, in *batch.Inode, name, path string) error {
	if source.IsMountPoint(int(dir.Fd()), name) {
		return nil // no part of the volume
	}
	if in == nil {
		return m.move(dir, name, path)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != in.Mode&unix.S_IFMT {
		return m.move(dir, name, path)
	}
	flags := unix.O_PATH
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFREG || kind == unix.S_IFDIR {
		flags = unix.O_RDONLY
	}
	f, err := source.Open(dir, name, flags, journal.Ident{})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	has, err := source.Xattrs(f)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		for name := range has {
			if _, keep := in.Xattrs[name]; keep {
				continue
			}
			if err := (object.Object{FD: int(f.Fd())}).RemoveXattr(name); err != nil {
				return err
			}
		}
		return m.dir(f, in.ID, path)
	}
	same := m.make.Equal(int(dir.Fd()), name, in, &st) && maps.EqualFunc(has, in.Xattrs, slices.Equal)
	if same && st.Mode&unix.S_IFMT == unix.S_IFREG {
		content, _, _ := object.Content(in)
		if same, err = m.tree.Content().Same(m.ctx, content, f); err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	return m.move(dir, name, path)
}

// move puts an object below the directory for what is set aside, under the same path; one that is taken gets a number.
func (m *mover) move(dir *os.File, name, path string) error {
	to := filepath.Join(m.r.opt.Aside, path)
	if err := durable.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	at := to
	for n := 1; ; n++ {
		err := unix.Renameat2(int(dir.Fd()), name, unix.AT_FDCWD, at, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			m.moved = append(m.moved, path)
			return nil
		case errors.Is(err, unix.EXDEV):
			return fmt.Errorf("set aside: %s is on another file system than the source; name a directory on the same one: %w", m.r.opt.Aside, err)
		case !errors.Is(err, unix.EEXIST):
			return fmt.Errorf("set aside: %w", err)
		}
		at = to + "." + strconv.Itoa(n)
	}
}
