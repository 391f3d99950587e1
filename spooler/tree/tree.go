// Package tree holds the volume's tree: what the catalog says was sealed, with what was folded since lying over it.
//
// After a crash what lay over the catalog is gone and is found again: records behind the catalog's position are folded anew, and the
// parents of deferred entries are noted in the catalog as unchecked.
package tree

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/journal"
)

// Key is a name in a directory.
type Key struct {
	Parent batch.FileID
	Name   string
}

// Node is a file of the tree.
type Node struct {
	catalog.Inode
	XattrsUnread bool // has xattrs that no record carried (inherited ACLs): read them before sealing

	dirty bool // differs from the catalog, so the next batch carries it
}

// IsRegular tells whether n has content.
func (n *Node) IsRegular() bool { return n.Mode&unix.S_IFMT == unix.S_IFREG }

// IsDir tells whether n has entries.
func (n *Node) IsDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

// Tree is the volume as the journal says it is now. It takes no lock: whoever owns it guards it. What reads it runs in Within, which
// gives it one transaction of the catalog; Commit and Settle are called outside of it.
type Tree struct {
	cat *catalog.Catalog
	tx  *catalog.Tx // set in Within

	next    batch.FileID                             // the next id to give
	nodes   map[batch.FileID]*Node                   // changed; nil: dropped
	entries map[batch.FileID]map[string]batch.FileID // changed entries by parent; 0: gone
	names   map[batch.FileID]map[Key]struct{}        // entries of the overlay by the id they lead to
	idents  map[journal.Ident]batch.FileID           // changed; 0: ended
	removed removedSet
	dirs    map[batch.FileID]string // paths of directories found by ManyPaths; nil outside of it
}

// New returns the tree that a catalog holds; next is the first id that it gives.
func New(cat *catalog.Catalog, next batch.FileID) *Tree {
	return &Tree{
		cat:     cat,
		next:    max(next, batch.Root+1),
		nodes:   map[batch.FileID]*Node{},
		entries: map[batch.FileID]map[string]batch.FileID{},
		names:   map[batch.FileID]map[Key]struct{}{},
		idents:  map[journal.Ident]batch.FileID{},
	}
}

// Within runs fn with the catalog open for reading. It must not be nested, and nothing may write the catalog meanwhile:
// bbolt's writer would wait for this reader when it has to grow the file.
func (t *Tree) Within(fn func() error) error {
	return t.cat.View(func(tx *catalog.Tx) error {
		t.tx = tx
		defer func() { t.tx = nil }()
		return fn()
	})
}

// Next is the next id that will be given.
func (t *Tree) Next() batch.FileID { return t.next }

// Get returns a file for reading; nil if there is none.
func (t *Tree) Get(id batch.FileID) (*Node, error) {
	if n, ok := t.nodes[id]; ok {
		return n, nil
	}
	in, ok, err := t.tx.Inode(id)
	if err != nil || !ok {
		return nil, err
	}
	return &Node{Inode: in}, nil
}

// Edit returns a file for changing: the next batch carries it. nil if there is none.
func (t *Tree) Edit(id batch.FileID) (*Node, error) {
	n, err := t.Get(id)
	if err != nil || n == nil {
		return nil, err
	}
	t.nodes[id] = n
	n.dirty = true
	return n, nil
}

// Add puts a new file into the tree, under an id that was never used in the volume, without a name yet.
func (t *Tree) Add(ident journal.Ident, a journal.Attr, target string) *Node {
	id := t.next
	t.next++
	return t.add(id, ident, a, target)
}

// SetRoot makes an object of the source the volume's root, and returns it for changing.
func (t *Tree) SetRoot(ident journal.Ident, a journal.Attr) (*Node, error) {
	root, err := t.Edit(batch.Root)
	if err != nil {
		return nil, err
	}
	if root == nil {
		root = t.add(batch.Root, ident, a, "")
	}
	t.idents[root.Ident] = 0
	t.idents[ident] = batch.Root
	root.Ident = ident
	root.SetAttr(a)
	return root, nil
}

func (t *Tree) add(id batch.FileID, ident journal.Ident, a journal.Attr, target string) *Node {
	n := &Node{dirty: true}
	n.ID = id
	n.Ident = ident
	n.Target = target
	n.SetAttr(a)
	t.nodes[id] = n
	t.idents[ident] = id
	return n
}

// Dirty tells whether the file differs from what was sealed.
func (n *Node) Dirty() bool { return n.dirty }

// SetAttr takes over attributes. Size and Ctime, by which a change of content is seen, stay those of the last capture.
func (n *Node) SetAttr(a journal.Attr) {
	n.Attr = a
	n.Mode, n.UID, n.GID, n.Rdev = a.Mode, a.UID, a.GID, a.Rdev
	n.Mtime = a.Mtime
}

// ByIdent returns the file that is mapped to an object of the source.
func (t *Tree) ByIdent(i journal.Ident) (batch.FileID, bool, error) {
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

// Lookup returns what a name leads to; 0 if nothing.
func (t *Tree) Lookup(parent batch.FileID, name string) (batch.FileID, error) {
	if id, ok := t.entries[parent][name]; ok {
		return id, nil
	}
	id, _, err := t.tx.Lookup(parent, name)
	return id, err
}

// Link makes a name lead to id, or to nothing (0).
func (t *Tree) Link(parent batch.FileID, name string, id batch.FileID) error {
	old, err := t.Lookup(parent, name)
	if err != nil {
		return err
	}
	key := Key{parent, name}
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
		t.names[id] = map[Key]struct{}{}
	}
	t.names[id][key] = struct{}{}
	return nil
}

// NamesOf returns every name that leads to id now.
func (t *Tree) NamesOf(id batch.FileID) ([]Key, error) {
	found := slices.Collect(maps.Keys(t.names[id]))
	err := t.tx.Names(id, func(parent batch.FileID, name string) error {
		if _, changed := t.entries[parent][name]; !changed {
			found = append(found, Key{parent, name})
		}
		return nil
	})
	return found, err
}

// Children calls fn for each entry of a directory.
func (t *Tree) Children(dir batch.FileID, fn func(name string, id batch.FileID) error) error {
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

// Drop ends a file: nothing leads to it any more. A directory's entries go with it. gone is told of each dropped id.
func (t *Tree) Drop(id batch.FileID, gone func(batch.FileID)) error {
	n, err := t.Get(id)
	if err != nil || n == nil {
		return err
	}
	if mapped, ok, err := t.ByIdent(n.Ident); err != nil {
		return err
	} else if ok && mapped == id {
		t.idents[n.Ident] = 0
	}
	var kids []Key
	var ids []batch.FileID
	if n.IsDir() {
		if err := t.Children(id, func(name string, kid batch.FileID) error {
			kids, ids = append(kids, Key{id, name}), append(ids, kid)
			return nil
		}); err != nil {
			return err
		}
	}
	t.nodes[id] = nil
	gone(id)
	for i, k := range kids {
		if err := t.Link(k.Parent, k.Name, 0); err != nil {
			return err
		}
		names, err := t.NamesOf(ids[i])
		if err != nil {
			return err
		}
		if len(names) == 0 {
			if err := t.Drop(ids[i], gone); err != nil {
				return err
			}
		}
	}
	return nil
}
