package capture

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/loopdisk"
	"slipway/internal/source"
)

// rig captures files of one directory.
type rig struct {
	*packRig
	*Capturer
	src string
}

func newRig(t testing.TB, src string) *rig {
	t.Helper()
	root, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, root) })
	r := &rig{packRig: newPackRig(t, 1), src: src}
	r.Capturer = &Capturer{root: root, keys: r.packRig.keys}
	return r
}

// mounted makes a file system of its own for files.
func mounted(t testing.TB, kind string) string { return loopdisk.New(t, kind, 512<<20, "") }

func (r *rig) path(name string) string { return filepath.Join(r.src, name) }

func (r *rig) write(name string, data []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), data, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) job(name string, force bool) Job {
	r.t.Helper()
	ident, _, err := source.Stat(unix.AT_FDCWD, r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return Job{ID: 7, Path: name, Ident: ident, Force: force}
}

func (r *rig) take(name string, force bool) Captured {
	r.t.Helper()
	return r.Capture(context.Background(), r.job(name, force), r.packers[0])
}

func (r *rig) mustTake(name string, force bool) Captured {
	r.t.Helper()
	got := r.take(name, force)
	if got.Err != nil {
		r.t.Fatal(got.Err)
	}
	return got
}

// restored flushes and rebuilds the file from the pieces in the shards.
func (r *rig) restored(c *Captured) []byte {
	r.t.Helper()
	r.flush()
	content, err := c.Content()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.rebuild(content)
}

func (r *rig) rebuild(c *batch.Content) []byte {
	r.t.Helper()
	var data []byte
	for _, p := range c.Pieces {
		data = append(data, r.chunkAt(p)...)
	}
	out := make([]byte, 0, c.Size)
	for _, h := range c.Holes {
		n := h.Offset - int64(len(out))
		out = append(out, data[:n]...)
		data = data[n:]
		out = append(out, make([]byte, h.Len)...)
	}
	out = append(out, data...)
	if int64(len(out)) != c.Size {
		r.t.Fatalf("pieces and holes make %d bytes, size is %d", len(out), c.Size)
	}
	return out
}

func TestCaptureSizes(t *testing.T) {
	r := newRig(t, t.TempDir())
	for _, n := range []int{0, 1, 4096, chunk.Min - 1, chunk.Min, chunk.Min + 1, 3<<20 + 17, 9 << 20} {
		data := noise(uint64(n), n)
		r.write("f", data)
		got := r.mustTake("f", false)
		if !got.Clean || got.Size != int64(n) || got.Bytes != int64(n) || got.Attr.Size != int64(n) || got.ID != 7 {
			t.Fatalf("%d bytes: %+v", n, got)
		}
		if !bytes.Equal(r.restored(&got), data) {
			t.Fatalf("%d bytes: content came back changed", n)
		}
		if n < chunk.Min && n > 0 && len(got.pieces) != 1 || n == 0 && len(got.pieces) != 0 {
			t.Fatalf("%d bytes: %d pieces", n, len(got.pieces))
		}
	}
}

func TestCaptureSmallChangeOfBigFile(t *testing.T) {
	r := newRig(t, t.TempDir())
	data := noise(1, 24<<20)
	r.write("f", data)
	before := r.mustTake("f", false)
	r.flush()
	r.TakePublished(1000, 0)
	copy(data[12<<20:], "a small change")
	r.write("f", data)
	after := r.mustTake("f", false)
	if !bytes.Equal(r.restored(&after), data) {
		t.Fatal("content came back changed")
	}
	added := int64(0)
	for _, s := range r.TakePublished(1000, 0) {
		added += s.Size
	}
	if added == 0 || added > 2*chunk.Max || len(before.pieces) < 6 {
		t.Fatalf("a change of 14 bytes adds %d bytes", added)
	}
}

func TestCaptureMetadata(t *testing.T) {
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", []byte("x"))
	if err := unix.Setxattr(r.path("f"), "user.colour", []byte("red"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.path("f"), 0o640); err != nil {
		t.Fatal(err)
	}
	stamp := time.Unix(1_000_000_000, 123456789)
	if err := os.Chtimes(r.path("f"), stamp, stamp); err != nil {
		t.Fatal(err)
	}
	got := r.mustTake("f", false)
	if got.Attr.Mode != unix.S_IFREG|0o640 || got.Attr.Mtime != stamp.UnixNano() || string(got.Xattrs["user.colour"]) != "red" {
		t.Fatalf("attributes %+v, xattrs %v", got.Attr, got.Xattrs)
	}
}

func TestCaptureHoles(t *testing.T) {
	r := newRig(t, mounted(t, "ext4"))
	const mib = 1 << 20
	for _, tc := range []struct {
		name string
		size int64
		data []span
	}{
		{"hole in the middle", 3 * mib, []span{{0, mib}, {2 * mib, 3 * mib}}},
		{"hole at the beginning", 2 * mib, []span{{mib, 2 * mib}}},
		{"hole at the end", 2 * mib, []span{{0, mib}}},
		{"nothing but a hole", 64 * mib, nil},
		{"small", 64 << 10, []span{{8 << 10, 12 << 10}, {60 << 10, 64 << 10}}},
		{"many", 12 * mib, []span{{mib, 2 * mib}, {3 * mib, 7 * mib}, {9 * mib, 9*mib + 4096}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := os.Create(r.path("f"))
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, f)
			if err := f.Truncate(tc.size); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, tc.size)
			total := int64(0)
			for i, s := range tc.data {
				copy(want[s.from:s.to], noise(uint64(i), int(s.to-s.from)))
				if _, err := f.WriteAt(want[s.from:s.to], s.from); err != nil {
					t.Fatal(err)
				}
				total += s.to - s.from
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			got := r.mustTake("f", false)
			if got.Bytes != total || len(got.holes) == 0 || !got.Clean {
				t.Fatalf("read %d bytes of %d, holes %v", got.Bytes, total, got.holes)
			}
			if !bytes.Equal(r.restored(&got), want) {
				t.Fatal("content came back changed")
			}
		})
	}
}

func TestCaptureVanished(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.write("gone", []byte("x"))
	gone := r.job("gone", false)
	if err := os.Remove(r.path("gone")); err != nil {
		t.Fatal(err)
	}
	if got := r.Capture(context.Background(), gone, r.packers[0]); !errors.Is(got.Err, fs.ErrNotExist) {
		t.Fatalf("removed file: %v", got.Err)
	}

	r.write("here", []byte("x"))
	here := r.job("here", false)
	here.Ident.Ino++
	if got := r.Capture(context.Background(), here, r.packers[0]); !errors.Is(got.Err, source.ErrMoved) {
		t.Fatalf("another file: %v", got.Err)
	}

	if err := os.Mkdir(r.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := r.job("dir", false)
	if got := r.Capture(context.Background(), dir, r.packers[0]); !errors.Is(got.Err, source.ErrMoved) {
		t.Fatalf("directory: %v", got.Err)
	}

	if err := unix.Mkfifo(r.path("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	fifo := r.job("fifo", false)
	fifo.Ident = journal.Ident{}
	if got := r.Capture(context.Background(), fifo, r.packers[0]); got.Err == nil {
		t.Fatal("a fifo was captured")
	}
}

// during calls fn while a file of several chunks is being read, at the first n chunks that are new.
func (r *rig) during(n int, fn func(i int)) {
	i := 0
	r.Room = func() bool {
		if i < n {
			i++
			fn(i)
		}
		return true
	}
}

// change rewrites the whole file in place through a handle of its own, as a program would that comes and goes.
func (r *rig) change(name string, seed uint64, size int) []byte {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer closed(r.t, f)
	data := noise(seed, size)
	if _, err := f.WriteAt(data, 0); err != nil {
		r.t.Fatal(err)
	}
	return data
}

func TestCaptureChangedOnce(t *testing.T) {
	const size = 10 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", noise(1, size))
	var want []byte
	r.during(1, func(int) { want = r.change("f", 2, size) })
	got := r.mustTake("f", false)
	if !got.Clean || !bytes.Equal(r.restored(&got), want) {
		t.Fatalf("clean %v, or content is not that of the last write", got.Clean)
	}
}

func TestCaptureAlwaysChanging(t *testing.T) {
	const size = 3 << 20
	for _, force := range []bool{false, true} {
		r := newRig(t, mounted(t, "ext4"))
		r.write("f", noise(1, size))
		r.during(1000, func(i int) { r.change("f", uint64(i+1), size) })
		got := r.take("f", force)
		if !force {
			if !errors.Is(got.Err, ErrChanging) {
				t.Fatalf("without force: %v, want ErrChanging", got.Err)
			}
			continue
		}
		if got.Err != nil || got.Clean || len(r.restored(&got)) != size {
			t.Fatalf("with force: %v, clean %v", got.Err, got.Clean)
		}
	}
}

// mtime put back after the write: ctime tells.
func TestCaptureMtimePutBack(t *testing.T) {
	const size = 3 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", noise(1, size))
	stamp := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(r.path("f"), stamp, stamp); err != nil {
		t.Fatal(err)
	}
	var want []byte
	r.during(1, func(int) {
		want = r.change("f", 2, size)
		if err := os.Chtimes(r.path("f"), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	})
	got := r.mustTake("f", false)
	if !bytes.Equal(r.restored(&got), want) {
		t.Fatal("a change under the old mtime was missed")
	}
}

func TestCaptureTruncatedWhileRead(t *testing.T) {
	r := newRig(t, mounted(t, "ext4"))
	for _, to := range []int64{0, 4096, 2 << 20} {
		r.write("f", noise(uint64(to), 8<<20))
		r.during(1000, func(i int) {
			if err := os.Truncate(r.path("f"), to+int64(i%2)); err != nil { // each try meets another end
				t.Fatal(err)
			}
		})
		got := r.mustTake("f", true)
		if out := r.restored(&got); int64(len(out)) != got.Size {
			t.Fatalf("%d bytes, size %d", len(out), got.Size)
		}
	}
}

func TestCaptureRemovedWhileRead(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.write("f", noise(1, 3<<20))
	r.during(1, func(int) {
		if err := os.Remove(r.path("f")); err != nil {
			t.Fatal(err)
		}
	})
	if got := r.take("f", true); !errors.Is(got.Err, fs.ErrNotExist) {
		t.Fatalf("removed while read: %v", got.Err)
	}
}

func TestCaptureNoRoom(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.write("f", noise(1, 3<<20))
	r.Room = func() bool { return false }
	if got := r.take("f", false); !errors.Is(got.Err, ErrNoRoom) {
		t.Fatalf("capture without room: %v", got.Err)
	}
}

func TestCaptureFailedShard(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.write("a", []byte("content of a"))
	r.write("b", []byte("content of b"))
	a := r.mustTake("a", false)
	broken := errors.New("disk on fire")
	r.faults.set(func(f *faultyStore) { f.failPublish = broken })
	if err := r.FlushAll(context.Background()); !errors.Is(err, broken) {
		t.Fatalf("flush: %v", err)
	}
	r.faults.set(func(f *faultyStore) { f.failPublish = nil })
	if _, err := a.Content(); !errors.Is(err, broken) {
		t.Fatalf("content of a file whose shard failed: %v", err)
	}
	again, b := r.mustTake("a", false), r.mustTake("b", false)
	if string(r.restored(&again)) != "content of a" || string(r.restored(&b)) != "content of b" {
		t.Fatal("content came back changed")
	}
}

func TestCaptureCancelled(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.write("f", noise(1, 3<<20))
	ctx, cancel := context.WithCancel(context.Background())
	r.during(1, func(int) { cancel() })
	if got := r.Capture(ctx, r.job("f", false), r.packers[0]); !errors.Is(got.Err, context.Canceled) {
		t.Fatalf("cancelled: %v", got.Err)
	}
}

// A file of more pieces than one content may name: its list is packed as chunks of its own.
func TestCaptureLists(t *testing.T) {
	r := newRig(t, t.TempDir())
	c := Captured{Clean: true}
	var want []byte
	for i := range 3*batch.MaxPieces + 5 {
		data := noise(uint64(i), 100+i)
		want = append(want, data...)
		c.pieces = append(c.pieces, r.add(0, data))
	}
	c.Size = int64(len(want))
	if err := c.PackLists(context.Background(), r.packers[0]); !errors.Is(err, errUnflushed) {
		t.Fatalf("lists before the flush: %v", err)
	}
	r.flush()
	if !c.NeedsLists() {
		t.Fatal("needs no lists")
	}
	if _, err := c.Content(); !errors.Is(err, errUnlisted) {
		t.Fatalf("content without lists: %v", err)
	}
	if err := c.PackLists(context.Background(), r.packers[0]); err != nil {
		t.Fatal(err)
	}
	r.flush()
	content, err := c.Content()
	if err != nil {
		t.Fatal(err)
	}
	if len(content.Lists) == 0 || len(content.Pieces) != 0 || c.NeedsLists() {
		t.Fatalf("%d lists, %d pieces", len(content.Lists), len(content.Pieces))
	}
	var got []byte
	for _, l := range content.Lists {
		pieces, err := batch.DecodeList(r.chunkAt(l))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pieces {
			got = append(got, r.chunkAt(p)...)
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatal("content came back changed")
	}
	last := uint64(0)
	for _, s := range r.TakePublished(1000, 0) {
		last = s.Serial
	}
	if c.Through() != last {
		t.Fatalf("needs shards through %d, the lists are in %d", c.Through(), last)
	}
}
