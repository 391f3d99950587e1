// Package leftout finds what `exclude:` leaves out of a volume, in the volume's source directory: for whoever asks why a file is in
// no batch. It looks at directories and names, never below a directory that is left out itself, and gives up after a while.
//
// It only reads, so a crash leaves nothing.
package leftout

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/exclude"
	"slipway/internal/journal"
	"slipway/internal/source"
)

// What a row's state says.
const (
	Excluded   = "excluded"
	Unsearched = "unsearched" // a directory in which, or below which, nobody looked
)

// Finder knows the patterns, where they stand, and the source.
type Finder struct {
	list   *exclude.List
	lines  []int    // of the configuration, by pattern
	source *os.File // nil: it cannot be opened
	fault  error    // why
}

// New returns a Finder for a source directory that the caller holds open.
func New(cfg *config.Primary, dir *os.File) (*Finder, error) {
	list, err := exclude.New(cfg.Exclude)
	return &Finder{list: list, lines: cfg.ExcludeLines, source: dir}, err
}

// Open is New for a caller that does not have the source open. One that cannot be opened is told in the rows.
func Open(cfg *config.Primary) (*Finder, error) {
	f, err := New(cfg, nil)
	if err == nil && f.list != nil {
		f.source, f.fault = os.OpenFile(cfg.Source, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	return f, err
}

// Close closes what Open opened.
func (f *Finder) Close() error {
	if f.source == nil {
		return nil
	}
	return f.source.Close()
}

// Found is a path that is left out, or a directory that was not searched.
type Found struct {
	Path   string // relative to the volume
	State  string // Excluded or Unsearched
	Line   int    // of the configuration
	Why    string // in words
	Attr   journal.Attr
	Target string // of a symbolic link
}

// At tells what a path is: left out (found.State is Excluded) or not, and whether anything lies there.
func (f *Finder) At(path string) (found Found, there bool) {
	found = Found{Path: path}
	if f.source != nil {
		if o, err := source.Open(f.source, path, unix.O_PATH, journal.Ident{}); err == nil {
			found.Attr, found.Target, there = lookAt(o, "")
			_ = o.Close()
		}
	}
	f.judge(&found, isDir(found.Attr.Mode))
	return found, there
}

// Matches tells whether a path is left out by its name alone.
func (f *Finder) Matches(path string) bool {
	_, skip := f.list.Match(path, false)
	return skip
}

// judge notes whether a path is left out, and by what.
func (f *Finder) judge(found *Found, dir bool) bool {
	n, skip := f.list.Match(found.Path, dir)
	if !skip {
		return false
	}
	if n <= len(f.lines) {
		n = f.lines[n-1]
	}
	found.State, found.Line, found.Why = Excluded, n, fmt.Sprintf("excluded by line %d of the configuration", n)
	return true
}

// lookAt reads what is told of a path; false: it is gone.
func lookAt(dir *os.File, name string) (attr journal.Attr, target string, there bool) {
	_, attr, err := source.Stat(int(dir.Fd()), name)
	if err == nil && control.TypeOf(attr.Mode) == "symlink" {
		target, _ = source.Readlink(int(dir.Fd()), name) // gone, or another object by now
	}
	return attr, target, err == nil
}

func isDir(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }
