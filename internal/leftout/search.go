package leftout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
)

// searchFor bounds a search: whoever asks waits for the answer.
const searchFor = 5 * time.Second

// search is one walk through the source.
type search struct {
	*Finder
	ctx       context.Context
	recursive bool
	limit     int
	ends      time.Time
	todo      []dir // the next one last
	found     []Found
}

// dir is a directory to look into; fs tells whether it is one of another file system.
type dir struct {
	path string
	fs   uint64
}

// In returns what is left out in a directory (recursive: and below it), at most limit rows (0: all). Of a directory that is left out
// there is one row. What could not be searched, or not in time, is told by rows too.
func (f *Finder) In(ctx context.Context, directory string, recursive bool, limit int) ([]Found, error) {
	return f.in(ctx, directory, recursive, limit, time.Now().Add(searchFor))
}

func (f *Finder) in(ctx context.Context, directory string, recursive bool, limit int, ends time.Time) ([]Found, error) {
	if f.list == nil {
		return nil, nil
	}
	if f.source == nil {
		return []Found{unsearched(directory, f.fault)}, nil
	}
	s := &search{Finder: f, ctx: ctx, recursive: recursive, limit: limit, ends: ends, todo: []dir{{path: directory}}}
	for len(s.todo) > 0 && !s.enough() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := s.todo[len(s.todo)-1]
		if !time.Now().Before(ends) {
			s.found = append(s.found, unsearched(d.path, errTime))
			break
		}
		s.todo = s.todo[:len(s.todo)-1]
		if err := s.look(d); err != nil {
			s.found = append(s.found, unsearched(d.path, err))
		}
	}
	return s.found, nil
}

var errTime = fmt.Errorf("that took longer than %v; `slipway ls` tells of one directory", searchFor)

func unsearched(path string, why error) Found {
	return Found{Path: path, State: Unsearched, Why: fmt.Sprintf("from here on nobody looked for excluded files: %v", why), Attr: journal.Attr{Mode: unix.S_IFDIR}}
}

func (s *search) enough() bool { return s.limit > 0 && len(s.found) >= s.limit }

// look reads one directory. One that is gone, or is no directory any more, has nothing in it.
func (s *search) look(d dir) error {
	f, err := source.Open(s.source, d.path, unix.O_RDONLY|unix.O_DIRECTORY, journal.Ident{})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	ident, _, err := source.Stat(int(f.Fd()), "")
	if err != nil {
		return err
	}
	if d.fs != 0 && ident.FS != d.fs && source.IsMountPoint(int(f.Fd()), "") {
		return nil // another file system's: not of the volume
	}
	names, err := source.ReadKinds(f)
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b source.Kind) int { return strings.Compare(a.Name, b.Name) })
	kept := s.sieve(f, d.path, names)
	for _, n := range slices.Backward(kept) {
		if n.Dir && s.recursive {
			s.todo = append(s.todo, dir{path.Join(d.path, n.Name), ident.FS})
		}
	}
	return nil
}

// sieve takes the names that are left out of a directory's, and returns the others.
func (s *search) sieve(f *os.File, in string, names []source.Kind) (kept []source.Kind) {
	for _, n := range names {
		found := Found{Path: path.Join(in, n.Name)}
		if !s.judge(&found, n.Dir) {
			kept = append(kept, n)
			continue
		}
		var there bool
		if found.Attr, found.Target, there = lookAt(f, n.Name); there && !s.enough() {
			s.found = append(s.found, found)
		}
	}
	return kept
}
