package fusefs

import (
	"crypto/sha256"
	"errors"
	"maps"
	"os"
	"path/filepath"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
)

// follower reads the journal as the spooler does, and holds what it adds up to against the source.
type follower struct {
	f      *fixture
	reader *journal.Reader
	read   int
	tree   *tree
	opens  map[journal.Ident]int  // for writing
	due    map[journal.Ident]bool // the content has to be looked at, with attributes and extended attributes
	watch  map[journal.Ident]bool // had a hidden writer when last looked at
	asked  map[journal.Ident]bool // extended attributes have to be read
	digest map[journal.Ident][sha256.Size]byte
}

func newFollower(f *fixture) *follower {
	r, err := journal.OpenReader(f.opts.Journal, journal.Position{})
	must(f.t, err)
	fo := &follower{f: f, reader: r}
	fo.forget()
	return fo
}

// forget lets go of what was removed from the source; the root's own entry is all that stays.
func (fo *follower) forget() {
	root := journal.Ident{}
	if fo.tree != nil {
		fo.catchUp()
		root = fo.tree.root
	}
	fo.tree = newTree()
	fo.tree.root = root
	fo.opens, fo.due = map[journal.Ident]int{}, map[journal.Ident]bool{}
	fo.watch, fo.asked = map[journal.Ident]bool{}, map[journal.Ident]bool{}
	fo.digest = map[journal.Ident][sha256.Size]byte{}
}

func (fo *follower) close() { _ = fo.reader.Close() }

func (fo *follower) catchUp() {
	fo.f.t.Helper()
	for {
		r, _, err := fo.reader.Next()
		if errors.Is(err, journal.ErrWait) {
			return
		}
		must(fo.f.t, err)
		fo.read++
		fo.apply(&r)
	}
}

func (fo *follower) apply(r *journal.Record) {
	_, known := fo.tree.attrs[r.Node]
	switch r.Op {
	case journal.OpGap:
		fo.f.t.Errorf("a gap: %s", r.Name)
	case journal.OpOpen:
		fo.opens[r.Node]++
		fo.due[r.Node] = true
	case journal.OpRelease:
		fo.opens[r.Node]--
		fo.due[r.Node] = true
	case journal.OpTruncate, journal.OpData, journal.OpSync:
		fo.due[r.Node] = true
	case journal.OpCreate:
		delete(fo.watch, r.Node)
		delete(fo.digest, r.Node)
		fo.due[r.Node] = true
		fo.asked[r.Node] = r.Flags&journal.FlagInherited != 0
	case journal.OpLink:
		fo.asked[r.Node] = fo.asked[r.Node] || !known // it had no name
	}
	fo.tree.apply(r)
}

// check compares the tree below one directory of the root with the journal.
func (fo *follower) check(name string) {
	t := fo.f.t
	t.Helper()
	fo.catchUp()
	disk := listDisk(t, filepath.Join(fo.f.source, name))
	said := fo.tree.listFrom(fo.tree.entries[fo.tree.root][name])
	for path, d := range disk {
		s, ok := said[path]
		if !ok || s.Ident != d.Ident {
			continue // shown below
		}
		id := d.Ident
		if d.Attr.Mode&unix.S_IFMT == unix.S_IFREG {
			content := fo.look(filepath.Join(fo.f.source, name, path))
			looked := fo.due[id] || fo.watch[id] || fo.opens[id] > 0
			if last, ok := fo.digest[id]; ok && last != content && !looked {
				t.Errorf("the content of %s changed, and the journal does not say that it should be looked at", path)
			}
			fo.digest[id] = content
			if looked { // what the look found is what counts
				s.Attr, s.Xattrs = d.Attr, d.Xattrs
			}
		}
		if fo.asked[id] {
			s.Xattrs = d.Xattrs
		}
		said[path] = s
		fo.tree.attrs[id], fo.tree.xattrs[id] = s.Attr, maps.Clone(s.Xattrs)
	}
	clear(fo.asked)
	if diff := cmp.Diff(disk, said, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("the source (-) and the journal (+) differ:\n%s", diff)
	}
	fo.quiet(name, disk)
}

// look reads a file.
func (fo *follower) look(path string) [sha256.Size]byte {
	b, err := os.ReadFile(path)
	must(fo.f.t, err)
	return sha256.Sum256(b)
}

// quiet begins a new interval: what somebody still has open or mapped for writing is looked at again.
func (fo *follower) quiet(name string, disk map[string]seen) {
	clear(fo.due)
	for path, d := range disk {
		if d.Attr.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		f, err := os.Open(filepath.Join(fo.f.source, name, path))
		must(fo.f.t, err)
		still, err := source.Quiet(f)
		must(fo.f.t, err)
		must(fo.f.t, f.Close())
		fo.watch[d.Ident] = !still
	}
}
