package spooler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/journal"
)

// entryKey is a name in a directory.
type entryKey struct {
	parent batch.FileID
	name   string
}

// node is a file that changed since the last commit.
type node struct {
	catalog.Inode
	dirty      bool // differs from the catalog, so the next batch carries it
	readXattrs bool // has xattrs that no record carried (inherited ACLs): read them before sealing
}

// isRegular tells whether n has content.
func (n *node) isRegular() bool { return n.Mode&modeType == modeRegular }

// isDir tells whether n has entries.
func (n *node) isDir() bool { return n.Mode&modeType == modeDir }

const (
	modeType    = 0o170000
	modeRegular = 0o100000
	modeDir     = 0o040000
)

// tree is the volume as the journal says it is now: what was sealed (the catalog), with what was folded since lying over it.
// What lies over it is lost with the process and found again: records behind the catalog's position are folded anew, and the
// parents of deferred entries are noted in the catalog as unchecked.
//
// Owned by the spooler's loop, guarded by volume.mu. Between begin and end it reads the catalog in one transaction.
type tree struct {
	cat *catalog.Catalog
	tx  *catalog.Tx // set between begin and end

	next    batch.FileID                             // the next id to give
	nodes   map[batch.FileID]*node                   // changed; nil: dropped
	entries map[batch.FileID]map[string]batch.FileID // changed entries by parent; 0: gone
	names   map[batch.FileID]map[entryKey]struct{}   // entries of the overlay by the id they lead to
	idents  map[journal.Ident]batch.FileID           // changed; 0: ended
	removed removedSet
	dirs    map[batch.FileID]string // paths of directories found by manyPaths; nil outside of it
}

func newTree(cat *catalog.Catalog, next batch.FileID) *tree {
	return &tree{
		cat:     cat,
		next:    max(next, batch.Root+1),
		nodes:   map[batch.FileID]*node{},
		entries: map[batch.FileID]map[string]batch.FileID{},
		names:   map[batch.FileID]map[entryKey]struct{}{},
		idents:  map[journal.Ident]batch.FileID{},
	}
}

// within runs fn with the catalog open for reading. It must not be nested, and nothing may write the catalog meanwhile:
// bbolt's writer would wait for this reader when it has to grow the file.
func (t *tree) within(fn func() error) error {
	return t.cat.View(func(tx *catalog.Tx) error {
		t.tx = tx
		defer func() { t.tx = nil }()
		return fn()
	})
}

// newID gives an id that was never used in the volume.
func (t *tree) newID() batch.FileID {
	id := t.next
	t.next++
	return id
}

// get returns a file for reading; nil if there is none.
func (t *tree) get(id batch.FileID) (*node, error) {
	if n, ok := t.nodes[id]; ok {
		return n, nil
	}
	in, ok, err := t.tx.Inode(id)
	if err != nil || !ok {
		return nil, err
	}
	return &node{Inode: in}, nil
}

// edit returns a file for changing: the next batch carries it. nil if there is none.
func (t *tree) edit(id batch.FileID) (*node, error) {
	n, err := t.touch(id)
	if n != nil {
		n.dirty = true
	}
	return n, err
}

// touch returns a file of the overlay, taking it there, without marking it for the next batch.
func (t *tree) touch(id batch.FileID) (*node, error) {
	n, err := t.get(id)
	if err != nil || n == nil {
		return nil, err
	}
	t.nodes[id] = n
	return n, nil
}

// add puts a new file into the tree, without a name yet.
func (t *tree) add(id batch.FileID, ident journal.Ident, a journal.Attr, target string) *node {
	n := &node{dirty: true}
	n.ID = id
	n.Ident = ident
	n.Target = target
	n.setAttr(a)
	t.nodes[id] = n
	t.idents[ident] = id
	return n
}

// setAttr takes over attributes. Size and Ctime, by which a change of content is seen, stay those of the last capture.
func (n *node) setAttr(a journal.Attr) {
	n.Attr = a
	n.Mode, n.UID, n.GID, n.Rdev = a.Mode, a.UID, a.GID, a.Rdev
	n.Mtime = a.Mtime
}

// byIdent returns the file that is mapped to an object of the source.
func (t *tree) byIdent(i journal.Ident) (batch.FileID, bool, error) {
	if id, ok := t.idents[i]; ok {
		return id, id != 0, nil
	}
	id, ok, err := t.tx.ByIdent(i)
	if err != nil || !ok {
		return 0, false, err
	}
	if n, changed := t.nodes[id]; changed && n == nil {
		return 0, false, nil
	}
	return id, true, nil
}

// lookup returns what a name leads to; 0 if nothing.
func (t *tree) lookup(parent batch.FileID, name string) (batch.FileID, error) {
	if id, ok := t.entries[parent][name]; ok {
		return id, nil
	}
	id, _, err := t.tx.Lookup(parent, name)
	return id, err
}

// link makes a name lead to id, or to nothing (0).
func (t *tree) link(parent batch.FileID, name string, id batch.FileID) error {
	old, err := t.lookup(parent, name)
	if err != nil {
		return err
	}
	key := entryKey{parent, name}
	if names := t.names[old]; names != nil {
		delete(names, key)
	}
	if old != 0 && old != id {
		t.removed.add(key)
	}
	if t.entries[parent] == nil {
		t.entries[parent] = map[string]batch.FileID{}
	}
	t.entries[parent][name] = id
	if id == 0 {
		return nil
	}
	if t.names[id] == nil {
		t.names[id] = map[entryKey]struct{}{}
	}
	t.names[id][key] = struct{}{}
	return nil
}

// namesOf returns every name that leads to id now.
func (t *tree) namesOf(id batch.FileID) ([]entryKey, error) {
	found := slices.Collect(maps.Keys(t.names[id]))
	err := t.tx.Names(id, func(parent batch.FileID, name string) error {
		if _, changed := t.entries[parent][name]; !changed {
			found = append(found, entryKey{parent, name})
		}
		return nil
	})
	return found, err
}

// children calls fn for each entry of a directory.
func (t *tree) children(dir batch.FileID, fn func(name string, id batch.FileID) error) error {
	over := t.entries[dir]
	if err := t.tx.Entries(dir, func(name string, id batch.FileID) error {
		if _, changed := over[name]; changed {
			return nil
		}
		return fn(name, id)
	}); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(over)) {
		if id := over[name]; id != 0 {
			if err := fn(name, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// path returns one path of a file, relative to the volume ("" for its root); false while no name leads there from the root.
func (t *tree) path(id batch.FileID) (string, bool, error) {
	var parts []string
	var dir batch.FileID // the file's own
	for depth := 0; id != batch.Root; depth++ {
		if known, ok := t.dirs[id]; ok {
			parts = append(parts, known)
			break
		}
		names, err := t.namesOf(id)
		if err != nil {
			return "", false, err
		}
		if len(names) == 0 || depth > maxDepth {
			return "", false, nil
		}
		first := slices.MinFunc(names, func(a, b entryKey) int {
			return strings.Compare(a.name, b.name)
		})
		parts = append(parts, first.name)
		id = first.parent
		if depth == 0 {
			dir = id
		}
	}
	slices.Reverse(parts)
	if t.dirs != nil && dir != 0 && dir != batch.Root {
		t.dirs[dir] = strings.Join(parts[:len(parts)-1], "/")
	}
	return strings.Join(parts, "/"), true, nil
}

// manyPaths runs fn, which asks for paths and changes no name: those of directories are found once.
func (t *tree) manyPaths(fn func() error) error {
	t.dirs = map[batch.FileID]string{}
	defer func() { t.dirs = nil }()
	return fn()
}

// maxDepth bounds a walk upwards: a damaged catalog may hold a circle.
const maxDepth = 1 << 16

// find returns the file at a path.
func (t *tree) find(path string) (batch.FileID, bool, error) {
	id := batch.Root
	for part := range strings.SplitSeq(path, "/") {
		if part == "" {
			continue
		}
		next, err := t.lookup(id, part)
		if err != nil || next == 0 {
			return 0, false, err
		}
		id = next
	}
	return id, true, nil
}

// below tells whether one of a file's names lies at or below dir.
func (t *tree) below(id, dir batch.FileID) (bool, error) {
	if dir == batch.Root && id != batch.Root { // what has lost its last name, or its directory, is dropped
		names, err := t.namesOf(id)
		return len(names) > 0, err
	}
	for depth := 0; depth < maxDepth; depth++ {
		if id == dir {
			return true, nil
		}
		if id == batch.Root {
			return false, nil
		}
		names, err := t.namesOf(id)
		if err != nil {
			return false, err
		}
		switch len(names) {
		case 0:
			return false, nil
		case 1:
			id = names[0].parent
		default:
			for _, n := range names {
				if ok, err := t.below(n.parent, dir); ok || err != nil {
					return ok, err
				}
			}
			return false, nil
		}
	}
	return false, fmt.Errorf("find directory %d above file %d: the catalog has a circle", dir, id)
}

// drop ends a file: nothing leads to it any more. A directory's entries go with it. gone is told of each dropped id.
func (t *tree) drop(id batch.FileID, gone func(batch.FileID)) error {
	n, err := t.get(id)
	if err != nil || n == nil {
		return err
	}
	if mapped, ok, err := t.byIdent(n.Ident); err != nil {
		return err
	} else if ok && mapped == id {
		t.idents[n.Ident] = 0
	}
	var kids []entryKey
	var ids []batch.FileID
	if n.isDir() {
		if err := t.children(id, func(name string, kid batch.FileID) error {
			kids, ids = append(kids, entryKey{id, name}), append(ids, kid)
			return nil
		}); err != nil {
			return err
		}
	}
	t.nodes[id] = nil
	gone(id)
	for i, k := range kids {
		if err := t.link(k.parent, k.name, 0); err != nil {
			return err
		}
		names, err := t.namesOf(ids[i])
		if err != nil {
			return err
		}
		if len(names) == 0 {
			if err := t.drop(ids[i], gone); err != nil {
				return err
			}
		}
	}
	return nil
}
