package mirror

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// foldBudget bounds how many records one step folds, so that captures and status get their turn.
const foldBudget = 20_000

// Fold reads what the journal has and brings the tree to that position. more: there is more than the budget.
func (m *Mirror) Fold() (more bool, err error) {
	for range foldBudget {
		rec, pos, err := m.reader.Next()
		if errors.Is(err, journal.ErrWait) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journal: %w", err)
		}
		if err := m.apply(&rec, pos); err != nil {
			return false, fmt.Errorf("fold journal record %d at %d: %w", rec.Op, pos.Offset, err)
		}
		m.folded = pos
	}
	return true, nil
}

// apply folds one record. A record about an object the tree does not know is passed over: it lies in a directory that is
// excluded or not compared yet, and the walk that comes there sees the object as it then is.
func (m *Mirror) apply(r *journal.Record, pos journal.Position) error {
	switch r.Op {
	case journal.OpStart:
		return m.applyStart(r)
	case journal.OpGap:
		m.opt.Log.Warn("journal has a gap, comparing the tree with the source", "reason", r.Name)
		m.beginWalk(whyGap)
		return nil
	case journal.OpCreate:
		return m.applyCreate(r, pos)
	case journal.OpLink:
		return m.applyLink(r, pos)
	case journal.OpRename:
		m.renames++
		return m.applyRename(r, pos)
	case journal.OpUnlink:
		return m.applyUnlink(r)
	default:
		return m.applyChange(r, pos)
	}
}

// applyStart begins a new instance: nothing is known of what happened before it, nor of who still writes.
func (m *Mirror) applyStart(r *journal.Record) error {
	m.pending.NoWriters()
	root, err := m.tree.SetRoot(r.Node, r.Attr)
	if err != nil {
		return err
	}
	root.XattrsUnread = true
	m.beginWalk(whyGap)
	return nil
}

// parent returns the directory a record names, with its attributes brought up to date; 0 if the tree does not know it.
func (m *Mirror) parent(i journal.Ident, a journal.Attr) (batch.FileID, error) {
	id, ok, err := m.tree.ByIdent(i)
	if err != nil || !ok {
		return 0, err
	}
	n, err := m.tree.Edit(id)
	if err != nil || n == nil {
		return 0, err
	}
	n.SetAttr(a)
	return id, nil
}

func (m *Mirror) applyCreate(r *journal.Record, pos journal.Position) error {
	parent, err := m.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	if skip, err := m.isExcluded(parent, r.Name, r.Attr.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil || skip {
		return err
	}
	// The inode may be one that the file system used before: whatever it was mapped to has ended.
	if old, ok, err := m.tree.ByIdent(r.Node); err != nil {
		return err
	} else if ok && old != batch.Root {
		if err := m.forget(old); err != nil {
			return err
		}
	}
	n := m.adopt(r.Node, r.Attr, r.Target, pos)
	n.XattrsUnread = r.Flags&journal.FlagInherited != 0
	return m.setName(parent, r.Name, n.ID)
}

// setAttr takes over what a record says of a file. The operation moved ctime and left the content alone: unless the file is
// pending, in which case nobody knows what else moved it, the content is still the one captured.
func (m *Mirror) setAttr(n *tree.Node, a journal.Attr) {
	n.SetAttr(a)
	if m.pending.Get(n.ID) == nil {
		n.Ctime = a.Ctime
	}
}

// adopt adds an object that the tree does not know.
func (m *Mirror) adopt(i journal.Ident, a journal.Attr, target string, pos journal.Position) *tree.Node {
	n := m.tree.Add(i, a, target)
	if n.IsRegular() {
		m.pending.Mark(n.ID, pending.New, a.Size, pos)
	}
	return n
}

// setName makes an entry lead to id; what it led to before ends if that was its last name.
func (m *Mirror) setName(parent batch.FileID, name string, id batch.FileID) error {
	old, err := m.tree.Lookup(parent, name)
	if err != nil || old == id {
		return err
	}
	if err := m.tree.Link(parent, name, id); err != nil {
		return err
	}
	m.opt.Changed()
	if old == 0 {
		return nil
	}
	return m.dropUnnamed(old)
}

// dropUnnamed ends a file without a name. While a walk goes on it is kept: its other name may not have been seen yet.
func (m *Mirror) dropUnnamed(id batch.FileID) error {
	names, err := m.tree.NamesOf(id)
	if err != nil || len(names) > 0 || id == batch.Root {
		return err
	}
	if m.Walking() {
		m.unnamed[id] = struct{}{}
		return nil
	}
	return m.tree.Drop(id, m.pending.Remove)
}

// forget takes every name from a file and ends it.
func (m *Mirror) forget(id batch.FileID) error {
	names, err := m.tree.NamesOf(id)
	if err != nil {
		return err
	}
	for _, k := range names {
		if err := m.tree.Link(k.Parent, k.Name, 0); err != nil {
			return err
		}
	}
	delete(m.unnamed, id)
	m.opt.Changed()
	return m.tree.Drop(id, m.pending.Remove)
}

func (m *Mirror) applyLink(r *journal.Record, pos journal.Position) error {
	parent, err := m.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	return m.arrive(r.Node, r.Attr, parent, r.Name, pos)
}

// arrive gives an object, known or not, a name in a known directory. A directory that comes from where the tree does not
// reach is walked.
func (m *Mirror) arrive(i journal.Ident, a journal.Attr, parent batch.FileID, name string, pos journal.Position) error {
	isDir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	id, known, err := m.tree.ByIdent(i)
	if err != nil {
		return err
	}
	if skip, err := m.isExcluded(parent, name, isDir); err != nil {
		return err
	} else if skip {
		if known {
			return m.dropUnnamed(id)
		}
		return nil
	}
	if !known {
		n := m.adopt(i, a, "", pos)
		id, n.XattrsUnread = n.ID, true
	} else {
		n, err := m.tree.Edit(id)
		if err != nil || n == nil {
			return err
		}
		m.setAttr(n, a)
	}
	if isDir && (!known || m.Walking()) {
		m.uncheck(id)
	}
	delete(m.unnamed, id)
	return m.setName(parent, name, id)
}

func (m *Mirror) applyRename(r *journal.Record, pos journal.Position) error {
	from, err := m.parent(r.Parent, r.ParentAttr)
	if err != nil {
		return err
	}
	to, err := m.parent(r.NewParent, r.NewParentAttr)
	if err != nil {
		return err
	}
	exchange := r.Flags&journal.FlagExchange != 0
	if from != 0 {
		if err := m.tree.Link(from, r.Name, 0); err != nil {
			return err
		}
		m.opt.Changed()
	}
	if to == 0 {
		return m.departed(r.Node)
	}
	if exchange {
		if err := m.tree.Link(to, r.NewName, 0); err != nil {
			return err
		}
	}
	if err := m.arriveLink(r, to, pos); err != nil {
		return err
	}
	if exchange && from != 0 {
		return m.arrive(r.Other, r.OtherAttr, from, r.Name, pos)
	}
	return nil
}

// arriveLink is the second half of a rename: the object under its new name. A link that the tree did not know needs its target read.
func (m *Mirror) arriveLink(r *journal.Record, to batch.FileID, pos journal.Position) error {
	_, known, err := m.tree.ByIdent(r.Node)
	if err != nil {
		return err
	}
	if err := m.arrive(r.Node, r.Attr, to, r.NewName, pos); err != nil {
		return err
	}
	if !known && r.Attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		m.uncheck(to) // the walk reads the target
	}
	return nil
}

// departed handles an object that was moved out of the tree's reach.
func (m *Mirror) departed(i journal.Ident) error {
	id, ok, err := m.tree.ByIdent(i)
	if err != nil || !ok {
		return err
	}
	return m.dropUnnamed(id)
}

func (m *Mirror) applyUnlink(r *journal.Record) error {
	parent, err := m.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	id, err := m.tree.Lookup(parent, r.Name)
	if err != nil || id == 0 {
		return err
	}
	if err := m.tree.Link(parent, r.Name, 0); err != nil {
		return err
	}
	m.opt.Changed()
	if n, err := m.tree.Edit(id); err != nil {
		return err
	} else if n != nil && n.Ident == r.Node {
		m.setAttr(n, r.Attr)
	}
	if r.Attr.Nlink == 0 {
		delete(m.unnamed, id)
		return m.forgetIfUnnamed(id)
	}
	return m.dropUnnamed(id)
}

// forgetIfUnnamed ends a file of which the source says that its last name is gone.
func (m *Mirror) forgetIfUnnamed(id batch.FileID) error {
	names, err := m.tree.NamesOf(id)
	if err != nil || len(names) > 0 {
		return err
	}
	return m.tree.Drop(id, m.pending.Remove)
}

// applyChange folds a record about one object.
func (m *Mirror) applyChange(r *journal.Record, pos journal.Position) error {
	id, ok, err := m.tree.ByIdent(r.Node)
	if err != nil || !ok {
		return err
	}
	switch r.Op {
	case journal.OpOpen:
		m.pending.Opened(id)
		m.pending.Mark(id, pending.Open, r.Attr.Size, pos)
		return nil
	case journal.OpRelease:
		m.pending.Released(id)
		return nil
	case journal.OpSync:
		m.pending.Synced(id)
		return nil
	case journal.OpTruncate, journal.OpData:
		m.pending.Mark(id, pending.Written, r.Attr.Size, pos)
		return nil
	}
	n, err := m.tree.Edit(id)
	if err != nil || n == nil {
		return err
	}
	m.setAttr(n, r.Attr)
	m.opt.Changed()
	if strings.HasPrefix(r.XattrName, "user.slipway.") {
		return nil
	}
	switch r.Op {
	case journal.OpSetXattr:
		n.Xattrs = withXattr(n.Xattrs, r.XattrName, append([]byte{}, r.XattrValue...))
	case journal.OpRemoveXattr:
		n.Xattrs = withXattr(n.Xattrs, r.XattrName, nil)
	}
	return nil
}

// withXattr returns a copy of m with one attribute set, or removed where value is nil.
func withXattr(m map[string][]byte, name string, value []byte) map[string][]byte {
	out := make(map[string][]byte, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	if value == nil {
		delete(out, name)
	} else {
		out[name] = value
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// ReadInherited reads the extended attributes of files that no record told of. One that has moved meanwhile is read at the next seal.
func (m *Mirror) ReadInherited() error {
	for n := range m.tree.XattrsUnread() {
		path, ok, err := m.tree.Path(n.ID)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		xattrs, err := readXattrs(m.opt.Source, path, n)
		if err != nil {
			continue
		}
		n.Xattrs, n.XattrsUnread = xattrs, false
	}
	return nil
}

func readXattrs(root *os.File, path string, n *tree.Node) (map[string][]byte, error) {
	f, err := source.Open(root, path, unix.O_PATH, n.Ident)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return source.Xattrs(f)
}
