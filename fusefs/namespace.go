package fusefs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// held pins an object over an operation that takes its name away, so that it can be said afterwards what became of it.
type held struct {
	fd int // -1: there was nothing
}

func (f *filesystem) hold(parent *node, name string) (held, error) {
	fd, err := f.openat(parent.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	return held{fd}, err
}

func (h held) close() {
	if h.fd >= 0 {
		_ = unix.Close(h.fd)
	}
}

// after reads who the object is and how it is now.
func (h held) after(f *filesystem) (ident journal.Ident, st unix.Statx_t, err error) {
	if st, err = statx(h.fd, ""); err != nil {
		return ident, st, err
	}
	ident, err = f.fsids.ident(h.fd, &st)
	return ident, st, err
}

// Unlink removes an entry that is not a directory.
func (f *filesystem) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return status(f.remove(in.NodeId, name, 0))
}

// Rmdir removes an empty directory.
func (f *filesystem) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return status(f.remove(in.NodeId, name, unix.AT_REMOVEDIR))
}

func (f *filesystem) remove(parentID uint64, name string, flags int) error {
	parent, err := f.nodes.get(parentID)
	if err != nil {
		return err
	}
	victim, err := f.hold(parent, name)
	if err != nil {
		return err
	}
	defer victim.close()
	if err := unix.Unlinkat(parent.fd, name, flags); err != nil {
		return err
	}
	ident, st, err := victim.after(f)
	if err != nil {
		f.gap("look at what was just removed: " + err.Error())
		return nil
	}
	f.nodes.unlink(keyOf(&st), parent, name)
	f.record(f.entryRecord(journal.OpUnlink, ident, &st, parent, name))
	return nil
}

// Link gives an object a further name. It is named by its descriptor, so it may have lost all names it had (O_TMPFILE).
func (f *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	n, err := f.nodes.get(in.Oldnodeid)
	if err != nil {
		return status(err)
	}
	if err := unix.Linkat(n.fd, "", parent.fd, name, unix.AT_EMPTY_PATH); err != nil {
		return status(err)
	}
	fd, err := f.openat(parent.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil {
		var linked *node
		var st given
		if linked, st, err = f.adopt(fd, parent, name); err == nil {
			f.record(f.entryRecord(journal.OpLink, linked.ident, &st.Statx_t, parent, name))
			f.give(linked, &st, parent, out)
			return fuse.OK
		}
	}
	f.gap("look at what was just linked: " + err.Error())
	return status(err)
}

// Rename moves an entry, or with RENAME_EXCHANGE exchanges two.
func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	from, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	to, err := f.nodes.get(in.Newdir)
	if err != nil {
		return status(err)
	}
	return status(f.rename(from, name, to, newName, uint(in.Flags), in.Owner))
}

func (f *filesystem) rename(from *node, name string, to *node, newName string, flags uint, owner fuse.Owner) error {
	moved, err := f.hold(from, name)
	if err != nil {
		return err
	}
	defer moved.close()
	other, err := f.hold(to, newName)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	defer other.close()
	move := func() error { return unix.Renameat2(from.fd, name, to.fd, newName, flags) }
	if flags&unix.RENAME_WHITEOUT != 0 {
		err = f.creds.asCaller(owner, move) // leaves a new device node behind
	} else {
		err = move()
	}
	if err != nil {
		if flags&unix.RENAME_WHITEOUT != 0 {
			f.touchedInVain(from)
		}
		return err
	}
	if err := f.renamed(moved, other, from, name, to, newName, flags); err != nil {
		f.gap("look at what was just renamed: " + err.Error())
	}
	return nil
}

// touchedInVain tells of a directory whose times a failed operation may have moved: ext4 puts a whiteout in its place before it finds out
// that the rename cannot be.
func (f *filesystem) touchedInVain(dir *node) {
	f.device.forgetAttributes(dir.id)
	if st, err := statx(dir.fd, ""); err == nil {
		f.record(nodeRecord(journal.OpAttr, dir, &st))
	}
}

// renamed journals a rename that happened.
func (f *filesystem) renamed(moved, other held, from *node, name string, to *node, newName string, flags uint) error {
	ident, st, err := moved.after(f)
	if err != nil {
		return err
	}
	f.nodes.rename(keyOf(&st), to, newName)
	r := f.entryRecord(journal.OpRename, ident, &st, from, name)
	if r == nil {
		return nil // on another file system, and a rename never leaves one
	}
	r.NewParent, r.NewParentAttr, r.NewName = to.ident, f.attrAfter(to), newName
	if other.fd >= 0 {
		otherIdent, otherSt, err := other.after(f)
		if err != nil {
			return err
		}
		if otherIdent == ident {
			return nil // two names of one object: rename(2) does nothing
		}
		r.Other, r.OtherAttr = otherIdent, journalAttr(&otherSt)
		if flags&unix.RENAME_EXCHANGE != 0 {
			r.Flags |= journal.FlagExchange
			f.nodes.rename(keyOf(&otherSt), from, name)
		} else {
			f.nodes.unlink(keyOf(&otherSt), to, newName)
		}
	}
	rs := []*journal.Record{r}
	if flags&unix.RENAME_WHITEOUT != 0 {
		whiteout, err := f.hold(from, name)
		if err != nil {
			return err
		}
		defer whiteout.close()
		ident, st, err := whiteout.after(f)
		if err != nil {
			return err
		}
		rs = append(rs, f.creationRecord(ident, &st, from, name))
	}
	f.record(rs...)
	return nil
}
