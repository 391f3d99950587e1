package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// stats describes every object below dir as stat(2) shows it, times and all; atime is left out, because looking changes it.
func stats(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("ino %d mode %o nlink %d owner %d:%d rdev %d size %d mtime %d ctime %d blocks %d",
			st.Ino, st.Mode, st.Nlink, st.Uid, st.Gid, st.Rdev, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Blocks)
		return nil
	}))
	return out
}

// TestNothingStale does every operation while the kernel has everything cached for an hour, and compares what the mount then
// shows with what lies below: link counts and times of other names and of directories, too.
func TestNothingStale(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			for _, s := range steps() {
				stats(t, f.mnt) // fills the cache
				if err := s.do(f); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if diff := cmp.Diff(stats(t, f.source), stats(t, f.mnt)); diff != "" {
					t.Errorf("after %s: source (-) and mount (+) differ:\n%s", s.name, diff)
				}
			}
		})
	}
}

// TestMappingMovesTimes: a store through a shared mapping shows in the times, while the file is open and after it is closed
// (V16), and again when a second store follows a sync.
func TestMappingMovesTimes(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.path("map"), make([]byte, 8192), 0o644))
	mtime := func(dir string) int64 {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, "map"), &st))
		return st.Mtim.Nano()
	}
	fd, err := unix.Open(f.path("map"), unix.O_RDWR, 0)
	must(t, err)
	mem, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	stored := func(when string, i int) {
		t.Helper()
		before := mtime(f.mnt)
		poll(t, "the clock of the file system moves on", func() bool {
			must(t, unix.Msync(mem, unix.MS_SYNC)) // clean pages: the next store is seen
			mem[i]++
			return mtime(f.source) != before
		})
		if got, want := mtime(f.mnt), mtime(f.source); got != want {
			t.Errorf("%s: the mount shows mtime %d, it is %d", when, got, want)
		}
	}
	stored("while open", 0)
	must(t, unix.Close(fd))
	stored("after close", 4096)
	stored("after close, again", 1)
	must(t, unix.Munmap(mem))
	if got, err := os.ReadFile(f.path("map")); err != nil || got[0] == 0 || got[4096] == 0 {
		t.Errorf("stores are missing: %v, %v", got[:2], err)
	}
	// In the end the attributes may be cached again; that no one has to ask is seen by asking below and changing nothing.
	stats(t, f.mnt)
}

// TestOpenEndsCaching: times that were cached before a file is opened for writing are not believed afterwards, not even by
// someone who asks for nothing but the mtime.
func TestOpenEndsCaching(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.below("map"), make([]byte, 4096), 0o644)) // below, so that the mount finds it settled
	must(t, os.Chtimes(f.below("map"), time.Unix(1, 0), time.Unix(2, 0)))
	mtime := func() int64 {
		var st unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, f.path("map"), 0, unix.STATX_MTIME, &st))
		return st.Mtime.Sec
	}
	if got := mtime(); got != 2 {
		t.Fatalf("mtime %d", got)
	}
	fd, err := unix.Open(f.path("map"), unix.O_RDWR, 0)
	must(t, err)
	defer closingFd(fd)
	mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	mem[0] = 1
	if got := mtime(); got == 2 {
		t.Error("the store does not show")
	}
	must(t, unix.Munmap(mem))
}

// TestSettled: a file is settled when nobody can write to it any more, and not as long as a mapping lives.
func TestSettled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, make([]byte, 4096), 0o644))
	dir, err := os.Open(filepath.Dir(path))
	must(t, err)
	defer closing(dir)
	f, err := newFilesystem(&Options{Source: dir}, nil, 100)
	must(t, err)
	defer f.close()
	var out fuse.EntryOut
	must(t, f.lookup(f.nodes.root, "file", &out))
	n, err := f.nodes.get(out.NodeId)
	must(t, err)
	n.unsettled.Store(true)

	writer, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	mem, err := unix.Mmap(int(writer.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, writer.Close())
	if f.settled(n) || !n.unsettled.Load() {
		t.Error("settled with a mapping")
	}
	n.writers = 1
	if !f.settled(n) || !n.unsettled.Load() {
		t.Error("opened again: that handle's release has it probed")
	}
	n.writers = 0
	must(t, unix.Munmap(mem))
	if !f.settled(n) || n.unsettled.Load() {
		t.Error("not settled with nobody writing")
	}
}

// TestSettlerWaits: a probe comes again, ever later, until it succeeds, and then no more.
func TestSettlerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		ctx, stop := context.WithCancel(t.Context())
		s := &settler{wake: make(chan struct{}, 1)}
		s.step = func(*node) bool {
			at = append(at, time.Since(start))
			return len(at) == 12
		}
		root := &node{id: 1, lookups: 1}
		s.add(root, newNodeTable(root, 0))
		var g errgroup.Group
		g.Go(func() error { s.run(ctx); return nil })
		time.AfterFunc(time.Hour, stop)
		must(t, g.Wait())
		if len(at) != 12 || at[0] != firstProbe || at[11]-at[10] != lastProbe {
			t.Errorf("probed at %v", at)
		}
	})
}

// TestBehindTheKernelsBack: a file that the kernel believes not to be there is opened, not created; the journal must not take
// it for a new one.
func TestBehindTheKernelsBack(t *testing.T) {
	f := mounted(t)
	for name, flags := range map[string]int{"kept": 0, "cut": unix.O_TRUNC} {
		if _, err := os.Lstat(f.path(name)); !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
		must(t, os.WriteFile(f.below(name), []byte("old"), 0o600))
		records := f.since(func() {
			fd, err := unix.Open(f.path(name), unix.O_CREAT|unix.O_RDWR|flags, 0o644)
			must(t, err)
			_, err = unix.Pwrite(fd, []byte("N"), 0)
			must(t, err)
			must(t, unix.Close(fd))
		})
		want, content := []journal.Op{journal.OpOpen}, "Nld"
		if flags != 0 {
			want, content = append(want, journal.OpTruncate), "N"
		}
		if diff := cmp.Diff(want, ops(records)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got, err := os.ReadFile(f.path(name)); err != nil || string(got) != content {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
	}
}

// TestModeIsSticky: an open file stays readable and writable whatever happens to its bits, and in whatever order it is opened
// again.
func TestModeIsSticky(t *testing.T) {
	f := mounted(t)
	for _, bits := range [][2]uint32{{0o755, 0o6755}, {0o6755, 0o755}} {
		path := f.path(fmt.Sprintf("%o", bits[0]))
		must(t, os.WriteFile(path, []byte("content"), 0o600))
		must(t, unix.Chmod(path, bits[0]))
		first, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		must(t, unix.Chmod(path, bits[1]))
		second, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Errorf("second open after chmod %o → %o: %v", bits[0], bits[1], err)
			continue
		}
		for _, file := range []*os.File{first, second} {
			if _, err := file.WriteAt([]byte("C"), 0); err != nil {
				t.Error(err)
			}
		}
		must(t, first.Close())
		must(t, second.Close())
		third, err := os.ReadFile(path)
		if err != nil || string(third) != "Content" {
			t.Errorf("read %q, %v", third, err)
		}
	}
}

// TestPagesAfterPassthrough: what was cached of a file while this process served it is not shown any more after it was
// written in passthrough.
func TestPagesAfterPassthrough(t *testing.T) {
	f := mounted(t)
	path := f.path("file")
	must(t, os.WriteFile(path, []byte("first"), 0o755))
	read := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
	}
	var before unix.Stat_t
	must(t, unix.Stat(path, &before))
	keepTimes := func() { // so that it is not the changed mtime that makes the kernel drop its pages
		must(t, unix.UtimesNano(path, []unix.Timespec{before.Atim, before.Mtim}))
	}
	for i, content := range []string{"one..", "two..", "three"} {
		closed := func() { poll(t, "released", func() bool { return f.openForWrite() == 0 }) }
		must(t, unix.Chmod(path, 0o4755))
		file, err := os.OpenFile(path, os.O_RDWR, 0) // served
		must(t, err)
		buf := make([]byte, 5)
		_, err = file.ReadAt(buf, 0)
		must(t, err)
		must(t, file.Close())
		closed()
		must(t, unix.Chmod(path, 0o755))
		file, err = os.OpenFile(path, os.O_RDWR, 0) // passthrough
		must(t, err)
		_, err = file.WriteAt([]byte(content), 0)
		must(t, err)
		must(t, file.Close())
		closed()
		keepTimes()
		must(t, unix.Chmod(path, 0o4755))
		read(content)
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// TestRefusedPassthrough: a file below that the kernel does not take for passthrough (it lies on an overlay) is served, all
// its opens, and no other file is the worse for it (V8).
func TestRefusedPassthrough(t *testing.T) {
	f := newFixture(t)
	inner := f.below("inner")
	layers := filepath.Join(filepath.Dir(f.source), "layers")
	for _, d := range []string{inner, layers + "/lower", layers + "/upper", layers + "/work"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, os.WriteFile(layers+"/lower/file", []byte("below"), 0o644))
	must(t, unix.Mount("overlay", inner, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", layers, layers, layers)))
	t.Cleanup(func() { must(t, unix.Unmount(inner, 0)) })
	f.serve()
	t.Cleanup(f.stop) // before the overlay goes

	records := f.since(func() {
		normal, err := os.OpenFile(f.path("normal"), os.O_RDWR|os.O_CREATE, 0o644)
		must(t, err)
		defer closing(normal)
		for range 2 {
			file, err := os.OpenFile(f.path("inner/file"), os.O_RDWR, 0)
			must(t, err)
			defer closing(file)
			_, err = file.WriteAt([]byte("BE"), 0)
			must(t, err)
		}
		again, err := os.OpenFile(f.path("normal"), os.O_RDWR, 0)
		must(t, err)
		defer closing(again)
		_, err = again.WriteString("still passed through")
		must(t, err)
		must(t, os.WriteFile(f.path("inner/new"), []byte("x"), 0o600))
		must(t, os.Remove(f.path("inner/new")))
	})
	if got, err := os.ReadFile(layers + "/upper/file"); err != nil || string(got) != "BElow" {
		t.Errorf("the overlay's file holds %q, %v", got, err)
	}
	// A write that is served is journaled; another file system is no part of the volume, so nothing of it is.
	if diff := cmp.Diff(ops(records), ops(f.records())[1:4]); diff != "" || len(ops(records)) != 3 {
		t.Errorf("journaled %v, want the creation and two opens of the normal file only", ops(records))
	}
	var here, there unix.Stat_t
	must(t, unix.Stat(f.path("inner"), &here))
	must(t, unix.Stat(f.path("normal"), &there))
	if here.Ino>>63 != 1 || there.Ino>>63 != 0 {
		t.Errorf("inode numbers %x of the other file system and %x of the source", here.Ino, there.Ino)
	}
}

// recorder keeps what would be journaled.
type recorder struct{ ops []journal.Op }

func (r *recorder) AppendSoon(rec *journal.Record) { r.Append(rec) }

func (r *recorder) Append(rs ...*journal.Record) {
	for _, rec := range rs {
		r.ops = append(r.ops, rec.Op)
	}
}

// TestReleaseRemaining: handles that are left when the mount has gone without force are journaled as released, those for
// writing only, and closed.
func TestReleaseRemaining(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer closing(dir)
	var j recorder
	f, err := newFilesystem(&Options{Source: dir}, &j, 100)
	must(t, err)
	defer f.close()
	for _, write := range []bool{true, false} {
		fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		f.handles.add(&handle{node: f.nodes.root, fd: fd, write: write})
	}
	f.releaseRemaining()
	if diff := cmp.Diff([]journal.Op{journal.OpRelease}, j.ops); diff != "" || len(f.handles.byID) > 0 {
		t.Errorf("journaled %s; %d handles left", diff, len(f.handles.byID))
	}
}
