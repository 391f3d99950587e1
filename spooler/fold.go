package spooler

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

// fold reads what the journal has and brings the tree to that position. more: there is more than the budget.
func (v *volume) fold() (more bool, err error) {
	for range foldBudget {
		rec, pos, err := v.reader.Next()
		if errors.Is(err, journal.ErrWait) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journal: %w", err)
		}
		if err := v.apply(&rec, pos); err != nil {
			return false, fmt.Errorf("fold journal record %d at %d: %w", rec.Op, pos.Offset, err)
		}
		v.folded = pos
	}
	return true, nil
}

// catchUp folds before a question is answered: whoever asks about a file that was made just now is not told that there is none.
func (v *volume) catchUp() error {
	if v.held != nil {
		return nil // what was prepared must stay what is committed
	}
	_, err := v.fold()
	return err
}

// apply folds one record. A record about an object the tree does not know is passed over: it lies in a directory that is
// excluded or not compared yet, and the walk that comes there sees the object as it then is.
func (v *volume) apply(r *journal.Record, pos journal.Position) error {
	switch r.Op {
	case journal.OpStart:
		return v.applyStart(r)
	case journal.OpGap:
		v.log.Warn("journal has a gap, comparing the tree with the source", "reason", r.Name)
		v.beginWalk(whyGap)
		return nil
	case journal.OpCreate:
		return v.applyCreate(r, pos)
	case journal.OpLink:
		return v.applyLink(r, pos)
	case journal.OpRename:
		v.renames++
		return v.applyRename(r, pos)
	case journal.OpUnlink:
		return v.applyUnlink(r)
	default:
		return v.applyChange(r, pos)
	}
}

// applyStart begins a new instance: nothing is known of what happened before it, nor of who still writes.
func (v *volume) applyStart(r *journal.Record) error {
	v.pending.NoWriters()
	root, err := v.tree.SetRoot(r.Node, r.Attr)
	if err != nil {
		return err
	}
	root.XattrsUnread = true
	v.beginWalk(whyGap)
	return nil
}

// parent returns the directory a record names, with its attributes brought up to date; 0 if the tree does not know it.
func (v *volume) parent(i journal.Ident, a journal.Attr) (batch.FileID, error) {
	id, ok, err := v.tree.ByIdent(i)
	if err != nil || !ok {
		return 0, err
	}
	n, err := v.tree.Edit(id)
	if err != nil || n == nil {
		return 0, err
	}
	n.SetAttr(a)
	return id, nil
}

func (v *volume) applyCreate(r *journal.Record, pos journal.Position) error {
	parent, err := v.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	if skip, err := v.isExcluded(parent, r.Name, r.Attr.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil || skip {
		return err
	}
	// The inode may be one that the file system used before: whatever it was mapped to has ended.
	if old, ok, err := v.tree.ByIdent(r.Node); err != nil {
		return err
	} else if ok && old != batch.Root {
		if err := v.forget(old); err != nil {
			return err
		}
	}
	n := v.adopt(r.Node, r.Attr, r.Target, pos)
	n.XattrsUnread = r.Flags&journal.FlagInherited != 0
	return v.setName(parent, r.Name, n.ID)
}

// setAttr takes over what a record says of a file. The operation moved ctime and left the content alone: unless the file is
// pending, in which case nobody knows what else moved it, the content is still the one captured.
func (v *volume) setAttr(n *tree.Node, a journal.Attr) {
	n.SetAttr(a)
	if v.pending.Get(n.ID) == nil {
		n.Ctime = a.Ctime
	}
}

// adopt adds an object that the tree does not know.
func (v *volume) adopt(i journal.Ident, a journal.Attr, target string, pos journal.Position) *tree.Node {
	n := v.tree.Add(i, a, target)
	if n.IsRegular() {
		v.pending.Mark(n.ID, pending.New, a.Size, pos)
	}
	return n
}

// setName makes an entry lead to id; what it led to before ends if that was its last name.
func (v *volume) setName(parent batch.FileID, name string, id batch.FileID) error {
	old, err := v.tree.Lookup(parent, name)
	if err != nil || old == id {
		return err
	}
	if err := v.tree.Link(parent, name, id); err != nil {
		return err
	}
	v.changed()
	if old == 0 {
		return nil
	}
	return v.dropUnnamed(old)
}

// dropUnnamed ends a file without a name. While a walk goes on it is kept: its other name may not have been seen yet.
func (v *volume) dropUnnamed(id batch.FileID) error {
	names, err := v.tree.NamesOf(id)
	if err != nil || len(names) > 0 || id == batch.Root {
		return err
	}
	if v.walking() {
		v.unnamed[id] = struct{}{}
		return nil
	}
	return v.tree.Drop(id, v.pending.Remove)
}

// forget takes every name from a file and ends it.
func (v *volume) forget(id batch.FileID) error {
	names, err := v.tree.NamesOf(id)
	if err != nil {
		return err
	}
	for _, k := range names {
		if err := v.tree.Link(k.Parent, k.Name, 0); err != nil {
			return err
		}
	}
	delete(v.unnamed, id)
	v.changed()
	return v.tree.Drop(id, v.pending.Remove)
}

func (v *volume) applyLink(r *journal.Record, pos journal.Position) error {
	parent, err := v.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	return v.arrive(r.Node, r.Attr, parent, r.Name, pos)
}

// arrive gives an object, known or not, a name in a known directory. A directory that comes from where the tree does not
// reach is walked.
func (v *volume) arrive(i journal.Ident, a journal.Attr, parent batch.FileID, name string, pos journal.Position) error {
	isDir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	id, known, err := v.tree.ByIdent(i)
	if err != nil {
		return err
	}
	if skip, err := v.isExcluded(parent, name, isDir); err != nil {
		return err
	} else if skip {
		if known {
			return v.dropUnnamed(id)
		}
		return nil
	}
	if !known {
		n := v.adopt(i, a, "", pos)
		id, n.XattrsUnread = n.ID, true
	} else {
		n, err := v.tree.Edit(id)
		if err != nil || n == nil {
			return err
		}
		v.setAttr(n, a)
	}
	if isDir && (!known || v.walking()) {
		v.uncheck(id)
	}
	delete(v.unnamed, id)
	return v.setName(parent, name, id)
}

func (v *volume) applyRename(r *journal.Record, pos journal.Position) error {
	from, err := v.parent(r.Parent, r.ParentAttr)
	if err != nil {
		return err
	}
	to, err := v.parent(r.NewParent, r.NewParentAttr)
	if err != nil {
		return err
	}
	exchange := r.Flags&journal.FlagExchange != 0
	if from != 0 {
		if err := v.tree.Link(from, r.Name, 0); err != nil {
			return err
		}
		v.changed()
	}
	if to == 0 {
		return v.departed(r.Node)
	}
	if exchange {
		if err := v.tree.Link(to, r.NewName, 0); err != nil {
			return err
		}
	}
	if err := v.arriveLink(r, to, pos); err != nil {
		return err
	}
	if exchange && from != 0 {
		return v.arrive(r.Other, r.OtherAttr, from, r.Name, pos)
	}
	return nil
}

// arriveLink is the second half of a rename: the object under its new name. A link that the tree did not know needs its target read.
func (v *volume) arriveLink(r *journal.Record, to batch.FileID, pos journal.Position) error {
	_, known, err := v.tree.ByIdent(r.Node)
	if err != nil {
		return err
	}
	if err := v.arrive(r.Node, r.Attr, to, r.NewName, pos); err != nil {
		return err
	}
	if !known && r.Attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		v.uncheck(to) // the walk reads the target
	}
	return nil
}

// departed handles an object that was moved out of the tree's reach.
func (v *volume) departed(i journal.Ident) error {
	id, ok, err := v.tree.ByIdent(i)
	if err != nil || !ok {
		return err
	}
	return v.dropUnnamed(id)
}

func (v *volume) applyUnlink(r *journal.Record) error {
	parent, err := v.parent(r.Parent, r.ParentAttr)
	if err != nil || parent == 0 {
		return err
	}
	id, err := v.tree.Lookup(parent, r.Name)
	if err != nil || id == 0 {
		return err
	}
	if err := v.tree.Link(parent, r.Name, 0); err != nil {
		return err
	}
	v.changed()
	if n, err := v.tree.Edit(id); err != nil {
		return err
	} else if n != nil && n.Ident == r.Node {
		v.setAttr(n, r.Attr)
	}
	if r.Attr.Nlink == 0 {
		delete(v.unnamed, id)
		return v.forgetIfUnnamed(id)
	}
	return v.dropUnnamed(id)
}

// forgetIfUnnamed ends a file of which the source says that its last name is gone.
func (v *volume) forgetIfUnnamed(id batch.FileID) error {
	names, err := v.tree.NamesOf(id)
	if err != nil || len(names) > 0 {
		return err
	}
	return v.tree.Drop(id, v.pending.Remove)
}

// applyChange folds a record about one object.
func (v *volume) applyChange(r *journal.Record, pos journal.Position) error {
	id, ok, err := v.tree.ByIdent(r.Node)
	if err != nil || !ok {
		return err
	}
	switch r.Op {
	case journal.OpOpen:
		v.pending.Opened(id)
		v.pending.Mark(id, pending.Open, r.Attr.Size, pos)
		return nil
	case journal.OpRelease:
		v.pending.Released(id)
		return nil
	case journal.OpSync:
		v.pending.Synced(id)
		return nil
	case journal.OpTruncate, journal.OpData:
		v.pending.Mark(id, pending.Written, r.Attr.Size, pos)
		return nil
	}
	n, err := v.tree.Edit(id)
	if err != nil || n == nil {
		return err
	}
	v.setAttr(n, r.Attr)
	v.changed()
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

// readInherited reads the extended attributes of files that no record told of. One that has moved meanwhile is read at the next seal.
func (v *volume) readInherited() error {
	for n := range v.tree.XattrsUnread() {
		path, ok, err := v.tree.Path(n.ID)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		xattrs, err := readXattrs(v.source, path, n)
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
