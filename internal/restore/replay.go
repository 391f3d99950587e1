package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
)

// readAhead is how many batches are read side by side while the history is replayed.
const readAhead = 16

// replay is the volume as the batches so far have made it, oldest first. Trees are folded from the newest batch back, which is faster; only
// from the beginning on can be seen what came and went.
type replay struct {
	inodes  map[batch.FileID]*batch.Inode
	entries map[entryKey]batch.FileID
	dirs    map[batch.FileID]entryKey // the name of a directory
}

// Stamp is the batch that brought a change.
type Stamp struct {
	Epoch    batch.Epoch
	Seq      batch.Seq
	SealedAt time.Time
}

// run replays the main line and calls after behind each batch, with the names that it changed. What cannot be read is left out and returned in words;
// the state behind such a hole is what the later batches say.
func (r *replay) run(ctx context.Context, line *chain.Line, after func(s Stamp, changed []entryKey) error) (holes []string, err error) {
	type read struct {
		batch *batch.Batch
		body  *batch.Body
		err   error
	}
	next := batch.Seq(1)
	for from := 0; from < len(line.Slots); from += readAhead {
		slots := line.Slots[from:min(from+readAhead, len(line.Slots))]
		list := make([]read, len(slots))
		var g errgroup.Group
		for i := range slots {
			g.Go(func() error {
				x := &list[i]
				if x.batch, x.err = line.Batch(ctx, &slots[i]); x.err == nil {
					x.body, x.err = line.Body(ctx, x.batch)
				}
				return nil
			})
		}
		_ = g.Wait()
		for i, x := range list {
			if first := slots[i].First; first > next {
				holes = append(holes, fmt.Sprintf("batches %d to %d are in no store", next, first-1))
			}
			next = slots[i].Last + 1
			switch {
			case ctx.Err() != nil:
				return holes, ctx.Err()
			case errors.Is(x.err, chain.ErrIdentity):
				return holes, x.err
			case x.err != nil:
				holes = append(holes, fmt.Sprintf("batch %d: %v", slots[i].Last, x.err))
				continue
			}
			e := &x.batch.Envelope
			if err := after(Stamp{e.Epoch, e.Last, e.SealedAt}, r.apply(x.body, e.Full)); err != nil {
				return holes, err
			}
		}
	}
	return holes, nil
}

// apply takes a batch over and returns the names that are new, gone, or lead elsewhere.
func (r *replay) apply(body *batch.Body, full bool) (changed []entryKey) {
	before := r.entries
	if r.inodes == nil {
		r.inodes = make(map[batch.FileID]*batch.Inode) // those of what is gone stay, to be shown
	}
	if full || before == nil {
		r.entries, r.dirs = make(map[entryKey]batch.FileID), make(map[batch.FileID]entryKey)
	}
	for i := range body.Inodes {
		own := body.Inodes[i]
		r.inodes[own.ID] = &own
	}
	for _, e := range body.Entries {
		k := entryKey{e.Parent, e.Name}
		if before[k] != e.ID {
			changed = append(changed, k)
		}
		if e.ID == 0 {
			delete(r.entries, k)
			continue
		}
		r.entries[k] = e.ID
		if in := r.inodes[e.ID]; in != nil && isDir(in) {
			r.dirs[e.ID] = k
		}
	}
	if full {
		for k := range before {
			if r.entries[k] == 0 {
				changed = append(changed, k) // not in the whole tree
			}
		}
	}
	return changed
}

// find returns what lies at a path; nil if nothing does.
func (r *replay) find(names []string) *batch.Inode {
	id := batch.Root
	for _, n := range names {
		if id = r.entries[entryKey{id, n}]; id == 0 {
			return nil
		}
	}
	return r.inodes[id]
}

// path returns the path of a name, and whether it leads to the root.
func (r *replay) path(k entryKey) (path string, whole bool) {
	parts := []string{k.name}
	for dir, depth := k.parent, 0; dir != batch.Root; depth++ {
		up, ok := r.dirs[dir]
		if !ok || r.entries[up] != dir || depth > maxDepth {
			return strings.Join(parts, "/"), false
		}
		parts = append([]string{up.name}, parts...)
		dir = up.parent
	}
	return strings.Join(parts, "/"), true
}

// rowOf shows what goes, or went, by a name; path is the one it had when its directory is gone as well.
func (r *replay) rowOf(k entryKey, id batch.FileID, path string) Row {
	if now, whole := r.path(k); whole {
		path = now
	}
	if in := r.inodes[id]; in != nil {
		return new(Tree).row(path, in)
	}
	return Row{Path: path, ID: id, Err: ErrRecord}
}

// Version is a state that something at a path was sealed in.
type Version struct {
	Stamp
	Change string // "created", "content", "attributes", "replaced" (another file took the name), "gone"
	Row    Row    // of a version that is gone: as it was before
}

// Versions returns what lay at a path, oldest first, and in words what could not be read. ErrNotFound: nothing ever did.
func Versions(ctx context.Context, src Source, path string) (list []Version, holes []string, err error) {
	names, err := split(path)
	if err != nil {
		return nil, nil, err
	}
	line, err := chain.Open(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	var r replay
	var last *batch.Inode
	path = strings.Join(names, "/")
	holes, err = r.run(ctx, line, func(s Stamp, _ []entryKey) error {
		now := r.find(names)
		if change := changeOf(last, now); change != "" {
			shown := now
			if now == nil {
				shown = last
			}
			list = append(list, Version{s, change, new(Tree).row(path, shown)})
		}
		last = now
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("versions of %q: %w", path, errNever)
	}
	return list, holes, err
}

var errNever = fmt.Errorf("%w, nor at any other", ErrNotFound)

// changeOf names the change from one state to the next; "" where there is none.
func changeOf(before, after *batch.Inode) string {
	switch {
	case before == after:
		return ""
	case before == nil:
		return "created"
	case after == nil:
		return "gone"
	case before.ID != after.ID || before.Mode>>12 != after.Mode>>12:
		return "replaced"
	case !sameContent(before, after) || before.Target != after.Target:
		return "content"
	case before.Mode != after.Mode || before.UID != after.UID || before.GID != after.GID || before.Rdev != after.Rdev ||
		before.Mtime != after.Mtime || !maps.EqualFunc(before.Xattrs, after.Xattrs, bytes.Equal):
		return "attributes"
	}
	return "" // said again, in a full batch
}

// Found is a name that matched, with the time that it was there.
type Found struct {
	Row   Row // the last known; its path is the last one, too
	Since Stamp
	Until Stamp  // the batch that does not have it any more; zero: it is there
	To    string // gone: where the same file is now
}

// Find looks through the whole history for names. match is given each path that a name had when it came. Order: by the batch that brought the name.
func Find(ctx context.Context, src Source, match func(path string) bool) (list []Found, holes []string, err error) {
	line, err := chain.Open(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	var r replay
	open := make(map[entryKey]int) // in list
	ids := make([]batch.FileID, 0)
	holes, err = r.run(ctx, line, func(s Stamp, changed []entryKey) error {
		for _, k := range changed {
			if i, ok := open[k]; ok {
				list[i].Until = s
				list[i].Row = r.rowOf(k, ids[i], list[i].Row.Path)
				delete(open, k)
			}
			id := r.entries[k]
			path, _ := r.path(k)
			if id == 0 || !match(path) {
				continue
			}
			open[k] = len(list)
			list, ids = append(list, Found{Row: Row{Path: path}, Since: s}), append(ids, id)
		}
		return nil
	})
	for k, i := range open {
		list[i].Row = r.rowOf(k, ids[i], list[i].Row.Path)
	}
	names := make(map[batch.FileID]entryKey)
	for k, id := range r.entries {
		names[id] = k
	}
	for i := range list {
		if k, ok := names[ids[i]]; ok && list[i].Until.Seq > 0 {
			if path, whole := r.path(k); whole {
				list[i].To = path
			}
		}
	}
	return list, holes, err
}
