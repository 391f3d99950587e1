package restore

import (
	"context"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/restore/object"
)

// Root returns the volume's root as a row.
func (t *Tree) Root() Row { return t.row("", t.inodes[batch.Root]) }

// Newest returns the files that the newest of the tree's batches speaks of.
func (t *Tree) Newest(ctx context.Context) (map[batch.FileID]bool, error) {
	body, err := t.line.Body(ctx, t.Batch)
	if err != nil {
		return nil, fmt.Errorf("read batch %d: %w", t.Seq, err)
	}
	ids := make(map[batch.FileID]bool, len(body.Inodes))
	for i := range body.Inodes {
		ids[body.Inodes[i].ID] = true
	}
	return ids, nil
}

// Children returns the entries of a directory, in byte order; their paths are names.
func (t *Tree) Children(dir batch.FileID) []Row {
	rows := make([]Row, 0, len(t.children[dir]))
	for _, c := range t.children[dir] {
		rows = append(rows, t.childRow("", c))
	}
	return rows
}

// Child returns one entry of a directory.
func (t *Tree) Child(dir batch.FileID, name string) (Row, bool) {
	in, ok := t.step(dir, name)
	if !ok || checkName(name) != nil {
		return Row{}, false
	}
	return t.row(name, in), true
}

// Xattrs returns a file's extended attributes.
func (t *Tree) Xattrs(id batch.FileID) map[string][]byte {
	if in := t.inodes[id]; in != nil {
		return in.Xattrs
	}
	return nil
}

// ReadAt reads a part of a file's content, as io.ReaderAt does. ErrPending: it was not sealed yet.
func (t *Tree) ReadAt(ctx context.Context, id batch.FileID, p []byte, off int64) (int, error) {
	in := t.inodes[id]
	if in == nil {
		return 0, fmt.Errorf("read file %d: %w", id, ErrRecord)
	}
	c, _, _ := object.Content(in)
	if c == nil {
		return 0, fmt.Errorf("read file %d: %w", id, ErrPending)
	}
	return t.content.ReadAt(ctx, c, p, off)
}
