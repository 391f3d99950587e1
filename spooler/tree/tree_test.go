package tree

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/journal"
)

const (
	dirMode  = unix.S_IFDIR | 0o755
	fileMode = unix.S_IFREG | 0o644
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a tree over a catalog that nothing was sealed into yet, and the files of both by their paths.
type rig struct {
	*Tree
	t   *testing.T
	ids map[string]batch.FileID
	seq batch.Seq
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cat, err := catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	check(t, err)
	t.Cleanup(func() { check(t, cat.Close()) })
	r := &rig{t: t, Tree: New(cat, 0), ids: map[string]batch.FileID{"": batch.Root}}
	r.within(func() error {
		_, err := r.SetRoot(journal.Ident{Ino: 1}, journal.Attr{Mode: dirMode})
		return err
	})
	return r
}

func (r *rig) within(fn func() error) {
	r.t.Helper()
	check(r.t, r.Within(fn))
}

// make adds a file, or a directory, with content.
func (r *rig) make(path string, mode uint32) *Node {
	r.t.Helper()
	var n *Node
	r.within(func() error {
		n = r.Add(journal.Ident{Ino: uint64(r.Next())}, journal.Attr{Mode: mode}, "")
		if n.IsRegular() {
			n.Take(&batch.Content{Clean: true}, n.Attr, nil)
		}
		r.ids[path] = n.ID
		return r.Link(r.parent(path), filepath.Base(path), n.ID)
	})
	return n
}

func (r *rig) parent(path string) batch.FileID {
	if dir := filepath.Dir(path); dir != "." {
		return r.ids[dir]
	}
	return batch.Root
}

// seal commits what lies over the catalog, and returns what was committed.
func (r *rig) seal() *Change {
	r.t.Helper()
	var c *Change
	r.within(func() (err error) {
		c, err = r.Prepare()
		return err
	})
	r.seq++
	check(r.t, r.cat.Update(func(tx *catalog.Tx) error { return r.Commit(tx, c, r.seq) }))
	r.Settle(c)
	return c
}

// TestSealed: what is committed lies over the catalog no more, and is the same tree.
func TestSealed(t *testing.T) {
	r := newRig(t)
	r.make("a", dirMode)
	r.make("a/f", fileMode)
	c := r.seal()
	if len(c.ChangedInodes()) != 3 || len(c.ChangedEntries()) != 2 || len(c.Deferred) != 0 || !r.IsSealed() {
		t.Errorf("%+v; sealed: %v", c, r.IsSealed())
	}
	r.within(func() error {
		id, ok, err := r.Find("a/f")
		if !ok || id != r.ids["a/f"] {
			t.Errorf("found %d, %v", id, ok)
		}
		n, err2 := r.Get(id)
		if n == nil || n.Dirty() || n.Seq != 1 {
			t.Errorf("%+v, %v", n, err2)
		}
		return err
	})
	r.within(func() error { return r.Link(r.ids["a"], "f", 0) })
	r.within(func() error { return r.Drop(r.ids["a/f"], func(batch.FileID) {}) })
	if c := r.seal(); c.Removals != 1 || len(c.ChangedInodes()) != 0 || !r.IsSealed() {
		t.Errorf("%+v; sealed: %v", c, r.IsSealed())
	}
	check(t, r.cat.View(func(tx *catalog.Tx) error {
		if _, there, err := tx.Inode(r.ids["a/f"]); there || err != nil {
			t.Errorf("the catalog has the removed file: %v, %v", there, err)
		}
		return nil
	}))
}

// TestDeferred: a name whose file has no content yet is left out together with what it replaces, until it has some.
func TestDeferred(t *testing.T) {
	r := newRig(t)
	r.make("f", fileMode)
	r.seal()
	var n *Node
	r.within(func() error {
		n = r.Add(journal.Ident{Ino: 99}, journal.Attr{Mode: fileMode}, "")
		return r.Link(batch.Root, "f", n.ID)
	})
	c := r.seal()
	if _, deferred := c.Deferred[batch.Root]; !deferred || len(c.Entries) != 0 || r.IsSealed() {
		t.Errorf("%+v; sealed: %v", c, r.IsSealed())
	}
	r.within(func() error {
		if got := slices.Collect(r.UnsealedIn(batch.Root)); !slices.Equal(got, []batch.FileID{n.ID}) {
			t.Errorf("not sealed: %v", got)
		}
		return nil
	})
	n.Take(&batch.Content{Clean: true}, n.Attr, nil)
	if c := r.seal(); len(c.Deferred) != 0 || len(c.Entries) != 1 || !r.IsSealed() {
		t.Errorf("%+v; sealed: %v", c, r.IsSealed())
	}
}

// TestAddRest: the first batch of an epoch that continues a tree holds all of it, each name and file once.
func TestAddRest(t *testing.T) {
	r := newRig(t)
	r.make("a", dirMode)
	r.make("a/f", fileMode)
	r.make("gone", fileMode)
	r.seal()
	r.make("a/g", fileMode)
	r.within(func() error { return r.Link(batch.Root, "gone", 0) })
	r.within(func() error { return r.Drop(r.ids["gone"], func(batch.FileID) {}) })
	r.within(func() error {
		c, err := r.Prepare()
		check(t, err)
		changed := len(c.ChangedEntries())
		check(t, r.AddRest(c))
		if changed != 2 || len(c.ChangedEntries()) != changed {
			t.Errorf("%d entries changed, %d when the rest is there", changed, len(c.ChangedEntries()))
		}
		got := map[string]batch.FileID{}
		for _, e := range c.Entries {
			got[fmt.Sprintf("%d/%s", e.Parent, e.Name)] = e.ID
		}
		a := r.ids["a"]
		want := map[string]batch.FileID{"1/a": a, fmt.Sprintf("%d/f", a): r.ids["a/f"], fmt.Sprintf("%d/g", a): r.ids["a/g"], "1/gone": 0}
		if diff := cmp.Diff(want, got); diff != "" || len(c.Entries) != len(got) {
			t.Error(diff)
		}
		var ids []batch.FileID
		for i := range c.Inodes {
			ids = append(ids, c.Inodes[i].ID)
		}
		slices.Sort(ids)
		if want := []batch.FileID{batch.Root, a, r.ids["a/f"], r.ids["a/g"]}; !slices.Equal(ids, want) {
			t.Errorf("inodes %v, want %v", ids, want)
		}
		return nil
	})
}

// TestManyPaths: paths found together are those found one by one.
func TestManyPaths(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"a", "a/b", "a/b/c"} {
		r.make(path, dirMode)
	}
	for _, path := range []string{"top", "a/1", "a/2", "a/b/3", "a/b/c/4", "a/b/c/5"} {
		r.make(path, fileMode)
	}
	r.within(func() error {
		return r.ManyPaths(func() error {
			for range 2 {
				for _, want := range slices.Sorted(maps.Keys(r.ids)) {
					if path, ok, err := r.Path(r.ids[want]); err != nil || !ok || path != want {
						t.Errorf("file %d: %q, %v, %v, want %q", r.ids[want], path, ok, err, want)
					}
				}
			}
			return nil
		})
	})
	r.within(func() error {
		for want, id := range r.ids {
			if path, ok, err := r.Path(id); err != nil || !ok || path != want {
				t.Errorf("file %d alone: %q, %v, %v, want %q", id, path, ok, err, want)
			}
		}
		return nil
	})
}

// TestKnew: a name that went is known as long as it is remembered, and until its removal is sealed; what may lie where nobody has
// looked is not denied.
func TestKnew(t *testing.T) {
	r := newRig(t)
	r.make("d", dirMode)
	r.make("d/f", fileMode)
	r.seal()
	knew := func(path string, want bool, when string, unseen ...batch.FileID) {
		t.Helper()
		r.within(func() error {
			got, err := r.Knew(path, func(dir batch.FileID) bool { return slices.Contains(unseen, dir) })
			if got != want || err != nil {
				t.Errorf("%s, %s: %v, %v", path, when, got, err)
			}
			return nil
		})
	}
	knew("d/f", true, "it is there")
	knew("d/never", false, "it never was")
	knew("d/never", true, "its directory has not been compared", r.ids["d"])
	r.within(func() error { return r.Link(r.ids["d"], "f", 0) })
	knew("d/f", true, "it went")
	r.removed = removedSet{}
	knew("d/f", true, "it went, and its removal is not sealed")
	r.seal()
	knew("d/f", false, "it went long ago")
}

func TestRemovedSetIsBounded(t *testing.T) {
	var set removedSet
	for i := range removedMax + 5 {
		set.add(Key{batch.FileID(i), "x"})
		set.add(Key{batch.FileID(i), "x"})
	}
	_, oldest := set.keys[Key{4, "x"}]
	_, kept := set.keys[Key{5, "x"}]
	if len(set.keys) != removedMax || len(set.ring) != removedMax || oldest || !kept {
		t.Errorf("%d keys, %d in the ring, %v, %v", len(set.keys), len(set.ring), oldest, kept)
	}
}
