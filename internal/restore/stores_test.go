package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// spread seals n batches, each with a file in a shard of its own.
func spread(t *testing.T, v *volumetest.Volume, n int) []*batch.Sealed {
	t.Helper()
	var all []*batch.Sealed
	for i := range n {
		w := newWriter(t, v)
		w.next = batch.FileID(10 + i)
		w.file(1, fmt.Sprint("file ", i), strings.Repeat(fmt.Sprint("content ", i), 500))
		all = append(all, w.seal())
	}
	return all
}

func object(v *volumetest.Volume, store int, s *batch.Sealed) string {
	return filepath.Join(v.Dirs[store], s.Envelope.Introduces[0].Digest.Path())
}

// Each of two stores has lost or damaged what the other still has.
func TestTwoStoresWithDifferentHoles(t *testing.T) {
	v := volumetest.New(t, "vault1", "vault2")
	all := spread(t, v, 6)
	damage := errors.Join(
		os.Remove(object(v, 0, all[0])),
		os.Remove(object(v, 1, all[1])),
		os.Remove(filepath.Join(v.Dirs[0], batch.Path(1, 3, 3))),
		os.Remove(filepath.Join(v.Dirs[1], batch.Path(1, 4, 4))),
		os.WriteFile(object(v, 0, all[4]), []byte("rotten"), 0o600),
		os.WriteFile(object(v, 1, all[5]), []byte("rotten"), 0o600))
	if damage != nil {
		t.Fatal(damage)
	}
	target := t.TempDir()
	tree := load(t, v.Source(), restore.At{})
	res := clean(t, tree, restore.Options{Target: target})
	if res.Files != 6 || len(tree.Incomplete) > 0 {
		t.Errorf("%+v, %q", res, tree.Incomplete)
	}
	for i := range all {
		data, err := os.ReadFile(filepath.Join(target, fmt.Sprint("file ", i)))
		if err != nil || string(data) != strings.Repeat(fmt.Sprint("content ", i), 500) {
			t.Errorf("file %d: %d bytes, %v", i, len(data), err)
		}
	}
	faults := tree.Faults()
	if len(faults) != 1 || faults[0].Store != "vault1" || !errors.Is(faults[0].Err, shard.ErrCorrupt) {
		t.Errorf("the rotten shard that was met is not reported: %v", faults)
	}
}

// What no store has any more fails by path, and the rest is restored.
func TestLostShard(t *testing.T) {
	v := volumetest.New(t, "vault1", "vault2")
	all := spread(t, v, 3)
	if err := errors.Join(os.Remove(object(v, 0, all[1])), os.WriteFile(object(v, 1, all[1]), []byte("rotten"), 0o600)); err != nil {
		t.Fatal(err)
	}
	res, err := load(t, v.Source(), restore.At{}).Restore(context.Background(), restore.Options{Target: t.TempDir()})
	if err != nil || res.Files != 2 || len(res.Failed) != 1 || res.Failed[0].Path != "file 1" || !errors.Is(res.Failed[0].Err, chain.ErrMissing) {
		t.Fatalf("%+v, %v", res, err)
	}
	if text := res.Failed[0].Err.Error(); !strings.Contains(text, "vault2") || !strings.Contains(text, all[1].Envelope.Introduces[0].Digest.String()) {
		t.Errorf("the message names neither store nor shard: %s", text)
	}
}

func TestWrongIdentity(t *testing.T) {
	v := volumetest.New(t, "vault1")
	spread(t, v, 1)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	src := v.Source()
	src.IDs = []age.Identity{id}
	if _, err := restore.Load(context.Background(), src, restore.At{}); !errors.Is(err, chain.ErrIdentity) || !strings.Contains(err.Error(), "identity does not open it") {
		t.Errorf("%v", err)
	}
}

// silent does not answer, for a number of reads or for ever.
type silent struct {
	store.Store
	reads int
}

func (s *silent) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	if s.reads--; s.reads >= 0 {
		return nil, fmt.Errorf("read %s: %w", name, store.ErrTemporary)
	}
	return s.Store.Read(ctx, name, limit)
}

// A store that stops answering is left for the other; one that only falters is asked again.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	v := volumetest.New(t, "vault1", "vault2")
	spread(t, v, 3)
	for name, stores := range map[string][]restore.NamedStore{
		"falters":       {{Name: "vault1", Store: &silent{v.Stores[0].Store, 1}}},
		"dead, another": {{Name: "vault1", Store: &silent{v.Stores[0].Store, 1 << 30}}, v.Stores[1]},
	} {
		src := v.Source()
		src.Stores = stores
		tree := load(t, src, restore.At{})
		if res := clean(t, tree, restore.Options{Target: t.TempDir()}); res.Files != 3 {
			t.Errorf("%s: %+v", name, res)
		}
		if len(tree.Faults()) == 0 {
			t.Errorf("%s: nothing is reported", name)
		}
	}
}

// When the only store is gone in the middle, the restore stops: the files not reached yet have not failed.
func TestStoreGoneStops(t *testing.T) {
	v := volumetest.New(t, "vault1")
	spread(t, v, 3)
	s := &silent{v.Stores[0].Store, 0}
	src := v.Source()
	src.Stores = []restore.NamedStore{{Name: "vault1", Store: s}}
	tree := load(t, src, restore.At{})
	s.reads = 1 << 30
	target := t.TempDir()
	res, err := tree.Restore(context.Background(), restore.Options{Target: target})
	if !errors.Is(err, store.ErrTemporary) || res == nil || len(res.Failed) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	s.reads = 0
	clean(t, tree, restore.Options{Target: target})
}

// Many small files: every shard is read once, and a second run reads none.
func TestManyFiles(t *testing.T) {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	line := strings.Repeat("some text of a source file, more or less\n", 440)
	for i := range 300 {
		d := w.dir(1, fmt.Sprint("dir ", i))
		for k := range 20 {
			w.file(d, fmt.Sprint("file ", k), fmt.Sprintf("%d %d %d\n%s", i, k, i*k*7919, line[:(i*k)%len(line)]))
		}
	}
	w.seal()
	count := &counting{Store: v.Stores[0].Store, seen: make(map[string]int)}
	src := v.Source()
	src.Stores = []restore.NamedStore{{Name: "vault1", Store: count}}
	start := time.Now()
	tree := load(t, src, restore.At{})
	loaded := time.Since(start)
	target := t.TempDir()
	res := clean(t, tree, restore.Options{Target: target})
	t.Logf("%d files, %d bytes: loaded in %v, restored in %v", res.Files, res.Bytes, loaded, time.Since(start)-loaded)
	for name, n := range count.seen {
		if n > 1 && strings.HasPrefix(name, "shards/") {
			t.Errorf("%s was read %d times", name, n)
		}
	}
	start = time.Now()
	if res := clean(t, tree, restore.Options{Target: target}); res.Same != 6000 {
		t.Errorf("%+v", res)
	}
	t.Logf("again, all equal: %v", time.Since(start))
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(target, "dir 299", "file 19"), &st); err != nil {
		t.Error(err)
	}
}
