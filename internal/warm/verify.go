package warm

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// Finding is a difference between the directory and what this package left there.
type Finding struct {
	Path string
	What string
}

// Verify compares the whole directory with the state, without reading content: objects, sizes, times. What is missing or was
// changed is among the lacks afterwards, and made again by the next ApplyOnce, which moves what lies in its place aside. What
// was added stays where it is.
func (t *Tree) Verify(ctx context.Context) ([]Finding, error) {
	if err := t.Finish(); err != nil {
		return nil, fmt.Errorf("verify warm tree: %w", err)
	}
	v := &verifier{t: t, dirs: t.handles(nil), redo: make(map[batch.FileID]bool)}
	defer v.dirs.close()
	err := t.cat.View(func(tx *catalog.Tx) error {
		v.tx = tx
		in, ok, err := tx.Inode(batch.Root)
		if err != nil || !ok {
			return missing(batch.Root, ok)
		}
		return v.dir(ctx, batch.Root, &in, "")
	})
	if err == nil {
		err = t.cat.Update(v.note)
	}
	if err != nil {
		return nil, fmt.Errorf("verify warm tree: %w", err)
	}
	return v.found, nil
}

type verifier struct {
	t     *Tree
	tx    *catalog.Tx
	dirs  *dirs
	found []Finding
	lost  []batch.FileID
	redo  map[batch.FileID]bool // directories that only need their attributes
}

func (v *verifier) say(path, what string) { v.found = append(v.found, Finding{path, what}) }

// changed tells whether anything but the identity differs. A directory's size is its file system's affair.
func (s seen) changed(now seen) bool {
	return s.Mode != now.Mode || s.UID != now.UID || s.GID != now.GID || s.Mtime != now.Mtime || s.Ctime != now.Ctime ||
		s.Mode&unix.S_IFMT == unix.S_IFREG && s.Size != now.Size
}

func (v *verifier) dir(ctx context.Context, id batch.FileID, in *catalog.Inode, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := v.dirs.get(id)
	if err != nil {
		return err
	}
	defer v.dirs.put(h)
	now, err := look(h.fd, "")
	if err != nil {
		return err
	}
	if left(in).changed(now) && in.Attr.Ctime != 0 {
		v.say(path, "its attributes or entries were changed")
		v.redo[id] = true
	}
	names, err := readNames(h.fd)
	if err != nil {
		return err
	}
	extra := make(map[string]bool)
	for _, n := range names {
		extra[n] = id != batch.Root || n != lostFound && !strings.HasPrefix(n, stageName)
	}
	err = v.tx.Entries(id, func(n string, child batch.FileID) error {
		own, err := v.entry(ctx, h.fd, n, child, join(path, n))
		if own {
			delete(extra, n)
		}
		return err
	})
	for n, is := range extra {
		if is {
			v.say(join(path, n), "is not the tree's")
		}
	}
	return err
}

// entry compares one entry. own: what lies there is accounted for.
func (v *verifier) entry(ctx context.Context, fd int, n string, id batch.FileID, path string) (own bool, err error) {
	in, ok, err := v.tx.Inode(id)
	if err != nil || !ok {
		return false, missing(id, ok)
	}
	if in.Ident.IsZero() {
		return false, nil
	}
	now, err := look(fd, n)
	if err != nil {
		return false, err
	}
	was := left(&in)
	switch {
	case !was.is(now) || !isDir(&in.Inode) && was.changed(now):
		v.say(path, "is not as it was left")
		v.lost = append(v.lost, id)
		return true, nil
	case isDir(&in.Inode):
		return true, v.dir(ctx, id, &in, path)
	}
	return true, nil
}

// note makes lacks of what was found.
func (v *verifier) note(tx *catalog.Tx) error {
	for _, id := range v.lost {
		if err := forget(tx, id); err != nil {
			return err
		}
	}
	for id := range v.redo {
		if err := tx.PutPending(id, catalog.Pending{Reason: reasonLost}); err != nil {
			return err
		}
	}
	return nil
}
