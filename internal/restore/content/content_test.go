package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/store"
)

// counting counts reads, and how many run at once.
type counting struct {
	store.Store
	mu        sync.Mutex
	seen      map[string]int
	now, most int
}

func (c *counting) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	c.mu.Lock()
	c.seen[name]++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	return c.Store.Read(ctx, name, limit)
}

// reader opens a volume whose content a test has made.
func reader(t testing.TB, v *volumetest.Volume) (*Reader, *counting) {
	t.Helper()
	v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: 1, Mode: unix.S_IFDIR}}}, nil)
	src := v.Source()
	count := &counting{Store: v.Stores[0].Store, seen: make(map[string]int)}
	src.Stores = []chain.NamedStore{{Name: "vault1", Store: count}}
	l, err := chain.Open(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	keys := chunk.DeriveKeys(v.Secret)
	return NewReader(l.Reader, &keys), count
}

func TestLayout(t *testing.T) {
	c := &batch.Content{Size: 30, Holes: []batch.Hole{{Offset: 0, Len: 2}, {Offset: 5, Len: 5}, {Offset: 10, Len: 1}, {Offset: 20, Len: 10}}}
	l, err := newLayout(c)
	if err != nil {
		t.Fatal(err)
	}
	var got []part
	for _, n := range []int64{1, 5, 6} {
		parts, err := l.place(n)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, parts...)
	}
	want := []part{{2, 0, 1}, {3, 0, 2}, {11, 2, 5}, {14, 0, 6}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(part{})); d != "" {
		t.Error(d)
	}
	if err := l.rest(); err != nil {
		t.Error(err)
	}
	if _, err := l.place(1); !errors.Is(err, batch.ErrCorrupt) {
		t.Errorf("more than fits: %v", err)
	}
}

// Whatever the sizes and holes, Copy and WriteAt give what the file held.
func TestAnyLayout(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := volumetest.New(t, "vault1")
		var want, data []byte
		c := &batch.Content{Clean: true}
		for i := range rapid.IntRange(0, 6).Draw(rt, "runs") {
			run := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "run")
			if i%2 == 0 {
				want, data = append(want, run...), append(data, run...)
				continue
			}
			c.Holes = append(c.Holes, batch.Hole{Offset: int64(len(want)), Len: int64(len(run))})
			want = append(want, make([]byte, len(run))...)
		}
		c.Size = int64(len(want))
		c.Pieces = v.Pieces(data, rapid.IntRange(1, 50).Draw(rt, "chunk size"))
		r, _ := reader(t, v)
		var b strings.Builder
		if err := r.Copy(context.Background(), c, &b); err != nil || b.String() != string(want) {
			rt.Errorf("copied %q, want %q: %v", b.String(), want, err)
		}
		path := filepath.Join(t.TempDir(), "file")
		f, err := os.Create(path)
		if err != nil {
			rt.Fatal(err)
		}
		wrote := int64(0)
		var mu sync.Mutex
		err = errors.Join(f.Truncate(c.Size), r.WriteAt(context.Background(), c, f, func(n int64) { mu.Lock(); wrote += n; mu.Unlock() }), f.Close())
		got, rerr := os.ReadFile(path)
		if err != nil || rerr != nil || string(got) != string(want) || wrote != int64(len(data)) {
			rt.Errorf("wrote %q (%d), want %q: %v", got, wrote, want, errors.Join(err, rerr))
		}
	})
}

// noise is data that does not compress, so that shards fill up.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		b[i] = byte(seed)
	}
	return b
}

// Many readers of few shards read each once; more shards than fit in memory are read again rather than kept.
func TestCache(t *testing.T) {
	v := volumetest.New(t, "vault1")
	var files []*batch.Content
	for i := range 3 {
		files = append(files, &batch.Content{Size: 15 << 20, Pieces: v.Pieces(noise(uint64(i+1), 15<<20), 1<<20), Clean: true})
	}
	r, count := reader(t, v)
	var g errgroup.Group
	for range 4 {
		for _, c := range files {
			g.Go(func() error {
				var b strings.Builder
				return r.Copy(context.Background(), c, &b)
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	shards := 0
	for name, n := range count.seen {
		if strings.HasPrefix(name, "shards/") {
			shards++
			if n != 1 {
				t.Errorf("%s was read %d times", name, n)
			}
		}
	}
	if shards < 6 || count.most > loads || r.bytes > cacheBytes {
		t.Errorf("%d shards, %d reads at once, %d bytes kept", shards, count.most, r.bytes)
	}
}

func TestCacheIsBounded(t *testing.T) {
	v := volumetest.New(t, "vault1")
	c := &batch.Content{Size: 90 << 20, Pieces: v.Pieces(noise(1, 90<<20), 4<<20), Clean: true}
	r, _ := reader(t, v)
	if err := r.Copy(context.Background(), c, discard{}); err != nil {
		t.Fatal(err)
	}
	kept := int64(0)
	for e := r.recent.Front(); e != nil; e = e.Next() {
		kept += e.Value.(*cached).size
	}
	if kept != r.bytes || kept > cacheBytes || len(r.shards) != r.recent.Len() || len(r.shards) < 6 {
		t.Errorf("%d bytes kept, %d counted, %d shards, %d in order", kept, r.bytes, len(r.shards), r.recent.Len())
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// One reader that gives up does not take the others with it.
func TestCancelledReaderHarmsNobody(t *testing.T) {
	v := volumetest.New(t, "vault1")
	c := v.Content("content")
	r, _ := reader(t, v)
	first, mine := r.claim(c.Pieces[0].Shard)
	if !mine {
		t.Fatal("somebody reads already")
	}
	var g errgroup.Group
	g.Go(func() error {
		var b strings.Builder
		err := r.Copy(context.Background(), c, &b)
		if b.String() != "content" {
			return fmt.Errorf("%q: %w", b.String(), err)
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.load(ctx, first)
	if !errors.Is(first.err, context.Canceled) {
		t.Errorf("%v", first.err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// What comes from the stores is told apart from what the writer says.
func TestErrors(t *testing.T) {
	v := volumetest.New(t, "vault1")
	c := v.Content("content")
	r, _ := reader(t, v)
	var read *Error
	full := func([]byte) (int, error) { return 0, unix.ENOSPC }
	if err := r.Copy(context.Background(), c, writer(full)); errors.As(err, &read) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	lost := *c
	lost.Pieces = []batch.Piece{c.Pieces[0]}
	lost.Pieces[0].Shard[0] ^= 1
	if err := r.Copy(context.Background(), &lost, discard{}); !errors.As(err, &read) || !errors.Is(err, chain.ErrMissing) {
		t.Errorf("a lost shard: %v", err)
	}
	if len(r.shards) != 1 {
		t.Errorf("%d shards kept, a lost one among them", len(r.shards))
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
