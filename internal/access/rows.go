package access

import (
	"slipway/internal/control"
	"slipway/internal/restore"
)

// Rows lists a directory of a tree (recursive: everything below it), or the one row of anything else.
func Rows(t *restore.Tree, path string, recursive bool) ([]control.ListRow, error) {
	rows := []control.ListRow{}
	if !recursive {
		list, err := t.List(path)
		for _, r := range list {
			rows = append(rows, row(r))
		}
		return rows, err
	}
	err := t.Walk(path, func(r restore.Row) error {
		if r.Path != path || r.Mode&0o170000 != 0o040000 {
			rows = append(rows, row(r))
		}
		return nil
	})
	return rows, err
}

func row(r restore.Row) control.ListRow {
	l := control.ListRow{
		Path: r.Path, Type: control.TypeOf(r.Mode), Mode: r.Mode & 0o7777, UID: r.UID, GID: r.GID, Size: r.Size,
		Mtime: r.Mtime, Links: r.Links, Target: r.Target, State: r.State,
	}
	if r.Err != nil {
		l.State = "damaged"
	}
	return l
}
