package offline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/control"
	"slipway/internal/leftout"
)

// List returns the entries of a directory as last sealed (recursive: everything below it), or the one row of anything else. What
// lies there in the source and is left out is among them.
func (v *Volume) List(ctx context.Context, name string, recursive bool) ([]control.ListRow, error) {
	if v.cat == nil {
		return nil, errNothing
	}
	return ListCatalog(ctx, v.cat, v.left, name, recursive)
}

var errNothing = fmt.Errorf("nothing is sealed yet: %w", fs.ErrNotExist)

// viewer is a catalog, open for reading.
type viewer interface {
	View(fn func(*catalog.Tx) error) error
}

// ListCatalog is List for whoever has the catalog open: the spooler, when it is asked over its socket.
func ListCatalog(ctx context.Context, cat viewer, left *leftout.Finder, name string, recursive bool) ([]control.ListRow, error) {
	name = clean(name)
	rows, dir, err := sealed(cat, name, recursive)
	if err == nil && dir {
		return left.Mark(ctx, rows, name, recursive)
	}
	if x, there := left.At(name); there && x.State == leftout.Excluded {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return []control.ListRow{x.Row()}, nil
		case err == nil:
			rows[0].State, rows[0].Why = x.State, x.Why
		}
	}
	return rows, err
}

// sealed lists what the catalog has, and tells whether it is a directory's entries.
func sealed(cat viewer, name string, recursive bool) (rows []control.ListRow, dir bool, err error) {
	err = cat.View(func(tx *catalog.Tx) error {
		rows, dir = []control.ListRow{}, false
		in, err := find(tx, name)
		if err != nil {
			return err
		}
		if !isDir(in.Mode) {
			rows = append(rows, row(name, &in))
			return nil
		}
		dir = true
		return children(tx, in.ID, name, recursive, 0, func(r control.ListRow) { rows = append(rows, r) })
	})
	return rows, dir, err
}

// clean returns the shortest form of a path relative to the volume.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// find finds a sealed file by its path.
func find(tx *catalog.Tx, name string) (in catalog.Inode, err error) {
	id, ok := batch.Root, true
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || !ok {
			continue
		}
		if id, ok, err = tx.Lookup(id, part); err != nil {
			return in, err
		}
	}
	if ok {
		in, ok, err = tx.Inode(id)
	}
	if err == nil && !ok {
		err = fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return in, err
}

func children(tx *catalog.Tx, dir batch.FileID, name string, recursive bool, depth int, fn func(control.ListRow)) error {
	return tx.Entries(dir, func(entry string, id batch.FileID) error {
		in, ok, err := tx.Inode(id)
		if err != nil || !ok {
			return err
		}
		below := path.Join(name, entry)
		fn(row(below, &in))
		if recursive && isDir(in.Mode) && depth < deepest {
			return children(tx, id, below, recursive, depth+1, fn)
		}
		return nil
	})
}

func row(name string, in *catalog.Inode) control.ListRow {
	r := control.ListRow{
		Path: name, Type: control.TypeOf(in.Mode), Mode: in.Mode & 0o7777, UID: in.UID, GID: in.GID, Size: in.Size,
		Mtime: time.Unix(0, in.Mtime), Links: int(in.Attr.Nlink), Target: in.Target, Batch: uint64(in.Seq),
	}
	switch {
	case r.Type != "file":
		r.Size = 0
	case in.Content == nil:
		r.State = "pending"
	case !in.Content.Clean:
		r.State = "unclean"
	}
	return r
}
