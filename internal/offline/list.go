package offline

import (
	"context"
	"path"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/control"
)

// List returns the entries of a directory as last sealed, or the one row of anything else.
func (v *Volume) List(_ context.Context, name string, recursive bool) ([]control.ListRow, error) {
	rows := []control.ListRow{}
	err := v.withTail(func(t *tail) error {
		in, err := t.walk(name)
		if err != nil {
			return err
		}
		if !isDir(in.Mode) {
			rows = append(rows, t.row(name, &in))
			return nil
		}
		return t.children(in.ID, name, recursive, 0, func(r control.ListRow) { rows = append(rows, r) })
	})
	return rows, err
}

func (t *tail) children(dir batch.FileID, name string, recursive bool, depth int, fn func(control.ListRow)) error {
	return t.tx.Entries(dir, func(entry string, id batch.FileID) error {
		in, ok, err := t.tx.Inode(id)
		if err != nil || !ok {
			return err
		}
		below := path.Join(name, entry)
		fn(t.row(below, &in))
		if recursive && isDir(in.Mode) && depth < deepest {
			return t.children(id, below, recursive, depth+1, fn)
		}
		return nil
	})
}

func (t *tail) row(name string, in *catalog.Inode) control.ListRow {
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
