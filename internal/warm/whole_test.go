package warm_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/store"
)

// counting counts the shards that are read.
type counting struct {
	store.Store
	mu     sync.Mutex
	shards int
}

func (c *counting) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	if strings.HasPrefix(name, "shards/") {
		c.mu.Lock()
		c.shards++
		c.mu.Unlock()
	}
	return c.Store.Read(ctx, name, limit)
}

// A directory that moves is one rename, however much lies in it.
func TestBigDirectoryMoves(t *testing.T) {
	t.Parallel()
	const files = 10_000
	m, p := newModel(t, 3), newPlace(t)
	big := m.dir(1, "big")
	for i := range files {
		id := m.put(batch.Inode{Mode: unix.S_IFREG | 0o644, Content: m.v.Content(fmt.Sprint(i))})
		m.entries[key{big, fmt.Sprint(i)}] = id
		m.body[key{big, fmt.Sprint(i)}] = true
	}
	m.seal(true, nil)
	c := &counting{Store: m.v.Stores[0].Store}
	m.v.Stores = []chain.NamedStore{{Name: "vault1", Store: c}}
	w := open(t, m, p)
	defer shut(t, w)
	start := time.Now()
	apply(t, w)
	t.Logf("%d files applied in %v", files, time.Since(start))
	read := c.shards

	before := inodes(t, filepath.Join(p.dir, "big"))
	m.move(key{1, "big"}, key{m.dir(1, "other"), "small"})
	m.seal(true, nil)
	start = time.Now()
	apply(t, w)
	t.Logf("moved in %v", time.Since(start))
	if read == 0 || c.shards != read {
		t.Errorf("%d shards read, then %d", read, c.shards-read)
	}
	if after := inodes(t, filepath.Join(p.dir, "other", "small")); !maps.Equal(before, after) || len(after) != files {
		t.Errorf("the files are others: %d, %d", len(before), len(after))
	}
	if _, err := os.Lstat(filepath.Join(p.dir, "big")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func inodes(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]uint64)
	for _, e := range list {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, e.Name()), &st); err != nil {
			t.Fatal(err)
		}
		m[e.Name()] = st.Ino
	}
	return m
}

// An epoch that was begun behind an older batch takes what came after that back; what stays is not written again.
func TestEpochBehindTheAppliedBatch(t *testing.T) {
	m, p := newModel(t, 4), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(m.dir(1, "dir"), "stays", "stays")
	m.file(1, "taken back", "as it was")
	m.seal(true, nil)
	entries, files, next, prev := maps.Clone(m.entries), maps.Clone(m.inodes), m.v.Next, m.v.Prev
	m.file(1, "side", "of the side branch")
	m.drop(1, "taken back")
	m.seal(true, nil)
	m.file(1, "side 2", "of the side branch")
	m.seal(true, nil)
	if at := apply(t, w); at.Seq != 3 {
		t.Fatalf("at %+v", at)
	}
	stays := inodes(t, filepath.Join(p.dir, "dir"))

	m.entries, m.inodes, m.v.Next, m.v.Prev, m.v.Epoch = entries, files, next, prev, 2
	m.file(1, "new", "of the new epoch")
	m.seal(true, nil)
	m.file(1, "new 2", "where the side branch has a batch as well")
	m.seal(true, nil)
	m.file(1, "new 3", "of the number that follows the applied one")
	m.seal(true, nil)
	if at := apply(t, w); at.Seq != 4 || at.Epoch != 2 {
		t.Fatalf("at %+v", at)
	}
	same(t, restored(t, m, 4), volumetest.Scan(t, p.dir))
	if !maps.Equal(stays, inodes(t, filepath.Join(p.dir, "dir"))) {
		t.Error("what did not change was written again")
	}
	if _, err := os.Lstat(filepath.Join(p.dir, "side")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	m.file(1, "newer", "increment")
	m.v.Epoch = 3 // begun right behind what is applied
	m.seal(true, nil)
	said := strings.Count(p.log.String(), "as a whole")
	apply(t, w)
	same(t, restored(t, m, 5), volumetest.Scan(t, p.dir))
	if strings.Count(p.log.String(), "as a whole") != said {
		t.Error("compared as a whole though the batches follow one another")
	}
}

// A base that does not reach back to what is applied.
func TestBaseMoved(t *testing.T) {
	m, p := newModel(t, 5), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(1, "one", "1")
	m.file(1, "gone", "gone")
	m.seal(true, nil)
	apply(t, w)
	one := inodes(t, p.dir)["one"]
	m.drop(1, "gone")
	m.file(1, "two", "2")
	m.seal(true, nil)
	m.v.Base = 3
	m.sealFull(nil)
	for _, dead := range []batch.Seq{1, 2} {
		if err := os.Remove(m.v.Dirs[0] + "/" + batch.Path(1, dead, dead)); err != nil {
			t.Fatal(err)
		}
	}
	if at := apply(t, w); at.Seq != 3 {
		t.Fatalf("at %+v", at)
	}
	same(t, restored(t, m, 3), volumetest.Scan(t, p.dir))
	if inodes(t, p.dir)["one"] != one {
		t.Error("what did not change was written again")
	}
}

// Content that no store has is among the lacks, keeps nothing else from being applied, and is there when it is back.
func TestUnreadableContent(t *testing.T) {
	m, p := newModel(t, 6), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(1, "lost", "not to be had")
	s := m.seal(true, nil)
	m.file(1, "fine", "to be had")
	m.seal(true, nil)
	shard := m.v.Dirs[0] + "/" + s.Envelope.Introduces[0].Digest.Path()
	data, err := os.ReadFile(shard)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	at, err := w.ApplyOnce(context.Background())
	if err != nil || at.Seq != 2 {
		t.Fatalf("at %+v, %v", at, err)
	}
	got := inodes(t, p.dir)
	if lacks, err := w.Lacks(); err != nil || len(lacks) != 1 || lacks[0].Path != "lost" || got["lost"] != 0 || got["fine"] == 0 {
		t.Fatalf("%v, %v, %v", lacks, err, got)
	}
	if err := os.WriteFile(shard, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m.file(1, "next", "a step")
	m.seal(true, nil)
	apply(t, w)
	same(t, restored(t, m, 3), volumetest.Scan(t, p.dir))
	if lacks, err := w.Lacks(); err != nil || len(lacks) != 0 {
		t.Errorf("%v, %v", lacks, err)
	}
}

// A directory in the tree twice, an entry without a file, one below a directory that is not there: what a restore leaves out
// is left out here, and comes when it can.
func TestOddTrees(t *testing.T) {
	m, p := newModel(t, 8), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	a := m.dir(1, "a")
	m.file(a, "f", "in a")
	m.seal(true, nil)
	apply(t, w)
	check := func() {
		t.Helper()
		m.whole++
		at := apply(t, w)
		same(t, restored(t, m, at.Seq), volumetest.Scan(t, p.dir))
		if at.Seq != m.whole {
			t.Errorf("at %+v", at)
		}
	}
	// Nothing is odd yet, so each of these has to be noticed in the change itself.
	dir := func(id batch.FileID) batch.Inode { return batch.Inode{ID: id, Mode: unix.S_IFDIR | 0o700, Mtime: 5} }
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 60, Name: "early", ID: 61}}, Inodes: []batch.Inode{dir(61)}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "late", ID: 60}}, Inodes: []batch.Inode{dir(60)}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "one", ID: 62}, {Parent: 1, Name: "two", ID: 62}}, Inodes: []batch.Inode{dir(62)}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "b", ID: a}, {Parent: 1, Name: "no file", ID: 70}}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "a"}, {Parent: 80, Name: "inside", ID: 81}}, Inodes: []batch.Inode{dir(81)}}, nil)
	check()
	m.v.Seal(&batch.Body{Inodes: []batch.Inode{dir(70), dir(80)}, Entries: []batch.Entry{{Parent: 1, Name: "outside", ID: 80}}}, nil)
	check()
	// Two directories that are moved into one another are part of nothing any more.
	m.v.Seal(&batch.Body{Entries: []batch.Entry{
		{Parent: 1, Name: "outside"}, {Parent: 1, Name: "no file"}, {Parent: 70, Name: "x", ID: 80}, {Parent: 80, Name: "y", ID: 70},
	}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 80, Name: "y"}, {Parent: 1, Name: "back", ID: 70}}}, nil)
	check()
	long := strings.Repeat("l", 300)
	m.v.Seal(&batch.Body{Inodes: []batch.Inode{dir(90), dir(91)}, Entries: []batch.Entry{{Parent: 1, Name: long, ID: 90}, {Parent: 90, Name: "in it", ID: 91}}}, nil)
	check()
	m.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: long}, {Parent: 1, Name: "short", ID: 90}}}, nil)
	check()
	m.v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: a, Mode: unix.S_IFIFO | 0o600}}}, nil) // an id that becomes something else
	check()
}
