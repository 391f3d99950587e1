package fusefs

import (
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// record appends what is not nil, in one append, and returns when it is in the file (or the journal has given it up and
// marked a gap). Handlers answer only after it. Records are nil for objects that are not part of the volume.
func (f *filesystem) record(rs ...*journal.Record) {
	kept := rs[:0]
	now := time.Now().UnixNano()
	for _, r := range rs {
		if r != nil {
			r.Time = now
			kept = append(kept, r)
		}
	}
	if len(kept) > 0 {
		f.journal.Append(kept...)
	}
}

// recordSoon appends what nobody waits for: it goes with the next record, or in a moment by itself.
func (f *filesystem) recordSoon(r *journal.Record) {
	if r != nil {
		r.Time = time.Now().UnixNano()
		f.journal.AppendSoon(r)
	}
}

// gap tells the spooler that an operation may have happened that no record tells of.
func (f *filesystem) gap(why string) {
	f.record(&journal.Record{Op: journal.OpGap, Name: why})
}

// recordStart is the first record of every mount.
func (f *filesystem) recordStart() error {
	root := f.nodes.root
	st, err := statx(root.fd, "")
	if err != nil {
		return err
	}
	f.record(nodeRecord(journal.OpStart, root, &st))
	return nil
}

// nodeRecord reports an operation on n that left it as st.
func nodeRecord(op journal.Op, n *node, st *unix.Statx_t) *journal.Record {
	if n.foreign {
		return nil
	}
	return &journal.Record{Op: op, Node: n.ident, Attr: journalAttr(st)}
}

// entryRecord reports an operation on an entry of parent that left the object behind it as st.
func (f *filesystem) entryRecord(op journal.Op, ident journal.Ident, st *unix.Statx_t, parent *node, name string) *journal.Record {
	if parent.foreign {
		return nil
	}
	return &journal.Record{
		Op:         op,
		Node:       ident,
		Attr:       journalAttr(st),
		Parent:     parent.ident,
		ParentAttr: f.attrAfter(parent),
		Name:       name,
	}
}

// attrAfter returns a node's attributes as they are now; zero if even that fails, which no file system does to a descriptor
// that is held.
func (f *filesystem) attrAfter(n *node) journal.Attr {
	st, err := statx(n.fd, "")
	if err != nil {
		return journal.Attr{}
	}
	return journalAttr(&st)
}
