package spooler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// Why a tree is not complete, as the envelope says it.
const (
	whyAdoption = "adoption"
	whyGap      = "gap"
)

const (
	walkBudget     = 50 * time.Millisecond // of one step
	walkPendingMax = 5_000                 // the walk rests while so many files wait to be read
	rebootWindow   = 10 * time.Minute      // after a boot, what was sealed in this time is read again: it may not have reached the disk
)

// beginWalk starts the comparison of the whole tree with the source. It closes every gap, and adopts an existing directory.
// A walk that goes on begins anew.
func (v *volume) beginWalk(why string) {
	if v.meta.Head == 0 || v.meta.LastWhole == 0 {
		why = whyAdoption
	}
	v.why = why
	v.gaps++
	v.checked = map[batch.FileID]struct{}{}
	v.unchecked = map[batch.FileID]struct{}{batch.Root: {}}
	v.queue = []batch.FileID{batch.Root}
	v.changed()
}

// walking tells whether directories remain that were not compared since the last gap.
func (v *volume) walking() bool { return len(v.unchecked) > 0 }

// uncheck makes a directory one that has to be compared.
func (v *volume) uncheck(id batch.FileID) {
	if _, there := v.unchecked[id]; there {
		return
	}
	if v.why == "" {
		v.why = whyGap
	}
	delete(v.checked, id)
	v.unchecked[id] = struct{}{}
	v.queue = append(v.queue, id)
}

// walk compares directories until its budget is used or too much is pending. The journal has been folded to its end just
// before: what a directory shows then lies before every record that is still to come, and later records win.
func (v *volume) walk() error {
	began := v.now()
	for len(v.queue) > 0 && v.now().Sub(began) < walkBudget && v.pending.Waiting() < walkPendingMax {
		id := v.queue[0]
		v.queue = v.queue[1:]
		if _, open := v.unchecked[id]; !open {
			continue
		}
		done, err := v.compareDir(id)
		if err != nil {
			return err
		}
		if !done {
			v.queue = append(v.queue, id) // moved meanwhile: the journal says where to
			return nil
		}
		delete(v.unchecked, id)
		v.checked[id] = struct{}{}
	}
	if len(v.unchecked) == 0 && v.why != "" {
		return v.endWalk()
	}
	return nil
}

// endWalk ends the files that no directory names, and lets the next batch call itself complete.
func (v *volume) endWalk() error {
	for id := range v.unnamed {
		if err := v.forgetIfUnnamed(id); err != nil {
			return err
		}
	}
	clear(v.unnamed)
	v.queue, v.checked, v.why = nil, nil, ""
	v.changed()
	v.log.Info("tree compared with the source", "pending", v.pending.Len())
	return nil
}

// compareDir compares one directory with the source. false: it is not where the tree says, look again.
func (v *volume) compareDir(id batch.FileID) (bool, error) {
	n, err := v.tree.Get(id)
	if err != nil || n == nil || !n.IsDir() {
		return true, err
	}
	path, ok, err := v.tree.Path(id)
	if err != nil || !ok {
		return true, err // nothing leads there: its parent's comparison decides
	}
	f, err := source.Open(v.source, path, unix.O_RDONLY|unix.O_DIRECTORY, n.Ident)
	if err != nil {
		return v.missingDir(id, path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	if err := v.compareSelf(f, id, n); err != nil {
		return false, err
	}
	names, err := source.ReadDir(f)
	if err != nil {
		return false, fmt.Errorf("compare directory %q: %w", path, err)
	}
	here := make(map[string]struct{}, len(names))
	for _, name := range names {
		present, err := v.compareEntry(f, id, n, name)
		if err != nil {
			return false, fmt.Errorf("compare %q: %w", path+"/"+name, err)
		}
		if present {
			here[name] = struct{}{}
		}
	}
	return true, v.removeAbsent(id, here)
}

// missingDir decides about a directory that is not at its path: it moved, was removed or cannot be read.
func (v *volume) missingDir(id batch.FileID, path string, err error) (bool, error) {
	if !errors.Is(err, source.ErrMoved) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		v.log.Warn("directory cannot be compared", "path", path, "error", err)
		return false, nil
	}
	if v.missing[id]++; v.missing[id] < 5 {
		return false, nil
	}
	// No record explains it: whoever names it is out of date, so that one is compared again.
	delete(v.missing, id)
	names, err := v.tree.NamesOf(id)
	if err != nil {
		return false, err
	}
	for _, k := range names {
		v.uncheck(k.Parent)
	}
	return true, nil
}

// compareSelf brings a directory's own attributes up to date.
func (v *volume) compareSelf(f *os.File, id batch.FileID, n *tree.Node) error {
	ident, attr, err := source.Stat(int(f.Fd()), "")
	if err != nil {
		return fmt.Errorf("read attributes: %w", err)
	}
	if n.Attr == attr && n.Ident == ident && !n.XattrsUnread {
		return nil
	}
	xattrs, err := source.Xattrs(f)
	if err != nil {
		return fmt.Errorf("read extended attributes: %w", err)
	}
	if n, err = v.tree.Edit(id); err != nil {
		return err
	}
	n.SetAttr(attr)
	n.Xattrs, n.XattrsUnread = xattrs, false
	v.changed()
	return nil
}

// compareEntry compares one name. false: it is not there, or not part of the volume.
func (v *volume) compareEntry(dir *os.File, parent batch.FileID, parentNode *tree.Node, name string) (bool, error) {
	ident, attr, err := source.Stat(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := attr.Mode&unix.S_IFMT == unix.S_IFDIR
	if skip, err := v.isExcluded(parent, name, isDir); err != nil || skip {
		return false, err
	}
	if ident.FS != parentNode.Ident.FS && source.IsMountPoint(int(dir.Fd()), name) {
		v.foreign(name)
		return false, nil
	}
	id, known, err := v.tree.ByIdent(ident)
	if err != nil {
		return false, err
	}
	var n *tree.Node
	if known {
		if n, err = v.tree.Get(id); err != nil {
			return false, err
		}
	}
	if n == nil || n.Mode&unix.S_IFMT != attr.Mode&unix.S_IFMT {
		n, err = v.adoptFound(dir, name, ident, attr)
	} else {
		err = v.compareKnown(dir, name, n, attr)
	}
	if err != nil {
		return false, err
	}
	if _, done := v.checked[n.ID]; isDir && !done {
		v.uncheck(n.ID)
	}
	delete(v.unnamed, n.ID)
	return true, v.setName(parent, name, n.ID)
}

// adoptFound adds an object that the walk came upon.
func (v *volume) adoptFound(dir *os.File, name string, ident journal.Ident, attr journal.Attr) (*tree.Node, error) {
	var target string
	if attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if target, err = source.Readlink(int(dir.Fd()), name); err != nil {
			return nil, fmt.Errorf("read link: %w", err)
		}
	}
	n := v.adopt(ident, attr, target, v.folded)
	n.XattrsUnread = true
	return n, nil
}

// compareKnown decides what of a known object has to be read again.
func (v *volume) compareKnown(dir *os.File, name string, n *tree.Node, attr journal.Attr) error {
	if n.IsRegular() {
		return v.compareFile(dir, name, n, attr)
	}
	if n.Attr == attr && !n.XattrsUnread {
		return nil
	}
	id := n.ID
	n, err := v.tree.Edit(id)
	if err != nil {
		return err
	}
	n.SetAttr(attr)
	n.XattrsUnread = true
	if n.Mode&unix.S_IFMT == unix.S_IFLNK {
		if n.Target, err = source.Readlink(int(dir.Fd()), name); err != nil {
			return fmt.Errorf("read link: %w", err)
		}
	}
	v.changed()
	return nil
}

// compareFile makes a regular file pending if it may differ from what was sealed, or if somebody still writes to it through
// a handle or mapping that outlived the mount.
func (v *volume) compareFile(dir *os.File, name string, n *tree.Node, attr journal.Attr) error {
	if v.pending.Get(n.ID) != nil {
		return nil
	}
	if n.Content == nil || n.Ctime != attr.Ctime || n.Size != attr.Size {
		v.pending.Mark(n.ID, pending.Written, attr.Size, v.folded)
		return nil
	}
	if v.rebooted {
		if !v.sealedLately(n.Seq) {
			return nil
		}
		v.pending.Mark(n.ID, pending.Written, attr.Size, v.folded)
		return nil
	}
	quiet, err := probeEntry(dir, name, n.Ident)
	if err == nil && !quiet {
		v.pending.Mark(n.ID, pending.Open, attr.Size, v.folded)
	}
	return nil
}

// probeEntry opens a file beside its directory and asks whether it is quiet.
func probeEntry(dir *os.File, name string, want journal.Ident) (bool, error) {
	f, err := source.Open(dir, name, unix.O_RDONLY, want)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read
	return source.Quiet(f)
}

// sealedLately tells whether a batch is younger than rebootWindow.
func (v *volume) sealedLately(seq batch.Seq) bool {
	return seq >= v.lateFrom
}

// removeAbsent takes the names away that the source does not have.
func (v *volume) removeAbsent(dir batch.FileID, here map[string]struct{}) error {
	var absent []string
	if err := v.tree.Children(dir, func(name string, _ batch.FileID) error {
		if _, there := here[name]; !there {
			absent = append(absent, name)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range absent {
		if err := v.setName(dir, name, 0); err != nil {
			return err
		}
	}
	return nil
}

// foreign notes a file system mounted below the source, which is no part of the volume.
func (v *volume) foreign(name string) {
	if !slices.Contains(v.mounted, name) {
		v.mounted = append(v.mounted, name)
		v.log.Warn("another file system is mounted below the source: it is left out", "name", name)
	}
}

// isUnchecked tells whether a directory was not compared since the last gap.
func (v *volume) isUnchecked(dir batch.FileID) bool {
	_, unchecked := v.unchecked[dir]
	return unchecked
}
