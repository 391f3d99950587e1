package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/content"
	"slipway/internal/restore/object"
)

// Row is a file as a listing shows it.
type Row struct {
	Path   string // relative to the volume; "" is its root
	ID     batch.FileID
	Mode   uint32 // st_mode
	UID    uint32
	GID    uint32
	Rdev   uint64
	Size   int64
	Mtime  time.Time
	Target string
	Links  int    // names of the file in the volume
	State  string // "", "pending", "unclean", "earlier" (its last clean content is shown)
	Err    error  // why it cannot be restored: a hostile name, a missing record, a loop
}

func (t *Tree) row(path string, in *batch.Inode) Row {
	r := Row{
		Path: path, ID: in.ID, Mode: in.Mode, UID: in.UID, GID: in.GID, Rdev: in.Rdev,
		Mtime: time.Unix(0, in.Mtime), Target: in.Target, Links: max(1, t.links[in.ID]),
	}
	if !isReg(in) {
		return r
	}
	c, earlier, unclean := object.Content(in)
	switch {
	case c == nil:
		r.State = "pending"
	case earlier:
		r.State = "earlier"
	case unclean:
		r.State = "unclean"
	}
	if c != nil {
		r.Size = c.Size
	}
	return r
}

// List returns the entries of a directory in byte order, or the one row of anything else.
func (t *Tree) List(path string) ([]Row, error) {
	names, err := split(path)
	if err != nil {
		return nil, err
	}
	in, err := t.lookup(names)
	if err != nil {
		return nil, fmt.Errorf("list %w", err)
	}
	path = strings.Join(names, "/")
	if !isDir(in) {
		return []Row{t.row(path, in)}, nil
	}
	var rows []Row
	for _, c := range t.children[in.ID] {
		rows = append(rows, t.childRow(path, c))
	}
	return rows, nil
}

func (t *Tree) childRow(dir string, c child) Row {
	path := join(dir, c.name)
	in := t.inodes[c.id]
	if in == nil {
		return Row{Path: path, ID: c.id, Err: ErrRecord}
	}
	r := t.row(path, in)
	r.Err = checkName(c.name)
	return r
}

// Each calls fn for the root and for every entry below it with its record, directories before what is in them: with an error
// where it cannot be restored. A regular file whose record has no content was not sealed yet.
func (t *Tree) Each(fn func(parent batch.FileID, name string, in *batch.Inode, err error) error) error {
	if err := fn(0, "", t.inodes[batch.Root], nil); err != nil {
		return err
	}
	return t.each(batch.Root, 1, map[batch.FileID]bool{batch.Root: true}, fn)
}

func (t *Tree) each(dir batch.FileID, depth int, seen map[batch.FileID]bool, fn func(batch.FileID, string, *batch.Inode, error) error) error {
	for _, c := range t.children[dir] {
		in, err := t.inodes[c.id], checkName(c.name)
		switch {
		case err != nil:
		case in == nil:
			err = ErrRecord
		case isDir(in) && seen[c.id]:
			err = ErrLoop
		case depth > maxDepth:
			err = ErrDepth
		}
		if ferr := fn(dir, c.name, in, err); ferr != nil {
			return ferr
		}
		if err != nil || !isDir(in) {
			continue
		}
		seen[c.id] = true
		if err := t.each(c.id, depth+1, seen, fn); err != nil {
			return err
		}
	}
	return nil
}

// NoRoot tells that nothing is known of the root's own attributes.
func (t *Tree) NoRoot() bool { return t.noRoot }

// Secret returns the volume's secret; nil if no batch that the tree was folded from holds it.
func (t *Tree) Secret() *chunk.Secret { return t.secret }

// Content reads the tree's files.
func (t *Tree) Content() *content.Reader { return t.content }

// Walk calls fn for a path and everything below it, directories before what is in them. Unreachable files are not seen.
// fs.SkipDir returned by fn leaves out what is below a directory.
func (t *Tree) Walk(path string, fn func(Row) error) error {
	names, err := split(path)
	if err != nil {
		return err
	}
	in, err := t.lookup(names)
	if err != nil {
		return fmt.Errorf("walk %w", err)
	}
	w := walker{t: t, fn: fn, seen: make(map[batch.FileID]bool)}
	return w.walk(t.row(strings.Join(names, "/"), in), len(names))
}

type walker struct {
	t    *Tree
	fn   func(Row) error
	seen map[batch.FileID]bool // a tree that leads back into itself must end
}

func (w *walker) walk(r Row, depth int) error {
	in := w.t.inodes[r.ID]
	dir := in != nil && isDir(in)
	if dir && r.Err == nil && w.seen[r.ID] {
		r.Err = ErrLoop
	}
	if depth > maxDepth {
		r.Err = ErrDepth
	}
	if err := w.fn(r); err != nil {
		if errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	if !dir || r.Err != nil {
		return nil
	}
	w.seen[r.ID] = true
	for _, c := range w.t.children[r.ID] {
		if err := w.walk(w.t.childRow(r.Path, c), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
