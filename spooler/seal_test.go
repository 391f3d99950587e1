package spooler

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/internal/offline"
	"slipway/internal/restore"
	"slipway/spooler/seal"
)

// TestAdopt seals a directory that existed before the first mount.
func TestAdopt(t *testing.T) {
	r := newRig(t)
	check(t, os.MkdirAll(filepath.Join(r.src, "a/b"), 0o755))
	check(t, os.WriteFile(filepath.Join(r.src, "a/b/file"), []byte("content"), 0o640))
	check(t, os.Symlink("b/file", filepath.Join(r.src, "a/link")))
	r.mount()
	r.open()
	r.drain()
	if !r.s.vol.history.Meta().Complete {
		t.Error("the adopted tree is not complete")
	}
	r.restored()
}

// TestFold seals what records say: names, renames, links, removals, contents.
func TestFold(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.drain()
	steps := []func(){
		func() { r.mkdir("d"); r.create("d/one", "1"); r.symlink("one", "d/link") },
		func() { r.write("d/one", "one again") },
		func() { r.rename("d", "e", 0); r.create("e/two", "2") },
		func() { r.link("e/one", "hard") },
		func() { r.create("tmp", "new content"); r.rename("tmp", "e/two", 0) },
		func() { r.rename("e/one", "e/two", unix.RENAME_EXCHANGE) },
		func() { r.remove("hard"); r.remove("e/link") },
		func() { r.create("e/short", "lived"); r.remove("e/short") },
		func() { r.mkdir("x"); r.mkdir("x/y"); r.rename("e", "x/y/e", 0) },
		func() { r.remove("x/y/e/one"); r.remove("x/y/e/two"); r.remove("x/y/e"); r.remove("x/y") },
	}
	for i, step := range steps {
		step()
		r.drain()
		if t.Failed() {
			t.Fatalf("after step %d", i)
		}
		r.restored()
	}
}

// TestRestart closes the spooler between folding and sealing, and between two batches.
func TestRestart(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	r.close()
	r.create("b", "2")
	r.mkdir("d")
	r.rename("a", "d/a", 0)
	r.open()
	if _, err := r.s.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.close()
	r.create("d/c", "3")
	r.open()
	r.drain()
	r.restored()
	if e := r.s.vol.history.Meta().Epoch; e != 1 {
		t.Errorf("epoch %d after restarts, want 1", e)
	}
}

// TestGap changes the source while nothing is mounted.
func TestGap(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.mkdir("d")
	r.create("d/keep", "same")
	r.create("d/rewritten", "before")
	r.create("gone", "x")
	r.drain()
	r.close()
	r.umount()
	in := func(p string) string { return filepath.Join(r.src, p) }
	info, err := os.Stat(in("d/rewritten"))
	check(t, err)
	check(t, os.WriteFile(in("d/rewritten"), []byte("AFTER!"), 0o644))
	check(t, os.Chtimes(in("d/rewritten"), info.ModTime(), info.ModTime()))
	check(t, os.Remove(in("gone")))
	check(t, os.Rename(in("d"), in("moved"))) //nolint:forbidigo // the test moves it in the source
	check(t, os.WriteFile(in("created"), []byte("new"), 0o644))
	before := r.fileID("d/keep")
	r.mount()
	r.open()
	r.drain()
	r.restored()
	if after := r.fileID("moved/keep"); after != before {
		t.Errorf("a moved file has id %d, had %d", after, before)
	}
}

// TestAt restores an earlier batch.
func TestAt(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "first")
	r.drain()
	first := r.s.vol.history.Meta().Head
	want := listing(t, r.src)
	r.write("a", "second")
	r.create("b", "x")
	r.drain()
	r.restored()
	got := listing(t, r.restoreTo(r.cfg.Spool.Dir, restore.At{Seq: first}))
	if len(got) != len(want) || got["a"] != want["a"] {
		t.Errorf("at batch %d: %v, want %v", first, got, want)
	}
}

// TestLostCatalog begins a new epoch and loses nothing.
func TestLostCatalog(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "first")
	r.drain()
	head := r.s.vol.history.Meta().Head
	r.close()
	check(t, os.Truncate(filepath.Join(r.cfg.State, "catalog.db"), 100))
	r.create("b", "second")
	r.open()
	r.drain()
	if m := r.s.vol.history.Meta(); m.Epoch != 2 || m.Head <= head || m.Base != head+1 {
		t.Errorf("epoch %d, head %d, base %d after losing the catalog at batch %d", m.Epoch, m.Head, m.Base, head)
	}
	r.restored()
	if got := listing(t, r.restoreTo(r.cfg.Spool.Dir, restore.At{Seq: head})); got["b"] != "" || got["a"] == "" {
		t.Errorf("the earlier epoch restores %v", got)
	}
}

// fileID returns the id of the file at a path.
func (r *rig) fileID(path string) batch.FileID {
	r.t.Helper()
	if r.s == nil {
		r.open()
		defer r.close()
	}
	var id batch.FileID
	check(r.t, r.s.vol.tree.Within(func() error {
		found, ok, err := r.s.vol.tree.Find(path)
		if !ok {
			r.t.Fatalf("%q is not in the tree", path)
		}
		id = found
		return err
	}))
	return id
}

// TestWrittenThenRenamed: a record about a name brings the attributes of content that was not captured yet. The file is still to
// be read.
func TestWrittenThenRenamed(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "first")
	r.drain()
	r.write("a", "second, longer")
	r.rename("a", "b", 0)
	r.drain()
	r.restored()
}

// TestJournalDoesNotGrow: files that are opened for writing and closed as they were make no batch, and the journal is consumed
// all the same.
func TestJournalDoesNotGrow(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "never changed again")
	r.drain()
	head, before := r.s.vol.history.Meta().Head, r.s.vol.history.Meta().Position
	id, attr := r.stat("a")
	for {
		end, err := r.s.vol.position()
		check(t, err)
		if end.Offset >= before.Offset+seal.AdvanceBytes {
			break
		}
		var rs []*journal.Record
		for range 100 {
			rs = append(rs, &journal.Record{Op: journal.OpOpen, Node: id, Attr: attr}, &journal.Record{Op: journal.OpRelease, Node: id, Attr: attr})
		}
		r.w.Append(rs...)
	}
	r.drain()
	if m := r.s.vol.history.Meta(); m.Head != head || m.Position.Offset < before.Offset+seal.AdvanceBytes {
		t.Errorf("head %d (was %d), position %d (was %d)", m.Head, head, m.Position.Offset, before.Offset)
	}
	r.close()
	r.write("a", "changed after all")
	r.open()
	r.drain()
	r.restored()
}

// TestAskedAtOnce: a question about a file that was made just now is answered from the journal.
func TestAskedAtOnce(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.drain()
	r.create("new", "x")
	e, err := r.s.Explain(t.Context(), "new")
	if err != nil || e.Stage != "pending" {
		t.Errorf("explain of a file that was made just now: %+v, %v", e, err)
	}
	r.create("newer", "x")
	rows, err := r.s.Pending(t.Context(), 0)
	if err != nil || len(rows) != 2 {
		t.Errorf("pending: %+v, %v", rows, err)
	}
}

// TestEndInOrder: what was opened and closed as it was is no change to whoever looks when the spooler has ended in order; what is not
// sealed is still one.
func TestEndInOrder(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "content")
	r.drain()
	id, attr := r.stat("a")
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr}, &journal.Record{Op: journal.OpRelease, Node: id, Attr: attr})
	r.drain()
	if lists := r.pendingAfterRest(); len(lists) != 0 {
		t.Errorf("pending: %v", lists)
	}
	r.open()
	r.write("a", "other content")
	_, err := r.s.Step(t.Context())
	check(t, err)
	if lists := r.pendingAfterRest(); len(lists) != 1 || lists[0].Path != "a" {
		t.Errorf("pending: %v", lists)
	}
	r.open()
	r.drain()
	r.restored()
}

// pendingAfterRest ends the spooler in order and asks the disk.
func (r *rig) pendingAfterRest() []control.PendingRow {
	r.t.Helper()
	check(r.t, r.s.rest())
	r.close()
	v, err := offline.Open(r.t.Context(), r.cfg, control.Dead)
	check(r.t, err)
	defer func() { check(r.t, v.Close()) }()
	rows, err := v.Pending(r.t.Context(), 0)
	check(r.t, err)
	return rows
}
