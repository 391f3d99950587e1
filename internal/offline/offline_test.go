package offline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/hold"
	"slipway/internal/journal"
	"slipway/internal/restore/volumetest"
	"slipway/internal/shard"
	"slipway/internal/state"
	"slipway/internal/store"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	isDirectory = 0o040755
	isFile      = 0o100644
)

func ident(ino uint64) journal.Ident { return journal.Ident{FS: 1, Ino: ino, Birth: 1} }

// primary makes a state directory with a volume that was never mounted.
func primary(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	must(t, state.Dir(dir).WriteVolume(state.Volume{Name: "projects", ID: batch.NewVolumeID()}))
	return &config.Config{Primary: &config.Primary{
		Volume: "projects", Node: "alpha", State: dir, Spool: config.Spool{Dir: dir + "/spool", Cap: 1 << 30}, Recipients: []string{"age1"},
		Cache: config.Store{Name: "cache1", URL: "/cache"}, Backups: []config.Store{{Name: "vault1", URL: "/vault1"}},
	}}
}

// seal writes a catalog: reports/ with a and b sealed in batches 1 and 2, and c of batch 2 pending once more.
func seal(t *testing.T, c *config.Config, at journal.Position) {
	t.Helper()
	cat, err := catalog.Open(state.Dir(c.Primary.State).Catalog())
	must(t, err)
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	inode := func(id batch.FileID, mode uint32, seq batch.Seq) *catalog.Inode {
		in := &catalog.Inode{Inode: batch.Inode{ID: id, Mode: mode, Mtime: now.UnixNano()}, Ident: ident(uint64(id)), Seq: seq}
		in.Attr = journal.Attr{Mode: mode, Nlink: 1}
		if mode == isFile {
			in.Size, in.Attr.Size, in.Content = 5, 5, &batch.Content{Size: 5, Clean: true, Holes: []batch.Hole{{Offset: 0, Len: 5}}}
		}
		return in
	}
	must(t, cat.Update(func(tx *catalog.Tx) error {
		return errors.Join(
			tx.SetMeta(catalog.Meta{VolumeID: batch.NewVolumeID(), Epoch: 1, Head: 2, Base: 1, SealedAt: now, Complete: true, Position: at, NextFile: 10}),
			tx.PutInode(inode(batch.Root, isDirectory, 1)), tx.PutInode(inode(2, isDirectory, 1)), tx.PutInode(inode(3, isFile, 1)),
			tx.PutInode(inode(4, isFile, 2)), tx.PutInode(inode(5, isFile, 2)),
			tx.PutEntry(batch.Root, "reports", 2), tx.PutEntry(2, "a", 3), tx.PutEntry(2, "b", 4), tx.PutEntry(batch.Root, "c", 5),
			tx.PutBatch(catalog.BatchInfo{Epoch: 1, Seq: 1, SealedAt: now, Files: 2, Bytes: 5, Shards: 1}),
			tx.PutBatch(catalog.BatchInfo{Epoch: 1, Seq: 2, SealedAt: now, Files: 2, Bytes: 10, Shards: 1}),
			tx.PutPending(5, catalog.Pending{Since: now, Reason: "written", Bytes: 7}),
			tx.PutUnchecked(2),
			tx.PutShard(shard.Digest{1}, catalog.ShardInfo{Size: 100, Seq: 1, Evicted: true}), tx.PutShard(shard.Digest{2}, catalog.ShardInfo{Size: 50, Seq: 2}),
		)
	}), cat.Close())
}

// write appends records to a new instance of the journal, whose writer is then dead, and returns the position before them.
func write(t *testing.T, c *config.Config, records ...*journal.Record) journal.Position {
	t.Helper()
	dir := state.Dir(c.Primary.State).Journal()
	w, err := journal.Create(dir)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx) })
	w.Append(&journal.Record{Op: journal.OpStart, Node: ident(1), Attr: journal.Attr{Mode: isDirectory}})
	before, err := journal.End(dir)
	must(t, err)
	for _, r := range records {
		w.Append(r)
	}
	stop()
	_ = g.Wait()
	must(t, w.Close())
	return before
}

func reach(t *testing.T, c *config.Config) Answers {
	t.Helper()
	r, err := Reach(t.Context(), c)
	must(t, err)
	t.Cleanup(r.Close)
	return r.Answers
}

func TestNeverMounted(t *testing.T) {
	c := primary(t)
	a := reach(t, c)
	list, err := a.Status(t.Context())
	must(t, err)
	s := list[0]
	if s.Volume != "projects" || s.Role != "primary" || s.HeadBatch != 0 || !s.Stale || s.Daemon != control.Dead || len(s.Stores) != 3 || s.At.IsZero() {
		t.Errorf("%+v", s)
	}
	if rows, err := AllBatches(t.Context(), a); err != nil || len(rows) != 0 {
		t.Errorf("%v %v", rows, err)
	}
	if rows, err := a.Pending(t.Context(), 0); err != nil || len(rows) != 0 {
		t.Errorf("%v %v", rows, err)
	}
	if _, err := a.Explain(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := a.List(t.Context(), "", false); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestNotInitialised(t *testing.T) {
	c := primary(t)
	c.Primary.State = t.TempDir()
	if _, err := Reach(t.Context(), c); !errors.Is(err, state.ErrNotInitialised) {
		t.Error(err)
	}
	if _, err := Status(t.Context(), c); !errors.Is(err, state.ErrNotInitialised) {
		t.Error(err)
	}
}

// TestPending joins what the catalog calls pending with what the journal says beyond it.
func TestPending(t *testing.T) {
	c := primary(t)
	at := time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC).UnixNano()
	file := func(size int64, links uint32) journal.Attr {
		return journal.Attr{Mode: isFile, Nlink: links, Size: size}
	}
	before := write(t, c,
		&journal.Record{Op: journal.OpCreate, Time: at, Node: ident(20), Attr: journal.Attr{Mode: isDirectory}, Parent: ident(1), Name: "new"},
		&journal.Record{Op: journal.OpCreate, Time: at, Node: ident(21), Attr: file(0, 1), Parent: ident(20), Name: "file\xff"},
		&journal.Record{Op: journal.OpOpen, Time: at, Node: ident(21), Attr: file(0, 1)},
		&journal.Record{Op: journal.OpOpen, Time: at + 1, Node: ident(3), Attr: file(5, 1)}, // reports/a, opened and left open
		&journal.Record{Op: journal.OpRelease, Time: at + 2, Node: ident(21), Attr: file(9, 1)},
		&journal.Record{Op: journal.OpRename, Time: at + 3, Node: ident(2), Attr: journal.Attr{Mode: isDirectory}, Parent: ident(1), Name: "reports", NewParent: ident(20), NewName: "moved"},
		&journal.Record{Op: journal.OpCreate, Time: at + 4, Node: ident(22), Attr: file(0, 1), Parent: ident(1), Name: "short-lived"},
		&journal.Record{Op: journal.OpUnlink, Time: at + 5, Node: ident(22), Attr: file(0, 0), Parent: ident(1), Name: "short-lived"},
		&journal.Record{Op: journal.OpCreate, Time: at + 6, Node: ident(23), Attr: file(3, 1), Parent: ident(1), Name: "replaced"},
		&journal.Record{Op: journal.OpRename, Time: at + 7, Node: ident(4), Attr: file(5, 1), Parent: ident(2), Name: "b", NewParent: ident(1), NewName: "replaced", Other: ident(23), OtherAttr: file(3, 0)},
		&journal.Record{Op: journal.OpTruncate, Time: at + 8, Node: ident(4), Attr: file(1, 1)},
	)
	seal(t, c, before)
	a := reach(t, c)
	rows, err := a.Pending(t.Context(), 0)
	must(t, err)
	for i := range rows {
		rows[i].Since = time.Time{}
	}
	const dead = "the daemon is dead"
	want := []control.PendingRow{
		{Path: "c", State: "written", Bytes: 7, Why: dead},
		{Path: "new/file\xff", State: "new", Bytes: 9, Why: dead},
		{Path: "new/moved/a", State: "open", Bytes: 5, Writers: 1, Why: dead},
		{Path: "replaced", State: "written", Bytes: 1, Why: dead},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if rows, err := a.Pending(t.Context(), 2); err != nil || len(rows) != 2 || rows[0].Path != "c" {
		t.Errorf("the two oldest: %v %v", rows, err)
	}
	if e, err := a.Explain(t.Context(), "new/moved/a"); err != nil || e.Stage != "pending" || !strings.Contains(e.WaitingFor, "slipway mount") {
		t.Errorf("%+v %v", e, err)
	}
	list, err := a.Status(t.Context())
	must(t, err)
	if p := list[0].Pending; p.Files != 4 || p.Bytes != 22 || p.OldestSeconds < 1 {
		t.Errorf("%+v", p)
	}
	if j := list[0].Journal; j.Head <= j.Sealed || j.Sealed != before.Offset || j.Gaps != 0 {
		t.Errorf("%+v", j)
	}
}

// TestPendingNames: a file is told once, by a name that it still has.
func TestPendingNames(t *testing.T) {
	c := primary(t)
	file := func(links uint32) journal.Attr { return journal.Attr{Mode: isFile, Nlink: links, Size: 8} }
	dir := journal.Attr{Mode: isDirectory, Nlink: 2}
	op := func(op journal.Op, ino uint64, a journal.Attr, parent uint64, name string) *journal.Record {
		return &journal.Record{Op: op, Node: ident(ino), Attr: a, Parent: ident(parent), Name: name}
	}
	exchange := op(journal.OpRename, 33, file(1), 1, "left")
	exchange.Flags, exchange.NewParent, exchange.NewName, exchange.Other, exchange.OtherAttr = journal.FlagExchange, ident(1), "right", ident(34), file(1)
	seal(t, c, write(t, c,
		op(journal.OpData, 5, file(1), 1, "c"), // the catalog calls it pending, too
		op(journal.OpCreate, 30, file(1), 1, "delivering"), op(journal.OpLink, 30, file(2), 2, "delivered"), op(journal.OpUnlink, 30, file(1), 1, "delivering"),
		op(journal.OpCreate, 31, file(1), 1, "kept"), op(journal.OpLink, 31, file(2), 1, "second"), op(journal.OpUnlink, 31, file(1), 1, "second"),
		op(journal.OpLink, 3, file(2), 1, "copy of a"), op(journal.OpUnlink, 3, file(1), 1, "copy of a"), op(journal.OpOpen, 3, file(1), 2, "a"), op(journal.OpRelease, 3, file(1), 2, "a"),
		op(journal.OpCreate, 33, file(1), 1, "left"), op(journal.OpCreate, 34, file(1), 1, "right"), exchange, op(journal.OpUnlink, 33, file(0), 1, "right"),
		op(journal.OpCreate, 35, dir, 1, "short-lived"), op(journal.OpUnlink, 35, dir, 1, "short-lived"),
	))
	a := reach(t, c)
	rows, err := a.Pending(t.Context(), 0)
	must(t, err)
	got := make([]string, len(rows))
	for i, r := range rows {
		got[i] = r.Path + " " + r.State
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"c written", "kept new", "left new", "reports/a written", "reports/delivered new"}, got); d != "" {
		t.Error(d)
	}
	if e, err := a.Explain(t.Context(), "reports/delivered"); err != nil || e.Stage != "pending" {
		t.Errorf("%+v %v", e, err)
	}
}

// TestJournalAlone: before the first batch there is no catalog, and the journal's own root has to do.
func TestJournalAlone(t *testing.T) {
	c := primary(t)
	write(t, c, &journal.Record{Op: journal.OpCreate, Node: ident(20), Attr: journal.Attr{Mode: isFile}, Parent: ident(1), Name: "first"})
	if rows, err := reach(t, c).Pending(t.Context(), 0); err != nil || len(rows) != 1 || rows[0].Path != "first" {
		t.Errorf("%+v %v", rows, err)
	}
}

// TestLostPosition: a catalog of another journal's time does not stop the answers.
func TestLostPosition(t *testing.T) {
	c := primary(t)
	write(t, c, &journal.Record{Op: journal.OpOpen, Node: ident(3), Attr: journal.Attr{Mode: isFile}})
	seal(t, c, journal.Position{Serial: 99, Instance: 99, Offset: 5000})
	a := reach(t, c)
	if rows, err := a.Pending(t.Context(), 0); err != nil || len(rows) != 2 || rows[1].Path != "reports/a" {
		t.Errorf("%+v %v", rows, err)
	}
	if list, err := a.Status(t.Context()); err != nil || list[0].Journal.Gaps != 1 || list[0].Journal.Sealed != 0 {
		t.Errorf("%+v %v", list, err)
	}
}

// lastStatus leaves what a daemon wrote before it died.
func lastStatus(t *testing.T, dir string, s control.Status) {
	t.Helper()
	data, err := json.Marshal(s)
	must(t, err, os.WriteFile(control.StatusPath(dir), append(data, '\n'), 0o600))
}

// TestStages: how far the batches are is as the last status says.
func TestStages(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	at := time.Now().Add(-time.Hour).Round(0)
	lastStatus(t, c.State(), control.Status{
		Volume: "projects", Epoch: 1, HeadBatch: 2, At: at, Daemon: control.Running,
		Stores: []control.StoreStatus{
			{Name: "cache1", Kind: "cache", Batch: 2, State: "ok"}, {Name: "vault1", Kind: "backup", Batch: 1, State: "down", Error: "refused"},
			{Name: "vault2", Kind: "backup", Batch: 1, State: "ok"}, // the cache's, unknown to this configuration
		},
	})
	a := reach(t, c)
	stages := func() string {
		t.Helper()
		rows, err := AllBatches(t.Context(), a)
		must(t, err)
		var list []string
		for _, r := range rows {
			list = append(list, r.Stage)
		}
		return strings.Join(list, " ")
	}
	if got := stages(); got != "stored cached" {
		t.Error(got)
	}
	c.Primary.Copies = 3
	if got := stages(); got != "cached cached" {
		t.Error(got)
	}
	c.Primary.MinReplicas, c.Primary.Replicas = 1, []config.Store{{Name: "bravo"}}
	a.(*Volume).last.Stores[0].Batch = 1
	if got := stages(); got != "cached sealed" {
		t.Error(got)
	}
	a.(*Volume).last.Stores = append(a.(*Volume).last.Stores, control.StoreStatus{Name: "alpha", Kind: "own", Batch: 2}, control.StoreStatus{Name: "bravo", Kind: "replica", Batch: 2})
	if got := stages(); got != "cached replicated" {
		t.Error(got)
	}
	c.Primary.MinReplicas = 0
	if stage, stores := a.(*Volume).stage(2); stage != control.Replicated || !slices.Equal(stores, []string{"bravo"}) {
		t.Errorf("%v in %q", stage, stores)
	}
	c.Primary.Replicas = nil
	if got := stages(); got != "cached sealed" {
		t.Error(got)
	}
	c.Primary.MinReplicas, c.Primary.Replicas = 1, []config.Store{{Name: "bravo"}}
	a.(*Volume).last.Stores = a.(*Volume).last.Stores[:3]
	if got := stages(); got != "cached sealed" {
		t.Error(got)
	}
	if e, err := a.Explain(t.Context(), "reports/a"); err != nil || e.Stage != "cached" || e.Batch != 1 || e.Copies != 2 || e.WaitingFor == "" {
		t.Errorf("%+v %v", e, err)
	}
	if e, err := a.Explain(t.Context(), "c"); err != nil || e.Stage != "pending" {
		t.Errorf("%+v %v", e, err)
	}
	list, err := a.Status(t.Context())
	must(t, err)
	s := list[0]
	if !s.At.Equal(at) || s.Waiting != "1 directories are not compared yet" || s.Spool.Bytes != 50 || s.HeadBatch != 2 {
		t.Errorf("%+v", s)
	}
	var names []string
	for _, st := range s.Stores {
		names = append(names, st.Kind+" "+st.Name)
	}
	if got := strings.Join(names, ","); got != "own alpha,replica bravo,cache cache1,backup vault1,backup vault2" {
		t.Error(got)
	}
	for head := range uint64(2) { // lost state knows less than the stores have
		if cache := a.(*Volume).stores(head, at)[2]; cache.LagBatches != 0 || cache.LagSeconds != 0 {
			t.Errorf("%+v", cache)
		}
	}
	if v := s.Stores[3]; v.LagBatches != 1 || v.LagSeconds <= 0 || v.Error != "refused" || v.URL != "/vault1" {
		t.Errorf("%+v", v)
	}
}

func TestBatchesInParts(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	a := reach(t, c)
	if rows, err := a.Batches(t.Context(), "projects", 2, 0); err != nil || len(rows) != 1 || rows[0].Seq != 2 {
		t.Errorf("%v %v", rows, err)
	}
	if rows, err := a.Batches(t.Context(), "", 0, 1); err != nil || len(rows) != 1 || rows[0].Seq != 1 {
		t.Errorf("%v %v", rows, err)
	}
	if _, err := a.Batches(t.Context(), "other", 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	a := reach(t, c)
	for _, tt := range []struct {
		path      string
		recursive bool
		want      string
	}{
		{"", false, "c reports"}, {"", true, "c reports reports/a reports/b"}, {"reports", false, "reports/a reports/b"}, {"./reports/../reports/a/", false, "reports/a"},
	} {
		rows, err := a.List(t.Context(), tt.path, tt.recursive)
		var got []string
		for _, r := range rows {
			got = append(got, r.Path)
		}
		if strings.Join(got, " ") != tt.want || err != nil {
			t.Errorf("%q: %q %v", tt.path, got, err)
		}
	}
	cat, err := catalog.Open(state.Dir(c.State()).Catalog())
	must(t, err)
	must(t, cat.Update(func(tx *catalog.Tx) error {
		return errors.Join(tx.PutEntry(2, "torn", 6), tx.PutEntry(2, "unread", 7),
			tx.PutInode(&catalog.Inode{Inode: batch.Inode{ID: 6, Mode: isFile, Content: &batch.Content{}}}), tx.PutInode(&catalog.Inode{Inode: batch.Inode{ID: 7, Mode: isFile}}))
	}), cat.Close())
	rows, err := reach(t, c).List(t.Context(), "reports", false)
	var states []string
	for _, r := range rows {
		states = append(states, r.Path+" "+r.State)
	}
	if d := cmp.Diff([]string{"reports/a ", "reports/b ", "reports/torn unclean", "reports/unread pending"}, states); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, path := range []string{"none", "reports/a/below", "c/x"} {
		if _, err := a.List(t.Context(), path, false); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestBusy: a spooler that has its catalog open and no socket yet is not taken for dead, and its catalog is read all the same.
func TestBusy(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	cat, err := catalog.Open(state.Dir(c.State()).Catalog())
	must(t, err)
	defer func() { must(t, cat.Close()) }()
	lastStatus(t, c.State(), control.Status{Volume: "projects", HeadBatch: 7, Stores: []control.StoreStatus{{Name: "cache1", Kind: "cache", Batch: 7}}})
	a := reach(t, c)
	if rows, err := a.List(t.Context(), "", true); err != nil || len(rows) == 0 {
		t.Errorf("list: %v %v", rows, err)
	}
	list, err := Status(t.Context(), c)
	if err != nil || len(list) != 1 || !list[0].Stale || list[0].Daemon != control.NotAnswering || list[0].HeadBatch != headOf(t, cat) {
		t.Errorf("%+v %v", list, err)
	}
}

// TestBesideCommits: a spooler that was too slow to answer goes on and commits; what is read beside it is of one state, and said once.
func TestBesideCommits(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	cat, err := catalog.Open(state.Dir(c.State()).Catalog())
	must(t, err)
	must(t, cat.Update(func(tx *catalog.Tx) error {
		for i := range 500 {
			err := errors.Join(tx.PutBatch(catalog.BatchInfo{Seq: batch.Seq(i + 100)}), tx.PutEntry(batch.Root, fmt.Sprint("reports", i), 2))
			if err != nil {
				return err
			}
		}
		return nil
	}))
	a := reach(t, c)
	asked := make(chan bool)
	var g errgroup.Group
	g.Go(func() error { // one commit beside each answer
		for range asked {
			if err := cat.Update(func(tx *catalog.Tx) error { return tx.PutUnchecked(100) }); err != nil {
				return err
			}
		}
		return nil
	})
	for _, ask := range []func() (int, error){
		func() (int, error) { rows, err := a.Batches(t.Context(), "", 0, 0); return len(rows), err },
		func() (int, error) { rows, err := a.List(t.Context(), "", true); return len(rows), err },
	} {
		want, err := ask()
		must(t, err)
		for range 60 {
			asked <- true
			if got, err := ask(); got != want || err != nil {
				t.Fatalf("%d rows, want %d: %v", got, want, err)
			}
		}
	}
	close(asked)
	must(t, g.Wait(), cat.Close())
}

// headOf returns the head of a catalog.
func headOf(t *testing.T, cat *catalog.Catalog) (head uint64) {
	t.Helper()
	must(t, cat.View(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		head = uint64(m.Head)
		return err
	}))
	return head
}

// TestDamagedLastStatus: without the daemon's last word everything else is told all the same.
func TestDamagedLastStatus(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	must(t, os.WriteFile(control.StatusPath(c.State()), []byte("{"), 0o600))
	list, err := Status(t.Context(), c)
	if err != nil || len(list) != 1 || list[0].HeadBatch == 0 || !strings.Contains(strings.Join(list[0].Warnings, " "), "how far the stores are is not known") {
		t.Errorf("%+v %v", list, err)
	}
	if rows, err := reach(t, c).Batches(t.Context(), "", 0, 0); err != nil || len(rows) == 0 {
		t.Errorf("%v %v", rows, err)
	}
}

func TestCorruptCatalog(t *testing.T) {
	c := primary(t)
	must(t, os.WriteFile(state.Dir(c.State()).Catalog(), []byte("rubbish"), 0o600))
	if _, err := Reach(t.Context(), c); !errors.Is(err, catalog.ErrCorrupt) {
		t.Error(err)
	}
	lastStatus(t, c.State(), control.Status{Volume: "projects", HeadBatch: 7})
	if _, err := Status(t.Context(), c); !errors.Is(err, catalog.ErrCorrupt) {
		t.Errorf("a dead daemon: %v", err)
	}
	silent(t, c)
	if list, err := Status(t.Context(), c); err != nil || len(list) != 1 || list[0].HeadBatch != 7 || list[0].Daemon != control.NotAnswering {
		t.Errorf("a silent daemon, by its last word: %+v %v", list, err)
	}
	must(t, os.Remove(control.StatusPath(c.State())))
	if _, err := Status(t.Context(), c); !errors.Is(err, catalog.ErrCorrupt) {
		t.Errorf("a silent daemon that has said nothing: %v", err)
	}
}

// silent has somebody listen on the daemon's socket who never answers.
func silent(t *testing.T, c *config.Config) {
	t.Helper()
	l, err := net.Listen("unix", control.SocketPath(c.State()))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

// TestSilentHost: of a host's daemon that does not answer the last word counts: what lies in its store may be half of it.
func TestSilentHost(t *testing.T) {
	c := &config.Config{Cache: &config.Cache{Node: "cache1", Store: t.TempDir(), State: t.TempDir()}}
	lastStatus(t, c.State(), control.Status{Volume: "projects", HeadBatch: 7})
	silent(t, c)
	if list, err := Status(t.Context(), c); err != nil || len(list) != 1 || list[0].HeadBatch != 7 || list[0].Daemon != control.NotAnswering {
		t.Errorf("%+v %v", list, err)
	}
	// Where what it last wrote cannot be read, the store tells.
	must(t, os.WriteFile(control.StatusPath(c.State()), []byte("{"), 0o600), os.Mkdir(filepath.Join(c.Cache.Store, "projects"), 0o755),
		os.WriteFile(filepath.Join(c.Cache.Store, "projects", "volume.json"), []byte("{}"), 0o644))
	if list, err := Status(t.Context(), c); err != nil || len(list) != 1 || list[0].Volume != "projects" || list[0].Daemon != control.NotAnswering {
		t.Errorf("without its last word: %+v %v", list, err)
	}
}

// TestOddState: a state directory that cannot be looked into is no sign of a dead daemon.
func TestOddState(t *testing.T) {
	c := &config.Config{Cache: &config.Cache{Node: "cache1", Store: t.TempDir(), State: filepath.Join(t.TempDir(), "file")}}
	must(t, os.WriteFile(c.Cache.State, nil, 0o600))
	if _, err := Reach(t.Context(), c); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
}

// TestCacheHost: a dead shipper's answers come from the store and the acks in it.
func TestCacheHost(t *testing.T) {
	v := volumetest.New(t, "cache1")
	for range 3 {
		v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: batch.Root, Mode: isDirectory}}}, func(e *batch.Envelope) { e.Volume = "projects" })
	}
	s := v.Stores[0].Store
	must(t, s.Publish(t.Context(), "volume.json", []byte(`{"format":1}`)))
	write := func(a ack.Acks) {
		t.Helper()
		a.Format, a.VolumeID, a.Epoch, a.At = 1, v.ID, 1, time.Now()
		must(t, ack.Write(t.Context(), s, a))
	}
	write(ack.Acks{Store: "cache1", Kind: "cache", Head: 3, Copies: 2})
	c := &config.Config{Cache: &config.Cache{Node: "cache1", Name: "cache1", Store: filepath.Dir(v.Dirs[0]), State: t.TempDir(), Ship: config.Ship{Copies: 2}}}
	keep := hold.Path(filepath.Join(c.Cache.State, "volumes"), "projects")
	must(t, hold.Write(keep, []hold.Hold{{Seq: 3}}))
	if rows, err := reach(t, c).Batches(t.Context(), "projects", 0, 0); err != nil || len(rows) != 3 || rows[1].Held || !rows[2].Held {
		t.Errorf("held before any backup host is known: %+v %v", rows, err)
	}
	must(t, hold.Write(keep, nil))
	write(ack.Acks{Store: "vault1", Kind: "backup", Head: 2, URL: "/v1"})
	write(ack.Acks{Store: "vault2", Kind: "backup", Head: 1, Error: "no route"})
	write(ack.Acks{Store: "vault3", Kind: "backup", Head: 3, Full: true})
	must(t, os.Mkdir(filepath.Join(c.Cache.Store, "no-volume"), 0o755))

	list, err := Status(t.Context(), c)
	must(t, err)
	if len(list) != 1 || list[0].HeadBatch != 3 || list[0].Role != "cache" || list[0].Daemon != control.Dead || !list[0].Stale {
		t.Fatalf("%+v", list)
	}
	var states []string
	for _, st := range list[0].Stores {
		states = append(states, st.Name+" "+st.State)
	}
	if got := strings.Join(states, ","); got != "cache1 ok,vault1 waiting,vault2 down,vault3 full" {
		t.Error(got)
	}
	a := reach(t, c)
	rows, err := AllBatches(t.Context(), a)
	must(t, err)
	var stages []string
	for _, r := range rows {
		stages = append(stages, r.Stage)
	}
	if got := strings.Join(stages, " "); got != "stored stored cached" {
		t.Error(got)
	}
	for i, want := range []string{"false false false", "false true true", "false true true", "false false true"} { // vault1 to vault3 have batch 1
		if i > 0 {
			must(t, hold.Write(hold.Path(filepath.Join(c.Cache.State, "volumes"), "projects"), []hold.Hold{{Seq: batch.Seq(i)}}))
		}
		rows, err = AllBatches(t.Context(), a)
		must(t, err)
		if got := fmt.Sprint(rows[0].Held, " ", rows[1].Held, " ", rows[2].Held); got != want {
			t.Errorf("held from batch %d on: %s, want %s", i, got, want)
		}
	}
	must(t, hold.Write(hold.Path(filepath.Join(c.Cache.State, "volumes"), "projects"), []hold.Hold{{Seq: 2}}))
	rows, err = AllBatches(t.Context(), a)
	must(t, err)
	if rows[0].Held || !rows[1].Held || !rows[2].Held {
		t.Errorf("held from batch 2 on: %+v", rows)
	}
	if rows[1].Copies != 2 || rows[1].Seq != 2 || rows[1].Volume != "projects" {
		t.Errorf("%+v", rows[1])
	}
	if rows, err := a.Batches(t.Context(), "projects", 0, 2); err != nil || len(rows) != 2 || rows[0].Seq != 1 {
		t.Errorf("at most two: %v %v", rows, err)
	}
	if rows, err := a.Batches(t.Context(), "projects", 3, 0); err != nil || len(rows) != 1 {
		t.Errorf("%v %v", rows, err)
	}
	if rows, err := a.Batches(t.Context(), "other", 0, 0); err != nil || len(rows) != 0 {
		t.Errorf("%v %v", rows, err)
	}
	for _, err := range []error{second(a.Pending(t.Context(), 0)), second(a.Explain(t.Context(), "x")), second(a.List(t.Context(), "", false))} {
		if !errors.Is(err, ErrNotHere) {
			t.Error(err)
		}
	}
	must(t, os.WriteFile(filepath.Join(v.Dirs[0], batch.Path(1, 2, 2)), []byte("rubbish"), 0o600))
	if _, err := AllBatches(t.Context(), a); !errors.Is(err, batch.ErrFormat) && !errors.Is(err, batch.ErrCorrupt) {
		t.Errorf("a damaged batch: %v", err)
	}
	c.Cache.Store = filepath.Join(c.Cache.Store, "none")
	if list, err := Status(t.Context(), c); err != nil && !errors.Is(err, store.ErrNotExist) || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRunning: with a daemon there, it is the one that answers.
func TestRunning(t *testing.T) {
	c := primary(t)
	seal(t, c, journal.Position{})
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return control.Serve(ctx, c.State(), daemon{}, time.Hour) })
	deadline := time.After(time.Minute)
	for {
		if _, err := control.Dial(c.State()); err == nil {
			break
		}
		select {
		case <-deadline:
			t.Fatal("no daemon")
		case <-time.After(time.Millisecond):
		}
	}
	a := reach(t, c)
	if list, err := a.Status(t.Context()); err != nil || list[0].HeadBatch != 77 {
		t.Errorf("%v %v", list, err)
	}
	rows, err := AllBatches(t.Context(), a)
	if err != nil || len(rows) != 1001 || rows[1000].Seq != 1001 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	stop()
	must(t, g.Wait())
}

// daemon has more batches than it is asked for at once.
type daemon struct{ control.Reporter }

func (daemon) Status(context.Context) ([]control.Status, error) {
	return []control.Status{{Volume: "projects", HeadBatch: 77}}, nil
}

func (daemon) Batches(_ context.Context, _ string, from uint64, limit int) (rows []control.BatchRow, err error) {
	for seq := max(from, 1); seq <= 1001 && len(rows) < limit; seq++ {
		rows = append(rows, control.BatchRow{Volume: "projects", Seq: seq})
	}
	return rows, nil
}
