package restore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/object"
)

// Difference is a path that two moments have differently.
type Difference struct {
	Path   string
	Change string   // "added", "removed", "moved", "changed"
	From   string   // moved: the path before
	What   []string // moved and changed: "type", "content", "target", "device", "mode", "owner", "time", "xattrs"
	Before *Row     // nil: added
	After  *Row     // nil: removed
}

// LoadTwo loads two moments of one volume.
func LoadTwo(ctx context.Context, src Source, first, second At) (a, b *Tree, err error) {
	line, err := chain.Open(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	if a, err = FromLine(ctx, line, first); err != nil {
		return nil, nil, fmt.Errorf("the first moment: %w", err)
	}
	if b, err = FromLine(ctx, line, second); err != nil {
		return nil, nil, fmt.Errorf("the second moment: %w", err)
	}
	return a, b, nil
}

// Diff compares what two trees have at a path and below it, in byte order of the paths. A file that goes by another name is told as moved, where it is now.
// ErrNotFound: neither has the path.
func Diff(a, b *Tree, path string) ([]Difference, error) {
	before, errA := a.flat(path)
	after, errB := b.flat(path)
	if errA != nil && errB != nil {
		return nil, errB
	}
	gone := make(map[batch.FileID]string) // names that only a has
	for p, r := range before {
		if _, still := after[p]; !still {
			gone[r.ID] = p
		}
	}
	var list []Difference
	moved := make(map[string]bool)
	for p, now := range after {
		was, ok := before[p]
		if ok && was.ID == now.ID {
			if what := a.differ(b, &was, &now); len(what) > 0 {
				list = append(list, Difference{Path: p, Change: "changed", What: what, Before: &was, After: &now})
			}
			continue
		}
		if from, known := gone[now.ID]; known && !moved[from] {
			moved[from] = true
			was = before[from]
			list = append(list, Difference{Path: p, Change: "moved", From: from, What: a.differ(b, &was, &now), Before: &was, After: &now})
			continue
		}
		if ok { // another file under the same name
			list = append(list, Difference{Path: p, Change: "changed", What: a.differ(b, &was, &now), Before: &was, After: &now})
			continue
		}
		list = append(list, Difference{Path: p, Change: "added", After: &now})
	}
	for p, was := range before {
		if _, still := after[p]; !still && !moved[p] {
			list = append(list, Difference{Path: p, Change: "removed", Before: &was})
		}
	}
	list = slices.DeleteFunc(list, func(d Difference) bool { return d.Change == "changed" && len(d.What) == 0 })
	slices.SortFunc(list, func(x, y Difference) int { return strings.Compare(x.Path, y.Path) })
	return list, nil
}

// flat lists a tree by path.
func (t *Tree) flat(path string) (map[string]Row, error) {
	rows := make(map[string]Row)
	err := t.Walk(path, func(r Row) error {
		rows[r.Path] = r
		return nil
	})
	return rows, err
}

// differ says in what an object of t and one of u differ. A directory's time is left out: it says that names in it changed, which are told themselves.
func (t *Tree) differ(u *Tree, a, b *Row) (what []string) {
	add := func(name string, differs bool) {
		if differs {
			what = append(what, name)
		}
	}
	x, y := t.inodes[a.ID], u.inodes[b.ID]
	if x == nil || y == nil {
		return nil
	}
	add("type", x.Mode&unix.S_IFMT != y.Mode&unix.S_IFMT)
	add("content", !sameContent(x, y))
	add("target", x.Target != y.Target)
	add("device", x.Rdev != y.Rdev)
	add("mode", (x.Mode^y.Mode)&0o7777 != 0)
	add("owner", x.UID != y.UID || x.GID != y.GID)
	add("time", x.Mtime != y.Mtime && !isDir(y))
	add("xattrs", !maps.EqualFunc(x.Xattrs, y.Xattrs, bytes.Equal))
	return what
}

// sameContent compares what would be restored.
func sameContent(a, b *batch.Inode) bool {
	x, _, _ := object.Content(a)
	y, _, _ := object.Content(b)
	return x.Same(y)
}
