package fill

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/store"
)

// volume makes a volume of n batches in two stores, each with a file of its own shard.
func volume(t *testing.T, n int) *volumetest.Volume {
	t.Helper()
	v := volumetest.New(t, "near", "far")
	for i := range n {
		id := batch.FileID(i + 2)
		v.Seal(&batch.Body{
			Inodes:  []batch.Inode{{ID: id, Mode: 0o100644, Content: v.Content(strings.Repeat("x", 1000*(i+1)))}},
			Entries: []batch.Entry{{Parent: batch.Root, Name: string(rune('a' + i)), ID: id}},
		}, nil)
	}
	return v
}

func open(t *testing.T, v *volumetest.Volume) *chain.Line {
	t.Helper()
	line, err := chain.Open(context.Background(), chain.Source{Stores: v.Stores, Owners: []string{v.Owner.Key}})
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func emptyStore(t *testing.T) (store.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "projects")
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// restorable reads every file of a volume from one store alone.
func restorable(t *testing.T, v *volumetest.Volume, s store.Store, files int) {
	t.Helper()
	src := v.Source()
	src.Stores = []chain.NamedStore{{Name: "to", Store: s}}
	tree, err := restore.Load(context.Background(), src, restore.At{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := tree.Restore(context.Background(), restore.Options{Target: filepath.Join(t.TempDir(), "target")})
	if err != nil || r.Partial() || r.Files != int64(files) || len(tree.Incomplete) > 0 {
		t.Fatalf("%+v %v %v", r, tree.Incomplete, err)
	}
}

func TestFill(t *testing.T) {
	v := volume(t, 5)
	to, _ := emptyStore(t)
	r, err := Fill(context.Background(), open(t, v), to, Options{})
	if err != nil || r.Batches != 5 || r.Shards != 5 || r.Head.Digest != *v.Prev {
		t.Fatalf("%+v %v", r, err)
	}
	restorable(t, v, to, 5)
	if r, err = Fill(context.Background(), open(t, v), to, Options{Deep: true}); err != nil || r.Batches+r.Shards+int(r.Bytes) != 0 {
		t.Errorf("copied again: %+v %v", r, err)
	}
}

// TestOnlyFromBase: what lies before the newest batch's base is not needed, and not asked for.
func TestOnlyFromBase(t *testing.T) {
	v := volume(t, 4)
	v.Base = 4
	v.Seal(&batch.Body{}, nil)
	for _, dir := range v.Dirs {
		if err := os.Remove(filepath.Join(dir, batch.Path(1, 2, 2))); err != nil {
			t.Fatal(err)
		}
	}
	to, _ := emptyStore(t)
	r, err := Fill(context.Background(), open(t, v), to, Options{})
	if err != nil || r.Batches != 2 || r.Shards != 1 {
		t.Fatalf("%+v %v", r, err)
	}
}

// TestRot: a rotten shard in the nearest store comes from the other; one in the store that is filled is put right by a deep fill.
func TestRot(t *testing.T) {
	v := volume(t, 3)
	first := open(t, v)
	b, err := first.Batch(context.Background(), &first.Slots[1])
	if err != nil {
		t.Fatal(err)
	}
	name := b.Envelope.Introduces[0].Digest.Path()
	spoil := func(dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	spoil(v.Dirs[0])
	line := open(t, v)
	to, dir := emptyStore(t)
	if _, err := Fill(context.Background(), line, to, Options{}); err != nil {
		t.Fatal(err)
	}
	if f := line.Faults(); len(f) != 1 || f[0].Store != "near" || f[0].Object != name {
		t.Errorf("faults %v", f)
	}
	restorable(t, v, to, 3)
	spoil(dir)
	r, err := Fill(context.Background(), open(t, v), to, Options{Deep: true})
	if err != nil || r.Mended != 1 || r.Shards != 1 || r.Batches != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	restorable(t, v, to, 3)
	spoil(v.Dirs[1])
	to, _ = emptyStore(t)
	if _, err := Fill(context.Background(), open(t, v), to, Options{}); !errors.Is(err, chain.ErrMissing) {
		t.Errorf("rotten everywhere: %v", err)
	}
	if _, err := to.Stat(context.Background(), batch.Path(1, 2, 2)); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("the batch is there without its shard: %v", err)
	}
}

// TestAnotherBatchInPlace: a batch under a number of the chain that is not the chain's is replaced.
func TestAnotherBatchInPlace(t *testing.T) {
	v, other := volume(t, 2), volume(t, 2)
	to, dir := emptyStore(t)
	data, err := os.ReadFile(filepath.Join(other.Dirs[0], batch.Path(1, 2, 2)))
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Publish(context.Background(), batch.Path(1, 2, 2), data); err != nil {
		t.Fatal(err)
	}
	r, err := Fill(context.Background(), open(t, v), to, Options{})
	if err != nil || r.Batches != 2 {
		t.Fatalf("%+v %v in %s", r, err, dir)
	}
	restorable(t, v, to, 2)
	if kept, err := os.ReadFile(filepath.Join(dir, "refused/000000000002-000000000002.batch.side-branch")); err != nil || string(kept) != string(data) {
		t.Errorf("the other batch was not kept: %v", err)
	}
}
