package evict

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// rig is an own store with its catalog: one shard of 1,000 bytes for each batch from 1 on.
type rig struct {
	t       *testing.T
	own     store.Store
	cat     *catalog.Catalog
	head    batch.Seq
	usage   Usage
	objects []batch.Object
}

func newRig(t *testing.T, batches int) *rig {
	t.Helper()
	r := &rig{t: t, own: openLocal(t, t.TempDir())}
	cat, err := catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cat.Close(); err != nil {
			t.Error(err)
		}
	})
	r.cat = cat
	for range batches {
		o := r.object(1000)
		r.objects = append(r.objects, o)
		r.seal(o)
	}
	return r
}

func openLocal(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// object puts a shard of n bytes into the own store. What it holds is no evictor's business.
func (r *rig) object(n int) batch.Object {
	r.t.Helper()
	data := make([]byte, n)
	_, _ = rand.Read(data)
	o := batch.Object{Digest: shard.Sum(data), Size: int64(n)}
	if err := r.own.Publish(context.Background(), o.Digest.Path(), data); err != nil {
		r.t.Fatal(err)
	}
	return o
}

// seal makes the next batch, introducing this shard. Of its file only the size counts.
func (r *rig) seal(o batch.Object) batch.Seq {
	r.t.Helper()
	r.head++
	if err := r.own.Publish(context.Background(), batch.Path(1, r.head, r.head), make([]byte, 300)); err != nil {
		r.t.Fatal(err)
	}
	r.update(func(tx *catalog.Tx) error {
		return tx.PutShard(o.Digest, catalog.ShardInfo{Size: o.Size, Seq: r.head})
	})
	return r.head
}

func (r *rig) update(fn func(*catalog.Tx) error) {
	r.t.Helper()
	if err := r.cat.Update(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) open(limit int64) *Evictor {
	r.t.Helper()
	r.usage = Usage{}
	e, err := Open(context.Background(), r.own, r.cat, limit, &r.usage)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// gone checks that exactly the shards of these batches are evicted, in the store and in the catalog.
func (r *rig) gone(want ...int) {
	r.t.Helper()
	var files, marked []int
	for i, o := range r.objects {
		if _, err := r.own.Stat(context.Background(), o.Digest.Path()); errors.Is(err, store.ErrNotExist) {
			files = append(files, i+1)
		}
		info, ok, err := shardInfo(r.cat, o.Digest)
		if err != nil || !ok {
			r.t.Fatalf("shard of batch %d in the catalog: %v, %v", i+1, ok, err)
		}
		if info.Evicted {
			marked = append(marked, i+1)
		}
	}
	if !slices.Equal(files, want) || !slices.Equal(marked, want) {
		r.t.Fatalf("evicted: files of %v, in the catalog %v; want %v", files, marked, want)
	}
}

func (r *rig) evict(e *Evictor, heads Heads, want int64) {
	r.t.Helper()
	freed, err := e.Once(context.Background(), heads)
	if err != nil || freed != want {
		r.t.Fatalf("freed %d, %v; want %d", freed, err, want)
	}
}

func TestEvictStored(t *testing.T) {
	r := newRig(t, 5)
	e := r.open(0)
	before := r.usage.Bytes()
	if before <= 5000 {
		t.Fatalf("%d bytes in use, the shards alone are 5,000", before)
	}
	r.evict(e, Heads{}, 0)
	r.evict(e, Heads{Stored: 3, Twice: 5}, 3000)
	r.gone(1, 2, 3)
	if n := r.usage.Bytes(); n != before-3000 {
		t.Fatalf("%d bytes in use, want %d", n, before-3000)
	}
	r.evict(e, Heads{Stored: 3}, 0)

	r.objects = append(r.objects, r.object(1000))
	e.Committed(r.seal(r.objects[5]), r.objects[5:])
	r.usage.Add(1000)
	r.evict(e, Heads{Stored: 6}, 3000)
	r.gone(1, 2, 3, 4, 5, 6)
	r.evict(r.open(0), Heads{Stored: 6}, 0) // and nothing is left to a new start
}

// Two other stores have to do only when the own store is nearly full.
func TestEvictPressure(t *testing.T) {
	r := newRig(t, 5)
	used := func() int64 { r.open(0); return r.usage.Bytes() }()
	r.evict(r.open(used*2), Heads{Stored: 5, Twice: 5}, 0) // there is room: everything stays
	r.evict(r.open(used*100/70), Heads{Stored: 1, Twice: 4}, 1000)
	r.gone(1)
	e := r.open(used - 1000)
	if !e.pressed() {
		t.Fatal("not pressed at four fifths of the cap")
	}
	r.evict(e, Heads{Stored: 1, Twice: 4}, 3000)
	r.gone(1, 2, 3, 4)
	if e.pressed() {
		t.Fatal("still pressed")
	}

	// Each kind of safety is confirmed where it lies.
	e = r.open(1000)
	asked := ""
	say := func(who string, ok bool) func(context.Context, batch.Object) (bool, error) {
		return func(context.Context, batch.Object) (bool, error) { asked += who; return ok, nil }
	}
	e.Confirm, e.ConfirmTwice = say("hosts ", true), say("stores ", true)
	r.objects = append(r.objects, r.object(1000))
	e.Committed(r.seal(r.objects[5]), r.objects[5:])
	r.evict(e, Heads{Stored: 5, Twice: 6}, 2000)
	if asked != "hosts stores " {
		t.Fatalf("asked %q", asked)
	}
}

// The heads are promises; what goes is what the hosts have by their own word.
func TestEvictConfirms(t *testing.T) {
	r := newRig(t, 4)
	vaults := []store.Store{openLocal(t, t.TempDir()), openLocal(t, t.TempDir()), deadStore{}}
	put := func(i int, o batch.Object) {
		if err := vaults[i].Publish(context.Background(), o.Digest.Path(), make([]byte, o.Size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range r.objects {
		put(0, o)
	}
	put(1, r.objects[0])
	put(1, r.objects[1])
	put(1, batch.Object{Digest: r.objects[2].Digest, Size: 999}) // cut short there
	put(1, r.objects[3])
	e := r.open(0)
	e.Confirm = HeldBy(vaults[:2], 2)
	r.evict(e, Heads{Stored: 4}, 2000)
	r.gone(1, 2)

	// A host that does not answer holds nothing up while enough others do, and is told when they do not.
	e.Confirm = HeldBy(append(slices.Clone(vaults[2:]), vaults[:2]...), 1)
	r.evict(e, Heads{Stored: 3}, 1000)
	e.Confirm = HeldBy(vaults[2:], 1)
	if _, err := e.Once(context.Background(), Heads{Stored: 4}); !errors.Is(err, store.ErrTemporary) {
		t.Fatalf("evict without an answer: %v", err)
	}
	r.gone(1, 2, 3)
}

// deadStore does not answer.
type deadStore struct{ store.Store }

func (deadStore) Stat(context.Context, string) (store.Info, error) {
	return store.Info{}, store.ErrTemporary
}

// brokenRemove cannot remove.
type brokenRemove struct{ store.Store }

func (brokenRemove) Remove(context.Context, string) error { return store.ErrReadOnly }

// Dying between the catalog and the removal: the next start finishes it.
func TestEvictDiesInBetween(t *testing.T) {
	r := newRig(t, 3)
	e := r.open(0)
	e.own = brokenRemove{r.own}
	if freed, err := e.Once(context.Background(), Heads{Stored: 2}); freed != 0 || !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("freed %d, %v", freed, err)
	}
	if unnamed, err := Unnamed(context.Background(), r.own, r.cat); err != nil || len(unnamed) != 0 {
		t.Fatalf("unnamed %v, %v", unnamed, err)
	}
	r.open(0)
	r.gone(1, 2)
}

func TestEvictStep(t *testing.T) {
	r := newRig(t, 1)
	e := r.open(0)
	for range maxStep + 10 {
		o := r.object(16)
		r.update(func(tx *catalog.Tx) error { return tx.PutShard(o.Digest, catalog.ShardInfo{Size: 16, Seq: 2}) })
		e.Committed(2, []batch.Object{o})
		r.usage.Add(16)
	}
	r.evict(e, Heads{Stored: 2}, 1000+(maxStep-1)*16)
	r.evict(e, Heads{Stored: 2}, 11*16)
}

func TestUnnamedShards(t *testing.T) {
	r := newRig(t, 3)
	want := []batch.Object{r.object(10), r.object(20)}
	got, err := Unnamed(context.Background(), r.own, r.cat)
	if err != nil || len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
		t.Fatalf("unnamed %v, %v; want %v", got, err, want)
	}
	if err := r.own.Publish(context.Background(), "shards/00/note.txt", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if again, err := Unnamed(context.Background(), r.own, r.cat); err != nil || len(again) != 2 {
		t.Fatalf("unnamed %v, %v", again, err)
	}
}
