package mirror

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
)

// Compare has the whole tree compared with the source again.
func (m *Mirror) Compare() { m.beginWalk(whyGap) }

// beginWalk starts the comparison of the whole tree with the source. It closes every gap, and adopts an existing directory.
// A walk that goes on begins anew.
func (m *Mirror) beginWalk(why string) {
	if m.opt.Adopting() {
		why = whyAdoption
	}
	m.why = why
	m.gaps++
	m.checked = map[batch.FileID]struct{}{}
	m.unchecked = map[batch.FileID]struct{}{batch.Root: {}}
	m.queue = []batch.FileID{batch.Root}
	m.opt.Changed()
}

// Walking tells whether directories remain that were not compared since the last gap.
func (m *Mirror) Walking() bool { return len(m.unchecked) > 0 }

// WalkDue tells whether Walk would go on now.
func (m *Mirror) WalkDue() bool { return len(m.queue) > 0 && m.pending.Waiting() < walkPendingMax }

// uncheck makes a directory one that has to be compared.
func (m *Mirror) uncheck(id batch.FileID) {
	if _, there := m.unchecked[id]; there {
		return
	}
	if m.why == "" {
		m.why = whyGap
	}
	delete(m.checked, id)
	m.unchecked[id] = struct{}{}
	m.queue = append(m.queue, id)
}

// Walk compares directories until its budget is used or too much is pending. The journal has been folded to its end just
// before: what a directory shows then lies before every record that is still to come, and later records win.
func (m *Mirror) Walk() error {
	began := m.opt.Now()
	for m.WalkDue() && m.opt.Now().Sub(began) < walkBudget {
		id := m.queue[0]
		m.queue = m.queue[1:]
		if _, open := m.unchecked[id]; !open {
			continue
		}
		done, err := m.compareDir(id)
		if err != nil {
			return err
		}
		if !done {
			m.queue = append(m.queue, id) // moved meanwhile: the journal says where to
			return nil
		}
		delete(m.unchecked, id)
		m.checked[id] = struct{}{}
	}
	if len(m.unchecked) == 0 && m.why != "" {
		return m.endWalk()
	}
	return nil
}

// endWalk ends the files that no directory names, and lets the next batch call itself complete.
func (m *Mirror) endWalk() error {
	for id := range m.unnamed {
		if err := m.forgetIfUnnamed(id); err != nil {
			return err
		}
	}
	clear(m.unnamed)
	m.queue, m.checked, m.why = nil, map[batch.FileID]struct{}{}, ""
	m.opt.Changed()
	m.opt.Log.Info("tree compared with the source", "pending", m.pending.Len())
	return nil
}

// compareDir compares one directory with the source. false: it is not where the tree says, look again.
func (m *Mirror) compareDir(id batch.FileID) (bool, error) {
	n, err := m.tree.Get(id)
	if err != nil || n == nil || !n.IsDir() {
		return true, err
	}
	path, ok, err := m.tree.Path(id)
	if err != nil || !ok {
		return true, err // nothing leads there: its parent's comparison decides
	}
	f, err := source.Open(m.opt.Source, path, unix.O_RDONLY|unix.O_DIRECTORY, n.Ident)
	if err != nil {
		return m.missingDir(id, path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	if err := m.compareSelf(f, id, n); err != nil {
		return false, err
	}
	names, err := source.ReadDir(f)
	if err != nil {
		return false, fmt.Errorf("compare directory %q: %w", path, err)
	}
	here := make(map[string]struct{}, len(names))
	for _, name := range names {
		present, err := m.compareEntry(f, id, n, name)
		if err != nil {
			return false, fmt.Errorf("compare %q: %w", path+"/"+name, err)
		}
		if present {
			here[name] = struct{}{}
		}
	}
	return true, m.removeAbsent(id, here)
}

// missingDir decides about a directory that is not at its path: it moved, was removed or cannot be read.
func (m *Mirror) missingDir(id batch.FileID, path string, err error) (bool, error) {
	if !errors.Is(err, source.ErrMoved) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		m.opt.Log.Warn("directory cannot be compared", "path", path, "error", err)
		return false, nil
	}
	if m.missing[id]++; m.missing[id] < 5 {
		return false, nil
	}
	// No record explains it: whoever names it is out of date, so that one is compared again.
	delete(m.missing, id)
	names, err := m.tree.NamesOf(id)
	if err != nil {
		return false, err
	}
	for _, k := range names {
		m.uncheck(k.Parent)
	}
	return true, nil
}

// compareSelf brings a directory's own attributes up to date.
func (m *Mirror) compareSelf(f *os.File, id batch.FileID, n *tree.Node) error {
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
	if n, err = m.tree.Edit(id); err != nil {
		return err
	}
	n.SetAttr(attr)
	n.Xattrs, n.XattrsUnread = xattrs, false
	m.opt.Changed()
	return nil
}

// compareEntry compares one name. false: it is not there, or not part of the volume.
func (m *Mirror) compareEntry(dir *os.File, parent batch.FileID, parentNode *tree.Node, name string) (bool, error) {
	ident, attr, err := source.Stat(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := attr.Mode&unix.S_IFMT == unix.S_IFDIR
	if skip, err := m.isExcluded(parent, name, isDir); err != nil || skip {
		return false, err
	}
	if ident.FS != parentNode.Ident.FS && source.IsMountPoint(int(dir.Fd()), name) {
		m.foreign(name)
		return false, nil
	}
	id, known, err := m.tree.ByIdent(ident)
	if err != nil {
		return false, err
	}
	var n *tree.Node
	if known {
		if n, err = m.tree.Get(id); err != nil {
			return false, err
		}
	}
	if n == nil || n.Mode&unix.S_IFMT != attr.Mode&unix.S_IFMT {
		n, err = m.adoptFound(dir, name, ident, attr)
	} else {
		err = m.compareKnown(dir, name, n, attr)
	}
	if err != nil {
		return false, err
	}
	if _, done := m.checked[n.ID]; isDir && !done {
		m.uncheck(n.ID)
	}
	delete(m.unnamed, n.ID)
	return true, m.setName(parent, name, n.ID)
}

// adoptFound adds an object that the walk came upon.
func (m *Mirror) adoptFound(dir *os.File, name string, ident journal.Ident, attr journal.Attr) (*tree.Node, error) {
	var target string
	if attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if target, err = source.Readlink(int(dir.Fd()), name); err != nil {
			return nil, fmt.Errorf("read link: %w", err)
		}
	}
	n := m.adopt(ident, attr, target, m.folded)
	n.XattrsUnread = true
	return n, nil
}

// compareKnown decides what of a known object has to be read again.
func (m *Mirror) compareKnown(dir *os.File, name string, n *tree.Node, attr journal.Attr) error {
	if n.IsRegular() {
		return m.compareFile(dir, name, n, attr)
	}
	if n.Attr == attr && !n.XattrsUnread {
		return nil
	}
	id := n.ID
	n, err := m.tree.Edit(id)
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
	m.opt.Changed()
	return nil
}

// compareFile makes a regular file pending if it may differ from what was sealed, or if somebody still writes to it through
// a handle or mapping that outlived the mount.
func (m *Mirror) compareFile(dir *os.File, name string, n *tree.Node, attr journal.Attr) error {
	if m.pending.Get(n.ID) != nil {
		return nil
	}
	if n.Content == nil || n.Ctime != attr.Ctime || n.Size != attr.Size {
		m.pending.Mark(n.ID, pending.Written, attr.Size, m.folded)
		return nil
	}
	if m.opt.Rebooted {
		if n.Seq < m.opt.LateFrom {
			return nil
		}
		m.pending.Mark(n.ID, pending.Written, attr.Size, m.folded)
		return nil
	}
	quiet, err := probeEntry(dir, name, n.Ident)
	if err == nil && !quiet {
		m.pending.Mark(n.ID, pending.Open, attr.Size, m.folded)
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

// removeAbsent takes the names away that the source does not have.
func (m *Mirror) removeAbsent(dir batch.FileID, here map[string]struct{}) error {
	var absent []string
	if err := m.tree.Children(dir, func(name string, _ batch.FileID) error {
		if _, there := here[name]; !there {
			absent = append(absent, name)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range absent {
		if err := m.setName(dir, name, 0); err != nil {
			return err
		}
	}
	return nil
}

// foreign notes a file system mounted below the source, which is no part of the volume.
func (m *Mirror) foreign(name string) {
	if !slices.Contains(m.mounted, name) {
		m.mounted = append(m.mounted, name)
		m.opt.Log.Warn("another file system is mounted below the source: it is left out", "name", name)
	}
}

// IsUnchecked tells whether a directory was not compared since the last gap.
func (m *Mirror) IsUnchecked(dir batch.FileID) bool {
	_, unchecked := m.unchecked[dir]
	return unchecked
}
