package leftout

import (
	"context"
	"slices"
	"strings"
	"time"

	"slipway/internal/control"
)

// compare orders paths as a walk comes upon them: a directory, what lies in it, its next neighbour.
func compare(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// Pending returns a row for each path of the volume that is left out, at most limit (0: all).
func (f *Finder) Pending(ctx context.Context, limit int) ([]control.PendingRow, error) {
	found, err := f.In(ctx, "", true, limit)
	slices.SortFunc(found, func(a, b Found) int { return compare(a.Path, b.Path) })
	rows := make([]control.PendingRow, 0, len(found))
	for _, x := range found {
		r := control.PendingRow{Path: x.Path, State: x.State, Since: time.Unix(0, x.Attr.Ctime), Why: x.Why}
		if control.TypeOf(x.Attr.Mode) == "file" {
			r.Bytes = x.Attr.Size
		}
		rows = append(rows, r)
	}
	return rows, err
}

// Mark adds to the rows of a directory as last sealed what lies in it in the source and is left out. What was sealed before it was
// left out keeps its row, and is marked.
func (f *Finder) Mark(ctx context.Context, rows []control.ListRow, dir string, recursive bool) ([]control.ListRow, error) {
	found, err := f.In(ctx, dir, recursive, 0)
	if err != nil || len(found) == 0 {
		return rows, err
	}
	at := make(map[string]int, len(rows))
	for i := range rows {
		at[rows[i].Path] = i
	}
	for _, x := range found {
		if i, sealed := at[x.Path]; sealed && x.State == Excluded {
			rows[i].State, rows[i].Why = x.State, x.Why
			continue
		}
		rows = append(rows, x.Row())
	}
	slices.SortStableFunc(rows, func(a, b control.ListRow) int { return compare(a.Path, b.Path) })
	return rows, nil
}

// Row is the line of `ls`.
func (x *Found) Row() control.ListRow {
	r := control.ListRow{
		Path: x.Path, Type: control.TypeOf(x.Attr.Mode), Mode: x.Attr.Mode & 0o7777, UID: x.Attr.UID, GID: x.Attr.GID,
		Mtime: time.Unix(0, x.Attr.Mtime), Links: int(x.Attr.Nlink), Target: x.Target, State: x.State, Why: x.Why,
	}
	if r.Type == "file" {
		r.Size = x.Attr.Size
	}
	return r
}
