package mirror

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/exclude"
	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// rig is the mirror of a directory; the test folds the records.
type rig struct {
	*Mirror
	t       *testing.T
	src     string
	root    *os.File
	cat     *catalog.Catalog
	changes int
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, src: t.TempDir()}
	var err error
	r.root, err = os.Open(r.src)
	check(t, err)
	t.Cleanup(func() { check(t, r.root.Close()) })
	r.cat, err = catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	check(t, err)
	t.Cleanup(func() { check(t, r.cat.Close()) })
	opt := Options{
		Source: r.root, Tree: tree.New(r.cat, 0), Pending: pending.NewSet(&pending.Timing{}, time.Now),
		Adopting: func() bool { return true }, Changed: func() { r.changes++ },
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
	}
	for _, c := range change {
		c(&opt)
	}
	r.Mirror = New(opt)
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.src, name) }

func (r *rig) mkdir(names ...string) {
	r.t.Helper()
	for _, name := range names {
		check(r.t, os.Mkdir(r.path(name), 0o755))
	}
}

func (r *rig) write(names ...string) {
	r.t.Helper()
	for _, name := range names {
		check(r.t, os.WriteFile(r.path(name), []byte(name), 0o644))
	}
}

func (r *rig) stat(name string) (journal.Ident, journal.Attr) {
	r.t.Helper()
	if name == "." {
		name = ""
	}
	id, attr, err := source.Stat(int(r.root.Fd()), name)
	check(r.t, err)
	return id, attr
}

// fold folds one record.
func (r *rig) fold(rec journal.Record) {
	r.t.Helper()
	check(r.t, r.tree.Within(func() error { return r.apply(&rec, r.folded) }))
}

func (r *rig) start() {
	r.t.Helper()
	id, attr := r.stat("")
	r.fold(journal.Record{Op: journal.OpStart, Node: id, Attr: attr})
}

// about is a record of an object in its directory.
func (r *rig) about(op journal.Op, name string) journal.Record {
	r.t.Helper()
	rec := journal.Record{Op: op, Name: filepath.Base(name)}
	rec.Node, rec.Attr = r.stat(name)
	rec.Parent, rec.ParentAttr = r.stat(filepath.Dir(name))
	return rec
}

// walk compares until nothing is left to compare.
func (r *rig) walk() {
	r.t.Helper()
	for range 100 {
		check(r.t, r.tree.Within(r.Walk))
		if !r.Walking() {
			return
		}
	}
	r.t.Fatalf("the walk does not end: %+v", r.Report())
}

// expect compares the paths of the tree.
func (r *rig) expect(want ...string) {
	r.t.Helper()
	var got []string
	var list func(dir batch.FileID, path string) error
	list = func(dir batch.FileID, path string) error {
		return r.tree.Children(dir, func(name string, id batch.FileID) error {
			got = append(got, path+name)
			n, err := r.tree.Get(id)
			if err != nil || !n.IsDir() {
				return err
			}
			return list(id, path+name+"/")
		})
	}
	check(r.t, r.tree.Within(func() error { return list(batch.Root, "") }))
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("the tree has (-want +got):\n%s", diff)
	}
}

// TestAdopt: a walk takes over a directory as it is, but for what is excluded; its files are pending.
func TestAdopt(t *testing.T) {
	x, err := exclude.New([]string{"*.tmp"})
	check(t, err)
	r := newRig(t, func(o *Options) { o.Exclude = x })
	r.mkdir("d")
	r.write("a", "d/b", "d/c.tmp")
	check(t, os.Link(r.path("a"), r.path("d/hard")))
	check(t, os.Symlink("a", r.path("soft")))
	r.start()
	if rep := r.Report(); rep.Why != whyAdoption || rep.Unchecked != 1 || rep.Gaps != 1 || !r.IsUnchecked(batch.Root) {
		t.Errorf("%+v", rep)
	}
	r.walk()
	if rep := r.Report(); rep.Why != "" || rep.Unchecked != 0 {
		t.Errorf("%+v", rep)
	}
	r.expect("a", "d", "d/b", "d/hard", "soft")
	if r.pending.Len() != 2 {
		t.Errorf("%d files are pending", r.pending.Len())
	}
}

// TestFold: each operation of the journal changes the tree as it changed the source.
func TestFold(t *testing.T) {
	r := newRig(t)
	r.start()
	r.walk()
	r.mkdir("d", "e")
	r.fold(r.about(journal.OpCreate, "d"))
	r.fold(r.about(journal.OpCreate, "e"))
	r.write("d/a", "e/b")
	r.fold(r.about(journal.OpCreate, "d/a"))
	r.fold(r.about(journal.OpCreate, "e/b"))
	r.expect("d", "d/a", "e", "e/b")

	move := func(from, to string, flags uint) {
		t.Helper()
		rec := r.about(journal.OpRename, from)
		if flags == unix.RENAME_EXCHANGE {
			rec.Flags |= journal.FlagExchange
			rec.Other, rec.OtherAttr = r.stat(to)
		}
		check(t, unix.Renameat2(int(r.root.Fd()), from, int(r.root.Fd()), to, flags))
		rec.NewName = filepath.Base(to)
		rec.NewParent, rec.NewParentAttr = r.stat(filepath.Dir(to))
		r.fold(rec)
	}
	move("d/a", "e/a", 0)
	r.expect("d", "e", "e/a", "e/b")
	move("d", "e/b", unix.RENAME_EXCHANGE)
	r.expect("d", "e", "e/a", "e/b") // the file is called d now
	check(t, r.tree.Within(func() error {
		id, _, err := r.tree.Find("d")
		check(t, err)
		if n, err := r.tree.Get(id); err != nil || !n.IsRegular() {
			t.Errorf("d is %+v, %v", n, err)
		}
		return nil
	}))
	move("d", "e/a", 0) // what was there ends
	r.expect("e", "e/a", "e/b")
	if r.Renames() != 3 || r.pending.Len() != 1 {
		t.Errorf("%d renames, %d pending", r.Renames(), r.pending.Len())
	}

	check(t, os.Link(r.path("e/a"), r.path("second")))
	r.fold(r.about(journal.OpLink, "second"))
	unlink := func(name string) {
		t.Helper()
		rec := r.about(journal.OpUnlink, name)
		check(t, os.Remove(r.path(name)))
		rec.Attr.Nlink--
		r.fold(rec)
	}
	unlink("e/a")
	r.expect("e", "e/b", "second")
	if r.pending.Len() != 1 {
		t.Error("the file ended with the first of its names")
	}
	unlink("second")
	r.expect("e", "e/b")
	if r.pending.Len() != 0 {
		t.Error("the file has no name any more and is pending")
	}
}

// TestUnknownIsPassedOver: what a record says of objects that the tree does not know is seen when their directory is compared.
func TestUnknownIsPassedOver(t *testing.T) {
	r := newRig(t)
	r.mkdir("d")
	r.write("d/a")
	r.start()
	before := r.changes
	r.fold(r.about(journal.OpCreate, "d/a"))
	r.fold(r.about(journal.OpData, "d/a"))
	r.expect()
	if r.changes != before || r.pending.Len() != 0 {
		t.Errorf("%d changes, %d pending", r.changes-before, r.pending.Len())
	}
	r.walk()
	r.expect("d", "d/a")
}

// TestGap: what happened unseen is found by a comparison: names that came, went and lead elsewhere.
func TestGap(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Adopting = func() bool { return false } })
	r.mkdir("d", "gone")
	r.write("d/a", "gone/b", "stays")
	r.start()
	r.walk()
	check(t, os.RemoveAll(r.path("gone")))
	check(t, os.Rename(r.path("d/a"), r.path("moved"))) //nolint:forbidigo // what an application does
	r.write("d/new")
	r.fold(journal.Record{Op: journal.OpGap, Name: "test"})
	if rep := r.Report(); rep.Why != whyGap || rep.Gaps != 2 {
		t.Errorf("%+v", rep)
	}
	r.walk()
	r.expect("d", "d/new", "moved", "stays")
}

// TestMovedDirectory: a directory that is not where the tree says, and of which no record tells, has its parent compared again.
func TestMovedDirectory(t *testing.T) {
	r := newRig(t)
	r.mkdir("d")
	r.write("d/a")
	r.start()
	r.walk()
	check(t, os.Rename(r.path("d"), r.path("e"))) //nolint:forbidigo // what an application does
	id, _ := r.stat("e")
	check(t, r.tree.Within(func() error {
		d, _, err := r.tree.ByIdent(id)
		r.uncheck(d)
		return err
	}))
	r.walk()
	r.expect("e", "e/a")
}

// TestFromExcluded: a directory that is renamed from an excluded name to one that is not is compared, whenever that happens.
func TestFromExcluded(t *testing.T) {
	x, err := exclude.New([]string{"*.tmp"})
	check(t, err)
	r := newRig(t, func(o *Options) { o.Exclude = x })
	r.mkdir("d.tmp")
	r.write("d.tmp/a")
	r.start()
	r.walk()
	r.expect()
	rec := r.about(journal.OpRename, "d.tmp")
	check(t, os.Rename(r.path("d.tmp"), r.path("d"))) //nolint:forbidigo // what an application does
	rec.NewName, rec.NewParent, rec.NewParentAttr = "d", rec.Parent, rec.ParentAttr
	r.fold(rec)
	r.walk()
	r.expect("d", "d/a")
}

// TestReboot: of the files that look as they were sealed, those of the last batches are read again after a boot.
func TestReboot(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Rebooted, o.LateFrom = true, 5 })
	r.write("early", "late")
	r.start()
	r.walk()
	for name, seq := range map[string]batch.Seq{"early": 4, "late": 5} {
		ident, attr := r.stat(name)
		check(t, r.tree.Within(func() error {
			id, _, err := r.tree.ByIdent(ident)
			check(t, err)
			n, err := r.tree.Edit(id)
			n.Take(&batch.Content{Clean: true, Size: attr.Size}, attr, nil)
			n.Seq = seq
			r.pending.Remove(id)
			return err
		}))
	}
	r.Compare()
	r.walk()
	ident, _ := r.stat("late")
	check(t, r.tree.Within(func() error {
		id, _, err := r.tree.ByIdent(ident)
		if r.pending.Len() != 1 || r.pending.Get(id) == nil {
			t.Errorf("%d files are read again, the late one: %v", r.pending.Len(), r.pending.Get(id) != nil)
		}
		return err
	}))
}

// TestWalkRests while many files wait to be read.
func TestWalkRests(t *testing.T) {
	r := newRig(t)
	r.start()
	if !r.WalkDue() {
		t.Error("nothing is to be compared")
	}
	for id := range batch.FileID(walkPendingMax) {
		r.pending.Mark(1000+id, pending.New, 0, r.folded)
	}
	check(t, r.tree.Within(r.Walk))
	if r.WalkDue() || !r.Walking() {
		t.Errorf("due: %v, %+v", r.WalkDue(), r.Report())
	}
}

// TestUnchecked: the catalog notes which directories are to be compared, those with deferred entries too, and forgets them again.
func TestUnchecked(t *testing.T) {
	r := newRig(t)
	r.start()
	noted := func(deferred ...batch.FileID) []batch.FileID {
		t.Helper()
		set := map[batch.FileID]struct{}{}
		for _, id := range deferred {
			set[id] = struct{}{}
		}
		check(t, r.cat.Update(func(tx *catalog.Tx) error { return r.SaveUnchecked(tx, set) }))
		rows := map[batch.FileID]bool{}
		check(t, r.cat.View(func(tx *catalog.Tx) error {
			return tx.EachUnchecked(func(id batch.FileID) error { rows[id] = true; return nil })
		}))
		return slices.Sorted(maps.Keys(rows))
	}
	if got := noted(7); !slices.Equal(got, []batch.FileID{batch.Root, 7}) {
		t.Errorf("noted: %v", got)
	}
	r.walk()
	if got := noted(7); !slices.Equal(got, []batch.FileID{7}) {
		t.Errorf("after the walk: %v", got)
	}
	again := New(r.opt)
	again.LoadUnchecked(7)
	if !again.Walking() || !again.IsUnchecked(7) || again.Report().Why != whyGap {
		t.Errorf("after a restart: %+v", again.Report())
	}
	if got := noted(); len(got) != 0 {
		t.Errorf("in the end: %v", got)
	}
}
