package restore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
)

// writer collects the records of one batch.
type writer struct {
	t    testing.TB
	v    *volumetest.Volume
	body *batch.Body
	next batch.FileID
}

const testTime = int64(1767225600_123456789)

func newWriter(t testing.TB, v *volumetest.Volume) *writer {
	w := &writer{t: t, v: v, next: 2, body: &batch.Body{}}
	w.body.Inodes = append(w.body.Inodes, batch.Inode{ID: batch.Root, Mode: unix.S_IFDIR | 0o750, Mtime: testTime})
	return w
}

// add makes an inode with an entry; change sets what differs from the usual.
func (w *writer) add(parent batch.FileID, name string, mode uint32, change func(*batch.Inode)) batch.FileID {
	in := batch.Inode{ID: w.next, Mode: mode, Mtime: testTime + int64(w.next)}
	w.next++
	if change != nil {
		change(&in)
	}
	w.body.Inodes = append(w.body.Inodes, in)
	w.link(parent, name, in.ID)
	return in.ID
}

func (w *writer) link(parent batch.FileID, name string, id batch.FileID) {
	w.body.Entries = append(w.body.Entries, batch.Entry{Parent: parent, Name: name, ID: id})
}

func (w *writer) dir(parent batch.FileID, name string) batch.FileID {
	return w.add(parent, name, unix.S_IFDIR|0o755, nil)
}

func (w *writer) file(parent batch.FileID, name, data string) batch.FileID {
	return w.add(parent, name, unix.S_IFREG|0o644, func(in *batch.Inode) { in.Content = w.v.Content(data) })
}

func (w *writer) seal() *batch.Sealed { return w.v.Seal(w.body, nil) }

func load(t testing.TB, src restore.Source, at restore.At) *restore.Tree {
	t.Helper()
	tree, err := restore.Load(context.Background(), src, at)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// clean restores and wants nothing to be listed.
func clean(t *testing.T, tree *restore.Tree, opt restore.Options) *restore.Result {
	t.Helper()
	res, err := tree.Restore(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range res.Failed {
		t.Errorf("failed: %q: %v", f.Path, f.Err)
	}
	if len(res.Kept)+len(res.Unclean)+len(res.Earlier) > 0 {
		t.Errorf("kept %q, unclean %q, earlier %q", res.Kept, res.Unclean, res.Earlier)
	}
	return res
}

// scan describes everything below a directory.
func scan(t testing.TB, root string) map[string]string { t.Helper(); return volumetest.Scan(t, root) }

func paths(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func same(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("wanted, got:\n%s", d)
	}
}

func TestListAndCat(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	sub := w.dir(1, "sub")
	id := w.file(sub, "hello\n\"'\xff", "hello, world")
	w.link(1, "twin", id)
	w.add(1, "link", unix.S_IFLNK|0o777, func(in *batch.Inode) { in.Target = "sub/\xfe" })
	w.add(1, "sparse", unix.S_IFREG|0o600, func(in *batch.Inode) {
		in.Content = v.Content("abcdef")
		in.Content.Size, in.Content.Holes = 16, []batch.Hole{{Offset: 2, Len: 3}, {Offset: 9, Len: 7}}
	})
	w.add(1, "pending", unix.S_IFREG|0o600, nil)
	w.seal()
	tree := load(t, v.Source(), restore.At{})

	rows, err := tree.List("/")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s %d %d %s%s", r.Path, r.Size, r.Links, r.State, r.Target))
	}
	same(t, []string{"link 0 1 sub/\xfe", "pending 0 1 pending", "sparse 16 1 ", "sub 0 1 ", "twin 12 2 "}, got)
	if rows, err := tree.List("sub/"); err != nil || len(rows) != 1 || rows[0].Path != "sub/hello\n\"'\xff" {
		t.Errorf("%v, %v", rows, err)
	}
	var walked []string
	if err := tree.Walk("", func(r restore.Row) error { walked = append(walked, r.Path); return r.Err }); err != nil {
		t.Error(err)
	}
	same(t, []string{"", "link", "pending", "sparse", "sub", "sub/hello\n\"'\xff", "twin"}, walked)

	for path, want := range map[string]string{"twin": "hello, world", "./sub//hello\n\"'\xff": "hello, world", "sparse": "ab\x00\x00\x00cdef\x00\x00\x00\x00\x00\x00\x00"} {
		var b strings.Builder
		if err := tree.Cat(context.Background(), path, &b); err != nil || b.String() != want {
			t.Errorf("cat %q: %q, %v", path, b.String(), err)
		}
	}
	for path, want := range map[string]error{
		"sub": restore.ErrIsDir, "link": restore.ErrPath, "pending": restore.ErrPending, "none": restore.ErrNotFound,
		"twin/x": restore.ErrNotFound, "../x": restore.ErrPath, "sub/../twin": restore.ErrPath,
	} {
		if err := tree.Cat(context.Background(), path, &strings.Builder{}); !errors.Is(err, want) {
			t.Errorf("cat %q: %v, want %v", path, err, want)
		}
	}
}

// Later records win, gone entries are gone, unreachable inodes are not seen.
func TestFold(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	a, b := w.dir(1, "a"), w.dir(1, "b")
	f := w.file(a, "f", "one")
	w.file(a, "gone", "x")
	w.seal()
	v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: a, Name: "f"}, {Parent: a, Name: "gone"}, {Parent: b, Name: "g", ID: f}}}, nil)
	two := v.Content("two!")
	v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: f, Mode: unix.S_IFREG | 0o600, Content: two}}}, nil)
	v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "a"}}}, nil)
	for seq, want := range map[batch.Seq]string{1: "a a/f:3 a/gone:1 b", 2: "a b b/g:3", 3: "a b b/g:4", 4: "b b/g:4"} {
		var got []string
		err := load(t, v.Source(), restore.At{Seq: seq}).Walk("", func(r restore.Row) error {
			if r.Size > 0 {
				got = append(got, fmt.Sprintf("%s:%d", r.Path, r.Size))
			} else if r.Path != "" {
				got = append(got, r.Path)
			}
			return nil
		})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("batch %d: %v, %v, want %q", seq, got, err, want)
		}
	}
}

// A damaged newest batch leaves the state before it, and says so.
func TestFallsBackBeforeDamage(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	w.file(1, "one", "1")
	w.seal()
	late := v.Content("2")
	s := v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: 9, Mode: unix.S_IFREG, Content: late}}, Entries: []batch.Entry{{Parent: 1, Name: "two", ID: 9}}}, nil)
	v.Seal(&batch.Body{}, nil)
	if err := os.Remove(v.Dirs[0] + "/" + batch.Path(1, s.Envelope.First, s.Envelope.Last)); err != nil {
		t.Fatal(err)
	}
	tree := load(t, v.Source(), restore.At{})
	if tree.Seq != 1 || len(tree.Incomplete) == 0 || !strings.Contains(tree.Incomplete[0], "newer batches than 1") {
		t.Errorf("batch %d, incomplete: %q", tree.Seq, tree.Incomplete)
	}
}

// describe is how scan begins to describe a row.
func describe(r restore.Row) string {
	d := fmt.Sprintf("%o %d:%d %d", r.Mode, r.UID, r.GID, r.Mtime.UnixNano())
	return d
}

func sum(data string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(data)))[:12] }
