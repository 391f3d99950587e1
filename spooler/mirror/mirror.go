// Package mirror keeps the tree and the pending set equal to the source: it folds the journal's records into them, and compares
// directories with the source where the journal does not tell, at adoption and after a gap.
//
// After a crash the journal is folded again from the catalog's position on, and the directories that the catalog notes as unchecked are
// compared.
package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/internal/exclude"
	"slipway/internal/journal"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// Options of a mirror.
type Options struct {
	Source   *os.File
	Journal  string        // its directory
	Exclude  *exclude.List // nil: nothing is
	Tree     *tree.Tree
	Pending  *pending.Set
	From     journal.Position // up to here the tree is folded
	Rebooted bool             // the machine has been started since the last commit,
	LateFrom batch.Seq        // and files sealed from here on are read again
	Adopting func() bool      // no batch holds a whole tree yet
	Changed  func()           // called when there is something to seal
	Log      *slog.Logger
	Now      func() time.Time
}

// Mirror is what is known of the source. It takes no lock: whoever owns it guards it. The tree is open for reading (tree.Within) where it
// folds and walks.
type Mirror struct {
	opt     Options
	tree    *tree.Tree
	pending *pending.Set

	reader  *journal.Reader
	folded  journal.Position
	renames uint64

	// the comparison with the source
	why       string                    // why the tree is not complete; "" when it is
	unchecked map[batch.FileID]struct{} // directories not compared since the last gap
	saved     map[batch.FileID]struct{} // as the catalog has them
	checked   map[batch.FileID]struct{}
	queue     []batch.FileID
	unnamed   map[batch.FileID]struct{} // files without a name while the walk may still find one
	missing   map[batch.FileID]int
	mounted   []string
	gaps      int
}

// New makes the mirror of a tree. Open follows.
func New(opt Options) *Mirror {
	return &Mirror{
		opt: opt, tree: opt.Tree, pending: opt.Pending, folded: opt.From,
		unchecked: map[batch.FileID]struct{}{}, saved: map[batch.FileID]struct{}{}, checked: map[batch.FileID]struct{}{},
		unnamed: map[batch.FileID]struct{}{}, missing: map[batch.FileID]int{},
	}
}

// Open goes on reading where the tree's position is. A position that is not there is a gap.
func (m *Mirror) Open() error {
	if err := durable.MkdirAll(m.opt.Journal, 0o700); err != nil {
		return fmt.Errorf("make journal directory: %w", err)
	}
	r, err := journal.OpenReader(m.opt.Journal, m.folded)
	if errors.Is(err, journal.ErrLost) {
		m.opt.Log.Warn("the journal does not go on where the catalog ends, comparing the tree with the source", "serial", m.folded.Serial, "offset", m.folded.Offset)
		m.beginWalk(whyGap)
		m.folded = journal.Position{}
		r, err = journal.OpenReader(m.opt.Journal, m.folded)
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	m.reader = r
	return nil
}

// Close ends what Open opened.
func (m *Mirror) Close() error {
	if m.reader == nil {
		return nil
	}
	return m.reader.Close()
}

// Folded is the position up to which the journal is in the tree.
func (m *Mirror) Folded() journal.Position { return m.folded }

// Renames counts those that were folded.
func (m *Mirror) Renames() uint64 { return m.renames }

// Trim lets go of the journal before a position.
func (m *Mirror) Trim(pos journal.Position) error { return m.reader.Trim(pos) }

// Report is how the comparison stands, for status.
type Report struct {
	Why       string // why the tree is not complete; "" when it is
	Unchecked int    // directories that are still to be compared
	Gaps      int    // so far
	Mounted   []string
}

// Report returns how the comparison stands.
func (m *Mirror) Report() Report {
	return Report{Why: m.why, Unchecked: len(m.unchecked), Gaps: m.gaps, Mounted: slices.Clone(m.mounted)}
}

// LoadUnchecked takes over a directory that the catalog notes as not compared.
func (m *Mirror) LoadUnchecked(dir batch.FileID) {
	m.saved[dir] = struct{}{}
	m.uncheck(dir)
}

// SaveUnchecked notes in the catalog which directories are to be compared after a restart: those that the walk has not reached, and those
// with deferred entries, whose new files the catalog does not know.
func (m *Mirror) SaveUnchecked(tx *catalog.Tx, deferred map[batch.FileID]struct{}) error {
	want := maps.Clone(m.unchecked)
	maps.Copy(want, deferred)
	for id := range want {
		if _, saved := m.saved[id]; !saved {
			if err := tx.PutUnchecked(id); err != nil {
				return err
			}
		}
	}
	for id := range m.saved {
		if _, still := want[id]; !still {
			if err := tx.DeleteUnchecked(id); err != nil {
				return err
			}
		}
	}
	m.saved = want
	return nil
}

// isExcluded tells whether a name is left out by the configuration.
func (m *Mirror) isExcluded(parent batch.FileID, name string, isDir bool) (bool, error) {
	if m.opt.Exclude == nil {
		return false, nil
	}
	dir, ok, err := m.tree.Path(parent)
	if err != nil || !ok {
		return false, err
	}
	_, skip := m.opt.Exclude.Match(filepath.Join(dir, name), isDir)
	return skip, nil
}
