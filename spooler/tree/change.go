package tree

import (
	"iter"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/journal"
)

// Change is what a batch says of the tree: what lies over the catalog and has its content. Prepare makes it, Commit writes it into the
// catalog, Settle takes it out of memory.
type Change struct {
	Inodes   []batch.Inode             // those that changed, and behind them what AddRest has added
	Entries  []batch.Entry             // likewise
	Removals int64                     // of the entries that changed, those that lead to nothing
	Deferred map[batch.FileID]struct{} // directories with an entry that waits for content

	inodes, entries int // how many of them changed
}

// ChangedInodes are those that differ from the catalog.
func (c *Change) ChangedInodes() []batch.Inode { return c.Inodes[:c.inodes] }

// ChangedEntries are those that differ from the catalog.
func (c *Change) ChangedEntries() []batch.Entry { return c.Entries[:c.entries] }

// Take takes over what was captured of a file. Attributes that a later record brought are not set back.
func (n *Node) Take(content *batch.Content, attr journal.Attr, xattrs map[string][]byte) {
	if !content.Clean {
		content.Before = n.Content
		if n.Content != nil && !n.Content.Clean {
			content.Before = n.Content.Before
		}
	}
	n.Content = content
	n.Size, n.Ctime = content.Size, attr.Ctime
	if attr.Ctime >= n.Attr.Ctime {
		n.SetAttr(attr)
		n.Xattrs, n.XattrsUnread = xattrs, false
	}
}

// XattrsUnread are the objects, other than regular files, whose extended attributes have to be read before they are sealed.
func (t *Tree) XattrsUnread() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for _, n := range t.nodes {
			if n != nil && n.XattrsUnread && !n.IsRegular() && !yield(n) {
				return
			}
		}
	}
}

// UnsealedIn are the files that names in a directory lead to which are not in the catalog.
func (t *Tree) UnsealedIn(dir batch.FileID) iter.Seq[batch.FileID] {
	return func(yield func(batch.FileID) bool) {
		for _, id := range t.entries[dir] {
			if id != 0 && !yield(id) {
				return
			}
		}
	}
}

// IsSealed tells that nothing lies over the catalog.
func (t *Tree) IsSealed() bool { return len(t.nodes) == 0 && len(t.entries) == 0 }

// Prepare collects the changed inodes, and the changed entries whose file has content.
func (t *Tree) Prepare() (*Change, error) {
	c := &Change{Deferred: map[batch.FileID]struct{}{}}
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[id]
		if n == nil || !n.dirty || n.lacksContent() {
			continue
		}
		c.Inodes = append(c.Inodes, n.Inode.Inode)
	}
	for _, parent := range slices.Sorted(maps.Keys(t.entries)) {
		if err := t.prepareEntries(c, parent); err != nil {
			return nil, err
		}
	}
	c.inodes, c.entries = len(c.Inodes), len(c.Entries)
	return c, nil
}

// lacksContent tells whether n was never captured.
func (n *Node) lacksContent() bool { return n.IsRegular() && n.Content == nil }

// prepareEntries adds one directory's changed entries. One whose file has no content yet is left out together with what it
// replaces: the earlier entry stays.
func (t *Tree) prepareEntries(c *Change, parent batch.FileID) error {
	over := t.entries[parent]
	for _, name := range slices.Sorted(maps.Keys(over)) {
		id := over[name]
		was, _, err := t.tx.Lookup(parent, name)
		if err != nil {
			return err
		}
		if id != 0 {
			n, err := t.Get(id)
			if err != nil {
				return err
			}
			if n == nil || n.lacksContent() {
				c.Deferred[parent] = struct{}{}
				continue
			}
		}
		if was == id {
			delete(over, name)
			delete(t.names[id], Key{parent, name})
			continue
		}
		c.Entries = append(c.Entries, batch.Entry{Parent: parent, Name: name, ID: id})
		if id == 0 {
			c.Removals++
		}
	}
	if len(over) == 0 {
		delete(t.entries, parent)
	}
	return nil
}

// AddRest completes the first batch of an epoch that continues another owner's tree: to what has changed it adds every entry and
// every file of the catalog that the batch leaves as they are, so that the body holds the whole tree.
func (t *Tree) AddRest(c *Change) error {
	emitted := make(map[Key]struct{}, len(c.Entries))
	for _, e := range c.Entries {
		emitted[Key{e.Parent, e.Name}] = struct{}{}
	}
	var dirs []batch.FileID
	err := t.tx.Inodes(func(in *catalog.Inode) error {
		if in.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, in.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		err := t.tx.Entries(dir, func(name string, id batch.FileID) error {
			if _, changed := emitted[Key{dir, name}]; !changed {
				c.Entries = append(c.Entries, batch.Entry{Parent: dir, Name: name, ID: id})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return t.addNamed(c)
}

// addNamed adds the files that the entries lead to and that are not there yet.
func (t *Tree) addNamed(c *Change) error {
	has := make(map[batch.FileID]struct{}, len(c.Inodes))
	for i := range c.Inodes {
		has[c.Inodes[i].ID] = struct{}{}
	}
	needed := map[batch.FileID]struct{}{batch.Root: {}}
	for _, e := range c.Entries {
		needed[e.ID] = struct{}{}
	}
	return t.tx.Inodes(func(in *catalog.Inode) error {
		if _, there := has[in.ID]; there {
			return nil
		}
		if _, wanted := needed[in.ID]; wanted {
			c.Inodes = append(c.Inodes, in.Inode)
		}
		return nil
	})
}

// Commit writes a change into the catalog, as that of a batch.
func (t *Tree) Commit(tx *catalog.Tx, c *Change, seq batch.Seq) error {
	for i := range c.ChangedInodes() {
		n := t.nodes[c.Inodes[i].ID]
		n.Seq = seq
		if err := tx.PutInode(&n.Inode); err != nil {
			return err
		}
	}
	for _, e := range c.ChangedEntries() {
		if err := commitEntry(tx, e); err != nil {
			return err
		}
	}
	return t.commitDropped(tx)
}

func commitEntry(tx *catalog.Tx, e batch.Entry) error {
	if e.ID == 0 {
		return tx.DeleteEntry(e.Parent, e.Name)
	}
	return tx.PutEntry(e.Parent, e.Name, e.ID)
}

// commitDropped removes ended files, except those that a deferred entry still shows under their old name.
func (t *Tree) commitDropped(tx *catalog.Tx) error {
	for id, n := range t.nodes {
		if n != nil {
			continue
		}
		held := false
		if err := tx.Names(id, func(batch.FileID, string) error { held = true; return nil }); err != nil {
			return err
		}
		if held {
			continue
		}
		if err := tx.DeleteInode(id); err != nil {
			return err
		}
	}
	return nil
}

// Settle brings memory to where the catalog is: what was committed lies over it no more.
func (t *Tree) Settle(c *Change) {
	for i := range c.ChangedInodes() {
		id := c.Inodes[i].ID
		if n := t.nodes[id]; n != nil && !n.XattrsUnread {
			delete(t.nodes, id)
		}
	}
	for id, n := range t.nodes {
		if n != nil && !n.dirty {
			delete(t.nodes, id)
		}
	}
	for _, e := range c.ChangedEntries() {
		delete(t.entries[e.Parent], e.Name)
		if len(t.entries[e.Parent]) == 0 {
			delete(t.entries, e.Parent)
		}
		delete(t.names[e.ID], Key{e.Parent, e.Name})
	}
	for id, names := range t.names {
		if len(names) == 0 {
			delete(t.names, id)
		}
	}
	t.forgetDropped()
	for ident, id := range t.idents {
		if _, changed := t.nodes[id]; id == 0 || !changed {
			delete(t.idents, ident)
		}
	}
}

// forgetDropped lets go of ended files that the catalog does not have any more either.
func (t *Tree) forgetDropped() {
	_ = t.cat.View(func(tx *catalog.Tx) error { // a read error only keeps an entry of memory longer
		for id, n := range t.nodes {
			if n != nil {
				continue
			}
			if _, there, err := tx.Inode(id); err != nil || !there {
				delete(t.nodes, id)
			}
		}
		return nil
	})
}
