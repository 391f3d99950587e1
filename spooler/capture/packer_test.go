package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// packRig is a packing over a real local store, and what is needed to read its shards again.
type packRig struct {
	*Packing
	t        testing.TB
	dir      string
	faults   *faultyStore
	identity *age.X25519Identity
	known    map[chunk.ID]catalog.Location // what a catalog would have
}

func newPackRig(t testing.TB, workers int) *packRig {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &packRig{t: t, dir: dir, identity: identity, known: map[chunk.ID]catalog.Location{}}
	r.faults = &faultyStore{Store: openLocal(t, dir)}
	lookup := func(id chunk.ID) (catalog.Location, bool, error) {
		loc, ok := r.known[id]
		return loc, ok, nil
	}
	keys := chunk.DeriveKeys(chunk.Secret{1, 2, 3})
	r.Packing = NewPacking(keys, []age.Recipient{identity.Recipient()}, r.faults, lookup, workers)
	return r
}

func openLocal(t testing.TB, dir string) store.Store {
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

// chunkAt reads one piece back out of the store.
func (r *packRig) chunkAt(p batch.Piece) []byte {
	r.t.Helper()
	sealed, err := os.ReadFile(filepath.Join(r.dir, filepath.FromSlash(p.Shard.Path())))
	if err != nil {
		r.t.Fatal(err)
	}
	if shard.Sum(sealed) != p.Shard {
		r.t.Fatalf("shard %s has other bytes than its name says", p.Shard)
	}
	rd, err := shard.Open(bytes.NewReader(sealed), int64(len(sealed)), []age.Identity{r.identity})
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := rd.Chunk(p.Slot, &r.keys)
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

func (r *packRig) flush() {
	r.t.Helper()
	if err := r.FlushAll(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *packRig) add(worker int, data []byte) *placed {
	r.t.Helper()
	p, err := r.packers[worker].add(context.Background(), data)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func mustPiece(t testing.TB, p *placed) batch.Piece {
	t.Helper()
	piece, err := p.piece()
	if err != nil {
		t.Fatal(err)
	}
	return piece
}

// faultyStore is a store whose next publishes or reads go wrong. It fails the test's assumptions, not the store's: everything
// else is the real one.
type faultyStore struct {
	store.Store

	mu           sync.Mutex
	failPublish  error
	persistFirst bool // publish, then fail
	rot          bool // give other bytes back
	published    int
}

func (f *faultyStore) set(fn func(*faultyStore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f)
}

func (f *faultyStore) Publish(ctx context.Context, name string, data []byte) error {
	f.mu.Lock()
	fail, persist := f.failPublish, f.persistFirst
	f.published++
	f.mu.Unlock()
	if fail != nil && !persist {
		return fail
	}
	return errors.Join(f.Store.Publish(ctx, name, data), fail)
}

func (f *faultyStore) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	data, err := f.Store.Read(ctx, name, limit)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rot && len(data) > 0 {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	return data, err
}

func noise(seed uint64, n int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}

func TestPackerRoundTrip(t *testing.T) {
	r := newPackRig(t, 1)
	var want [][]byte
	var got []*placed
	for i := range 300 {
		data := noise(uint64(i), 1+i*37)
		want, got = append(want, data), append(got, r.add(0, data))
	}
	if _, err := got[0].piece(); !errors.Is(err, errUnflushed) {
		t.Fatalf("piece of an open shard: %v, want errUnflushed", err)
	}
	r.flush()
	for i, p := range got {
		if data := r.chunkAt(mustPiece(t, p)); !bytes.Equal(data, want[i]) {
			t.Fatalf("chunk %d came back with other bytes", i)
		}
	}
}

func TestPackerSealsFullShards(t *testing.T) {
	r := newPackRig(t, 1)
	var got []*placed
	for i := range 6 {
		got = append(got, r.add(0, noise(uint64(i), chunk.Max))) // incompressible
	}
	if r.Waiting() == 0 {
		t.Fatal("24 MiB of noise sealed no shard")
	}
	r.flush()
	last := uint64(0)
	for i, p := range got {
		if !bytes.Equal(r.chunkAt(mustPiece(t, p)), noise(uint64(i), chunk.Max)) {
			t.Fatalf("chunk %d came back with other bytes", i)
		}
		if p.serial() < last {
			t.Fatalf("serials go back: %d after %d", p.serial(), last)
		}
		last = p.serial()
	}
	for _, s := range r.TakePublished(100, 0) {
		if s.Size > shard.MaxSize {
			t.Errorf("shard of %d bytes", s.Size)
		}
	}
}

func TestPackerDedup(t *testing.T) {
	r := newPackRig(t, 2)
	data := noise(7, 1000)
	a, b := r.add(0, data), r.add(1, data)
	if a != b {
		t.Fatal("the second packer did not see the first one's reservation")
	}
	r.flush()
	shards := r.TakePublished(100, 0)
	if len(shards) != 1 || len(shards[0].Chunks) != 1 {
		t.Fatalf("published %+v, want one shard with one chunk", shards)
	}
	if c := r.add(1, data); c != a {
		t.Fatal("a published chunk was placed again before the commit")
	}

	r.known[a.id] = shards[0].Chunks[0]
	r.Committed(shards)
	if n := r.index.size(); n != 0 {
		t.Fatalf("%d reservations after the commit, want none", n)
	}
	d := r.add(0, data)
	if got, want := mustPiece(t, d), mustPiece(t, a); got != want {
		t.Fatalf("catalog's place %+v, want %+v", got, want)
	}
	if d.serial() != 0 {
		t.Fatalf("a committed chunk needs shard %d", d.serial())
	}
	r.flush()
	if n := r.Waiting(); n != 0 {
		t.Fatalf("%d more shards for known content", n)
	}
}

// Two packers that meet the same contents at the same time store each once.
func TestPackerDedupConcurrent(t *testing.T) {
	const workers, chunks = 4, 400
	r := newPackRig(t, workers)
	var mu sync.Mutex
	places := map[int]map[*placed]bool{}
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			for i := range chunks {
				p, err := r.packers[w].add(context.Background(), noise(uint64(i), 600+i))
				if err != nil {
					return err
				}
				mu.Lock()
				if places[i] == nil {
					places[i] = map[*placed]bool{}
				}
				places[i][p] = true
				mu.Unlock()
				if i%97 == w {
					if err := r.packers[w].flush(context.Background()); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r.flush()
	stored := 0
	for _, s := range r.TakePublished(1000, 0) {
		stored += len(s.Chunks)
	}
	if stored != chunks {
		t.Fatalf("%d chunks stored for %d contents", stored, chunks)
	}
	for i, ps := range places {
		for p := range ps {
			if !bytes.Equal(r.chunkAt(mustPiece(t, p)), noise(uint64(i), 600+i)) {
				t.Fatalf("content %d came back with other bytes", i)
			}
		}
	}
}

func TestPackerFailedPublish(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*faultyStore)
	}{
		{"failed and not persisted", func(f *faultyStore) { f.failPublish = store.ErrFull }},
		{"failed but persisted", func(f *faultyStore) { f.failPublish, f.persistFirst = store.ErrFull, true }},
		{"other bytes on disk", func(f *faultyStore) { f.rot = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newPackRig(t, 2)
			data := noise(1, 5000)
			lost, other := r.add(0, data), r.add(1, data)
			kept := r.add(1, noise(2, 5000))
			r.faults.set(tc.set)
			if err := r.packers[0].flush(context.Background()); err == nil {
				t.Fatal("the fault was not told")
			}
			for _, p := range []*placed{lost, other} {
				if _, err := p.piece(); err == nil || errors.Is(err, errUnflushed) {
					t.Fatalf("piece of a failed shard: %v", err)
				}
			}
			if n := len(r.TakePublished(10, 0)); n != 0 {
				t.Fatalf("%d shards count as published", n)
			}
			if left := shardFiles(t, r.dir); len(left) != 0 {
				t.Fatalf("left in the store: %v", left)
			}

			// The reservation is gone: the same content is stored anew. The other packer's shard is not touched.
			r.faults.set(func(f *faultyStore) { f.failPublish, f.persistFirst, f.rot = nil, false, false })
			again := r.add(0, data)
			if again == lost {
				t.Fatal("the failed reservation was given out again")
			}
			r.flush()
			if !bytes.Equal(r.chunkAt(mustPiece(t, again)), data) || mustPiece(t, kept).Len != 5000 {
				t.Fatal("content came back with other bytes")
			}
		})
	}
}

func shardFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "shards", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestPackerNoRoom(t *testing.T) {
	r := newPackRig(t, 1)
	known := r.add(0, []byte("known"))
	r.Room = func() bool { return false }
	if _, err := r.packers[0].add(context.Background(), []byte("new")); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("add without room: %v, want ErrNoRoom", err)
	}
	if p := r.add(0, []byte("known")); p != known {
		t.Fatal("known content needs no room")
	}
}

func TestPackerTakePublished(t *testing.T) {
	r := newPackRig(t, 1)
	var told []uint64
	r.OnPublished = func(s Published) { told = append(told, s.Serial) }
	for i := range 7 {
		r.add(0, noise(uint64(i), 1000))
		r.flush()
	}
	var serials []uint64
	for _, take := range []struct {
		max   int
		bytes int64
		want  int
	}{{3, 0, 3}, {3, 1, 1}, {100, 2000, 1}, {1, 1 << 30, 1}, {5, 0, 1}, {5, 0, 0}} {
		got := r.TakePublished(take.max, take.bytes)
		if len(got) != take.want {
			t.Fatalf("TakePublished(%d, %d) gave %d shards, want %d", take.max, take.bytes, len(got), take.want)
		}
		for _, s := range got {
			serials = append(serials, s.Serial)
		}
	}
	if want := "[1 2 3 4 5 6 7]"; fmt.Sprint(serials) != want || fmt.Sprint(told) != want {
		t.Fatalf("handed out %v, told %v, want %s", serials, told, want)
	}
}

func TestIndexLookupError(t *testing.T) {
	r := newPackRig(t, 1)
	broken := errors.New("disk on fire")
	r.index.lookup = func(chunk.ID) (catalog.Location, bool, error) { return catalog.Location{}, false, broken }
	if _, err := r.packers[0].add(context.Background(), []byte("x")); !errors.Is(err, broken) {
		t.Fatalf("add with a broken catalog: %v", err)
	}
}

// A reservation taken over by a later shard of the same content must not be dropped by the earlier shard's commit.
func TestIndexCommittedKeepsYounger(t *testing.T) {
	r := newPackRig(t, 1)
	data := []byte("the same content")
	first := r.add(0, data)
	r.flush()
	old := r.TakePublished(1, 0)
	r.index.withdraw([]*placed{first})
	younger := r.add(0, data)
	r.Committed(old)
	if r.add(0, data) != younger {
		t.Fatal("the younger reservation was dropped with the older shard")
	}
}
