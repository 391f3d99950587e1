package spooler

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/store"
	"slipway/spooler/evict"
	"slipway/spooler/push"
	"slipway/spooler/seal"
)

// captured folds and captures, and seals nothing.
func (r *rig) captured() {
	r.t.Helper()
	v := r.s.vol
	reader := v.pool.Reader()
	for range 20 {
		check(r.t, v.tree.Within(func() error {
			if _, err := v.mirror.Fold(); err != nil {
				return err
			}
			if err := v.mirror.Walk(); err != nil {
				return err
			}
			return v.dispatch()
		}))
		for v.pool.Once(r.t.Context(), reader, false) {
		}
		v.collect()
	}
}

// prepared prepares a batch without sealing it, as far as the commit.
func (r *rig) prepared() *seal.Batch {
	r.t.Helper()
	r.captured()
	b, err := r.s.vol.sealer.Prepare(r.t.Context())
	check(r.t, err)
	if b == nil {
		r.t.Fatal("there is nothing to seal")
	}
	check(r.t, r.s.vol.sealer.Write(r.t.Context(), b))
	return b
}

// TestDyingBeforeCommit: shards are published, the batch file lies there under its temporary name, the catalog knows nothing.
func TestDyingBeforeCommit(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("first", "1")
	r.drain()
	head := r.s.vol.history.Meta().Head
	r.create("second", "2")
	r.prepared()
	unnamed, err := evict.Unnamed(t.Context(), r.s.vol.own, r.s.vol.history.Catalog())
	check(t, err)
	r.close()

	r.open()
	if got := r.s.vol.history.Meta().Head; got != head {
		t.Fatalf("head %d after dying before the commit, want %d", got, head)
	}
	if len(unnamed) == 0 {
		t.Error("no shard was published")
	}
	for _, o := range unnamed {
		if _, err := r.s.vol.own.Stat(t.Context(), o.Digest.Path()); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("abandoned shard %s is still there: %v", o.Digest, err)
		}
	}
	r.drain()
	r.restored()
	b, err := r.s.vol.history.ReadBatch(batch.Path(1, head+1, head+1))
	check(t, err)
	if len(b.Envelope.Abandons) != len(unnamed) {
		t.Errorf("the next envelope abandons %d shards, want %d", len(b.Envelope.Abandons), len(unnamed))
	}
}

// TestDyingAfterCommit: the catalog has the batch, its file has only its temporary name. The number is used: the next start
// publishes that file and no other.
func TestDyingAfterCommit(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("first", "1")
	r.drain()
	r.create("second", "2")
	v := r.s.vol
	check(t, v.sealer.Commit(r.prepared()))
	digest, head := v.history.Meta().HeadDigest, v.history.Meta().Head
	if _, err := v.own.Stat(t.Context(), batch.Path(1, head, head)); !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("the batch has its name already: %v", err)
	}
	r.close()

	r.open()
	b, err := r.s.vol.history.ReadBatch(batch.Path(1, head, head))
	check(t, err)
	if b.Digest != digest {
		t.Error("another batch was published under the committed number")
	}
	r.drain()
	r.restored()

	// Failed but persisted: the rename happened and only its reply was lost. The next start repeats it and changes nothing.
	r.close()
	r.open()
	r.drain()
	r.restored()
}

// TestHeldBatch: the own store cannot take the batch file. It is held, nothing is lost, and it goes on when it can.
func TestHeldBatch(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("first", "1")
	r.drain()
	dir := filepath.Join(r.cfg.Spool.Dir, "projects", "batches")
	check(t, os.Rename(dir, dir+".away")) //nolint:forbidigo // the test takes the directory away
	check(t, os.WriteFile(dir, []byte("in the way"), 0o600))
	r.create("second", "2")
	r.captured()
	if _, err := r.s.vol.sealer.Seal(t.Context()); err == nil {
		t.Fatal("sealing into a file succeeded")
	}
	if !r.s.vol.sealer.Held() {
		t.Fatal("the batch is not held")
	}
	r.create("third", "3")
	if _, err := r.s.Step(t.Context()); err == nil {
		t.Error("the step does not say that sealing fails")
	}
	check(t, os.Remove(dir))
	check(t, os.Rename(dir+".away", dir)) //nolint:forbidigo // and puts it back
	r.drain()
	r.restored()
}

// TestDeferred: a name whose file has no content yet is left out of the batch together with what it replaced.
func TestDeferred(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("target", "old content")
	r.drain()
	r.create("aside", "new content")
	r.rename("aside", "target", 0)
	r.mkdir("dir")
	v := r.s.vol
	check(t, v.tree.Within(func() error { _, err := v.mirror.Fold(); return err }))
	sealed, err := v.sealer.Seal(t.Context()) // before anything was read
	check(t, err)
	if !sealed {
		t.Fatal("nothing was sealed")
	}
	got := listing(t, r.restoreTo(r.cfg.Spool.Dir, restoreAt(v.history.Meta().Head)))
	if !strings.HasSuffix(got["target"], "old content") || got["dir"] == "" {
		t.Errorf("a batch sealed before the capture restores %v", got)
	}
	// Dying now: the new file is known to the overlay alone, and found again through its parent.
	r.close()
	r.open()
	if !r.s.vol.mirror.Walking() {
		t.Error("the parent of the deferred entry is not to be compared after a restart")
	}
	r.drain()
	r.restored()
}

// TestExclude leaves out what the patterns say, and a changed list takes effect for what is sealed already.
func TestExclude(t *testing.T) {
	r := newRig(t)
	r.cfg.Exclude = []string{"*.tmp", "/cache/"}
	r.mount()
	r.open()
	r.mkdir("cache")
	r.create("cache/x", "left out")
	r.create("a.tmp", "left out")
	r.create("kept", "kept")
	r.create("b", "kept, then renamed away")
	r.drain()
	want := func(names ...string) {
		t.Helper()
		got := listing(t, r.restoreTo(r.cfg.Spool.Dir, restoreAt(0)))
		delete(got, ".")
		for _, n := range names {
			if got[n] == "" {
				t.Errorf("%q is not in the backup", n)
			}
			delete(got, n)
		}
		for n := range got {
			t.Errorf("%q is in the backup", n)
		}
	}
	want("kept", "b")
	r.rename("b", "b.tmp", 0)
	r.rename("a.tmp", "a", 0)
	r.drain()
	want("kept", "a")
	e, err := r.s.Explain(t.Context(), "b.tmp")
	if err != nil || !strings.Contains(e.WaitingFor, "excluded by line 1") {
		t.Errorf("explain says %+v, %v", e, err)
	}
	r.close()
	r.cfg.Exclude = []string{"kept"}
	r.open()
	r.drain()
	want("a", "b.tmp", "cache", "cache/x")
}

// TestAhead: the node's state was put back to an older copy while the cache had taken more. It begins a new epoch behind what the
// cache has, and what it sealed beside that is a side branch.
func TestAhead(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	pushOnce := func() error {
		_, err := r.s.pushers[0].PushOnce(t.Context())
		return err
	}
	check(t, pushOnce())
	r.close()
	old := filepath.Join(t.TempDir(), "older state")
	check(t, os.CopyFS(old, os.DirFS(r.cfg.State)))
	r.open()
	r.create("b", "2")
	r.drain()
	check(t, pushOnce())
	ahead := r.s.vol.history.Meta().Head
	r.close()

	check(t, os.RemoveAll(r.cfg.State))
	check(t, os.CopyFS(r.cfg.State, os.DirFS(old)))
	for _, f := range []string{"node.key", "volume.secret"} {
		check(t, os.Chmod(filepath.Join(r.cfg.State, f), 0o600))
	}
	r.umount()
	r.create2("c", "3")
	r.mount()
	r.open()
	r.drain()
	var a *push.AheadError
	err := pushOnce()
	if !errors.As(err, &a) {
		t.Fatalf("pushing from an older state: %v, want AheadError", err)
	}
	r.s.troubled("cache1", err)
	var fatal *seal.Fatal
	if _, err := r.s.Step(t.Context()); !errors.As(err, &fatal) {
		t.Fatalf("step after the cache was found ahead: %v, want a fatal error", err)
	}
	check(t, r.s.closeStores())
	check(t, r.s.vol.mirror.Close())
	r.s = nil

	r.open()
	r.drain()
	if m := r.s.vol.history.Meta(); m.Epoch != 2 || m.Base != ahead+1 {
		t.Errorf("epoch %d, base %d, want a new epoch behind batch %d", m.Epoch, m.Base, ahead)
	}
	check(t, pushOnce())
	r.restoredFrom(r.cache, restoreAt(0))
	side, err := filepath.Glob(filepath.Join(r.cfg.Spool.Dir, "projects", "refused", "*.side-branch"))
	if err != nil || len(side) == 0 {
		t.Errorf("side branches kept: %v, %v", side, err)
	}
}

// TestLostShard: a shard that was not delivered yet is gone, and no other store has it. Its files are in the source still: a new
// epoch reads them again.
func TestLostShard(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	var digest string
	shards, err := filepath.Glob(filepath.Join(r.cfg.Spool.Dir, "projects", "shards", "*", "*.shard"))
	check(t, err)
	for _, s := range shards {
		digest = filepath.Base(s)
		check(t, os.Remove(s))
	}
	_, err = r.s.pushers[0].PushOnce(t.Context())
	var lost *push.LostShardError
	if !errors.As(err, &lost) || !strings.HasPrefix(digest, lost.Shard.Digest.String()) {
		t.Fatalf("pushing a shard that is gone: %v", err)
	}
	r.s.troubled("cache1", err)
	var fatal *seal.Fatal
	if _, err := r.s.Step(t.Context()); !errors.As(err, &fatal) {
		t.Fatalf("step after a shard was lost: %v, want a fatal error", err)
	}
	check(t, r.s.closeStores())
	check(t, r.s.vol.mirror.Close())
	r.s = nil
	r.open()
	r.drain()
	if _, err := r.s.pushers[0].PushOnce(t.Context()); err != nil {
		t.Fatalf("push of the new epoch: %v", err)
	}
	r.restoredFrom(r.cache, restoreAt(0))
}

// TestLostSpool: the node's own store was emptied, or another directory put in its place. A new epoch begins; nothing crashes.
func TestLostSpool(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	_, err := r.s.pushers[0].PushOnce(t.Context())
	check(t, err)
	r.close()
	check(t, os.RemoveAll(r.cfg.Spool.Dir))
	r.create("b", "2")
	r.open()
	r.drain()
	r.restored()
}

// TestMovedSpool: the own store was moved as a whole, and the configuration with it.
func TestMovedSpool(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	r.close()
	moved := filepath.Join(t.TempDir(), "moved")
	check(t, os.CopyFS(moved, os.DirFS(r.cfg.Spool.Dir)))
	check(t, os.RemoveAll(r.cfg.Spool.Dir))
	r.cfg.Spool.Dir = moved
	r.create("b", "2")
	r.open()
	r.drain()
	r.restored()
	if e := r.s.vol.history.Meta().Epoch; e != 1 {
		t.Errorf("epoch %d after the own store was moved, want 1", e)
	}
}

// TestRolledBackCatalog: an older catalog lies beside an own store that has gone on. No number is sealed twice.
func TestRolledBackCatalog(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "1")
	r.drain()
	r.close()
	file := filepath.Join(r.cfg.State, "catalog.db")
	older, err := os.ReadFile(file)
	check(t, err)
	r.create("b", "2")
	r.open()
	r.drain()
	head := r.s.vol.history.Meta().Head
	r.close()
	check(t, os.WriteFile(file, older, 0o600))
	r.create("c", "3")
	r.open()
	r.drain()
	if m := r.s.vol.history.Meta(); m.Epoch != 2 || m.Base != head+1 {
		t.Errorf("epoch %d, base %d, want a new epoch behind batch %d", m.Epoch, m.Base, head)
	}
	r.restored()
}
