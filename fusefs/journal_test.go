package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
)

// tree is what the records add up to.
type tree struct {
	root    journal.Ident
	entries map[journal.Ident]map[string]journal.Ident
	attrs   map[journal.Ident]journal.Attr
	xattrs  map[journal.Ident]map[string]string
	targets map[journal.Ident]string
}

func newTree() *tree {
	return &tree{
		entries: map[journal.Ident]map[string]journal.Ident{}, attrs: map[journal.Ident]journal.Attr{},
		xattrs: map[journal.Ident]map[string]string{}, targets: map[journal.Ident]string{},
	}
}

func fold(records []journal.Record) *tree {
	tr := newTree()
	for i := range records {
		tr.apply(&records[i])
	}
	return tr
}

func (tr *tree) apply(r *journal.Record) {
	tr.attrs[r.Node] = r.Attr
	if !r.Parent.IsZero() {
		tr.attrs[r.Parent] = r.ParentAttr
	}
	switch r.Op {
	case journal.OpStart:
		tr.root = r.Node
	case journal.OpCreate:
		tr.enter(r.Parent, r.Name, r.Node)
		tr.targets[r.Node] = r.Target
		delete(tr.xattrs, r.Node)
	case journal.OpLink:
		tr.enter(r.Parent, r.Name, r.Node)
	case journal.OpUnlink:
		delete(tr.entries[r.Parent], r.Name)
		tr.gone(r.Node, &r.Attr)
	case journal.OpRename:
		delete(tr.entries[r.Parent], r.Name)
		if r.Flags&journal.FlagExchange != 0 {
			tr.enter(r.Parent, r.Name, r.Other)
		}
		if !r.Other.IsZero() {
			tr.attrs[r.Other] = r.OtherAttr
			tr.gone(r.Other, &r.OtherAttr)
		}
		tr.enter(r.NewParent, r.NewName, r.Node)
		tr.attrs[r.NewParent] = r.NewParentAttr
	case journal.OpSetXattr:
		if tr.xattrs[r.Node] == nil {
			tr.xattrs[r.Node] = map[string]string{}
		}
		tr.xattrs[r.Node][r.XattrName] = string(r.XattrValue)
	case journal.OpRemoveXattr:
		delete(tr.xattrs[r.Node], r.XattrName)
	}
}

// gone forgets what has lost its last name: where objects have no time of birth, another may come to go by the same Ident.
func (tr *tree) gone(id journal.Ident, left *journal.Attr) {
	if left.Nlink == 0 && id.Birth == 0 {
		delete(tr.targets, id)
		delete(tr.xattrs, id)
	}
}

func (tr *tree) enter(parent journal.Ident, name string, id journal.Ident) {
	if tr.entries[parent] == nil {
		tr.entries[parent] = map[string]journal.Ident{}
	}
	tr.entries[parent][name] = id
}

// seen is an object as the journal or the disk has it.
type seen struct {
	Ident  journal.Ident
	Attr   journal.Attr
	Xattrs map[string]string
	Target string
}

// list returns the tree by path.
func (tr *tree) list() map[string]seen { return tr.listFrom(tr.root) }

// listFrom returns what lies below a directory.
func (tr *tree) listFrom(top journal.Ident) map[string]seen {
	out := map[string]seen{}
	var walk func(dir journal.Ident, path string)
	walk = func(dir journal.Ident, path string) {
		out[path] = seen{dir, tr.attrs[dir], tr.xattrs[dir], tr.targets[dir]}
		for name, id := range tr.entries[dir] {
			walk(id, filepath.Join(path, name))
		}
	}
	walk(top, ".")
	return out
}

// listDisk returns the source by path.
func listDisk(t *testing.T, dir string) map[string]seen {
	t.Helper()
	source.Forget() // other tests have had disks by the same numbers
	out := map[string]seen{}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), path)
		defer closing(f)
		var s seen
		if s.Ident, s.Attr, err = source.Stat(fd, ""); err != nil {
			return err
		}
		xattrs, err := source.Xattrs(f)
		for name, value := range xattrs {
			if s.Xattrs == nil {
				s.Xattrs = map[string]string{}
			}
			s.Xattrs[name] = string(value)
		}
		if info.Mode()&os.ModeSymlink != 0 {
			s.Target, _ = os.Readlink(path)
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = s
		return err
	}))
	return out
}

// checkJournal compares what the journal says with what lies in the source. What the kernel reports by itself (RELEASE) comes
// a moment after close(2).
func (f *fixture) checkJournal() {
	f.t.Helper()
	poll(f.t, "every open for writing released", func() bool { return f.openForWrite() == 0 })
	if diff := cmp.Diff(listDisk(f.t, f.source), fold(f.records()).list(), cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("the source (-) and the journal (+) differ:\n%s", diff)
	}
}

func ops(records []journal.Record) []journal.Op {
	var all []journal.Op
	for _, r := range records {
		if r.Op != journal.OpRelease { // its moment is the kernel's to choose
			all = append(all, r.Op)
		}
	}
	return all
}

// step is one operation and what the journal says of it.
type step struct {
	name string
	do   func(f *fixture) error
	want []journal.Op
}

func steps() []step {
	const O = unix.O_WRONLY
	edit := func(f *fixture, name string, flags int, do func(fd int) error) error {
		fd, err := unix.Open(f.path(name), flags, 0o640)
		if err != nil {
			return err
		}
		defer closingFd(fd)
		return do(fd)
	}
	nothing := func(int) error { return nil }
	return []step{
		{"mkdir", func(f *fixture) error { return os.Mkdir(f.path("dir"), 0o755) }, []journal.Op{journal.OpCreate}},
		{"create", func(f *fixture) error { return edit(f, "file", O|unix.O_CREAT, nothing) }, []journal.Op{journal.OpCreate, journal.OpOpen}},
		{"create read-only", func(f *fixture) error { return edit(f, "empty", unix.O_RDONLY|unix.O_CREAT, nothing) }, []journal.Op{journal.OpCreate}},
		{"write", func(f *fixture) error {
			return edit(f, "file", O, func(fd int) error { _, err := unix.Write(fd, []byte("hello")); return err })
		}, []journal.Op{journal.OpOpen}},
		{"read", func(f *fixture) error { _, err := os.ReadFile(f.path("file")); return err }, nil},
		{"truncating open", func(f *fixture) error { return edit(f, "file", O|unix.O_TRUNC, nothing) }, []journal.Op{journal.OpOpen, journal.OpTruncate}},
		{"truncate by path", func(f *fixture) error { return os.Truncate(f.path("file"), 100) }, []journal.Op{journal.OpTruncate}},
		{"truncate by handle", func(f *fixture) error {
			return edit(f, "file", O, func(fd int) error { return unix.Ftruncate(fd, 50) })
		}, []journal.Op{journal.OpOpen, journal.OpTruncate}},
		{"fallocate", func(f *fixture) error {
			return edit(f, "file", O, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8192) })
		}, []journal.Op{journal.OpOpen, journal.OpData}},
		{"fsync", func(f *fixture) error { return edit(f, "file", O, unix.Fsync) }, []journal.Op{journal.OpOpen, journal.OpSync}},
		{"copy_file_range", func(f *fixture) error {
			return edit(f, "file", unix.O_RDONLY, func(from int) error {
				return edit(f, "empty", O, func(to int) error { _, err := unix.CopyFileRange(from, nil, to, nil, 4096, 0); return err })
			})
		}, []journal.Op{journal.OpOpen, journal.OpData}},
		{"chmod", func(f *fixture) error { return os.Chmod(f.path("file"), 0o4755) }, []journal.Op{journal.OpAttr}},
		{"chown", func(f *fixture) error { return os.Lchown(f.path("file"), 1000, 1001) }, []journal.Op{journal.OpAttr}},
		{"utimens", func(f *fixture) error { return os.Chtimes(f.path("file"), time.Unix(1, 2), time.Unix(3, 4)) }, []journal.Op{journal.OpAttr}},
		{"symlink", func(f *fixture) error { return os.Symlink("../far/away", f.path("dir/link")) }, []journal.Op{journal.OpCreate}},
		{"utimens of a link", func(f *fixture) error {
			return unix.Lutimes(f.path("dir/link"), []unix.Timeval{{Sec: 5}, {Sec: 6}})
		}, []journal.Op{journal.OpAttr}},
		{"chown of a link", func(f *fixture) error { return os.Lchown(f.path("dir/link"), 7, 8) }, []journal.Op{journal.OpAttr}},
		{"link", func(f *fixture) error { return os.Link(f.path("file"), f.path("dir/second")) }, []journal.Op{journal.OpLink}},
		{"fifo", func(f *fixture) error { return unix.Mkfifo(f.path("fifo"), 0o600) }, []journal.Op{journal.OpCreate}},
		{"device", func(f *fixture) error { return unix.Mknod(f.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }, []journal.Op{journal.OpCreate}},
		{"set xattr", func(f *fixture) error { return unix.Setxattr(f.path("file"), "user.colour", []byte("blue"), 0) }, []journal.Op{journal.OpSetXattr}},
		{"set xattr of a link", func(f *fixture) error { return unix.Lsetxattr(f.path("dir/link"), "trusted.x", []byte("y"), 0) }, []journal.Op{journal.OpSetXattr}},
		{"set another", func(f *fixture) error { return unix.Setxattr(f.path("dir"), "user.x", []byte{0, 255}, 0) }, []journal.Op{journal.OpSetXattr}},
		{"remove xattr", func(f *fixture) error { return unix.Removexattr(f.path("dir"), "user.x") }, []journal.Op{journal.OpRemoveXattr}},
		{"rename", func(f *fixture) error { return unix.Rename(f.path("empty"), f.path("dir/moved")) }, []journal.Op{journal.OpRename}},
		{"rename over", func(f *fixture) error { return unix.Rename(f.path("dir/moved"), f.path("fifo")) }, []journal.Op{journal.OpRename}},
		{"rename of a directory", func(f *fixture) error { return unix.Rename(f.path("dir"), f.path("folder")) }, []journal.Op{journal.OpRename}},
		{"rename in vain", func(f *fixture) error { return unix.Rename(f.path("file"), f.path("folder/second")) }, nil},
		{"exchange", func(f *fixture) error {
			return unix.Renameat2(unix.AT_FDCWD, f.path("folder/link"), unix.AT_FDCWD, f.path("null"), unix.RENAME_EXCHANGE)
		}, []journal.Op{journal.OpRename}},
		{"whiteout", func(f *fixture) error {
			return unix.Renameat2(unix.AT_FDCWD, f.path("fifo"), unix.AT_FDCWD, f.path("gone"), unix.RENAME_WHITEOUT)
		}, []journal.Op{journal.OpRename, journal.OpCreate}},
		{"nameless file", func(f *fixture) error {
			return edit(f, ".", unix.O_TMPFILE|unix.O_RDWR, func(fd int) error {
				return unix.Linkat(unix.AT_FDCWD, procPath(fd), unix.AT_FDCWD, f.path("named"), unix.AT_SYMLINK_FOLLOW)
			})
		}, []journal.Op{journal.OpOpen, journal.OpLink}},
		{"unlink one of two", func(f *fixture) error { return os.Remove(f.path("file")) }, []journal.Op{journal.OpUnlink}},
		{"unlink", func(f *fixture) error { return os.Remove(f.path("gone")) }, []journal.Op{journal.OpUnlink}},
		{"rmdir", func(f *fixture) error {
			if err := os.Mkdir(f.path("short"), 0o700); err != nil {
				return err
			}
			return os.Remove(f.path("short"))
		}, []journal.Op{journal.OpCreate, journal.OpUnlink}},
		{"what fails", func(f *fixture) error {
			for _, err := range []error{
				os.Mkdir(f.path("folder"), 0o755),
				os.Remove(f.path("nowhere")),
				os.Remove(f.path("folder")),
				os.Link(f.path("nowhere"), f.path("x")),
				unix.Removexattr(f.path("folder"), "user.none"),
				unix.Renameat2(unix.AT_FDCWD, f.path("named"), unix.AT_FDCWD, f.path("folder"), unix.RENAME_NOREPLACE),
			} {
				if err == nil {
					return errors.New("it did not fail")
				}
			}
			return nil
		}, nil},
	}
}

// TestJournalOfEveryOperation checks after each operation that the journal has the records it should have, and in the end
// that all of them together say exactly what lies in the source.
func TestJournalOfEveryOperation(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			for _, s := range steps() {
				got := ops(f.since(func() {
					if err := s.do(f); err != nil {
						t.Fatalf("%s: %v", s.name, err)
					}
				}))
				want := s.want
				if mode == "served" && s.name == "write" {
					want = append(want, journal.OpData)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: wanted (-) and got (+) operations:\n%s", s.name, diff)
				}
			}
			f.checkJournal()
		})
	}
}

// TestJournalStart: the first record tells of the root.
func TestJournalStart(t *testing.T) {
	f := mounted(t)
	first := f.records()[0]
	ident, attr, err := source.Stat(unix.AT_FDCWD, f.source)
	must(t, err)
	if first.Op != journal.OpStart || first.Node != ident || first.Attr != attr {
		t.Errorf("first record is %+v, want OpStart of %+v %+v", first, ident, attr)
	}
}

// TestJournalBeforeAnswer: when open(2) returns, the record is there.
func TestJournalBeforeAnswer(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.path("file"), nil, 0o644))
	for range 50 {
		n := len(f.records())
		fd, err := unix.Open(f.path("file"), unix.O_WRONLY, 0)
		must(t, err)
		found := false
		for _, r := range f.records()[n:] {
			found = found || r.Op == journal.OpOpen
		}
		must(t, unix.Close(fd))
		if !found {
			t.Fatal("open for writing was answered before it was journaled")
		}
	}
}

// TestServedWritesAreTold: a handle that is written to for long is reported again, but not with every write.
func TestServedWritesAreTold(t *testing.T) {
	f := mounted(t, served)
	file, err := os.Create(f.path("log"))
	must(t, err)
	defer closing(file)
	began, took := time.Now(), time.Duration(0)
	records := f.since(func() {
		for ; took < 2500*time.Millisecond; took = time.Since(began) {
			_, err := file.WriteString("a line\n")
			must(t, err)
		}
	})
	if n, most := len(records), int(took/time.Second)+2; n < 2 || n > most {
		t.Errorf("%d records of %v of writing, want 2 to %d", n, took, most)
	}
}
