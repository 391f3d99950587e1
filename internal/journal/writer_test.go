package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// TestAppendOrder: from many goroutines each one's records come in its order, none is missing, across files.
func TestAppendOrder(t *testing.T) {
	const writers, each = 16, 3000
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	start(t, w)
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			for n := range each {
				a := &Record{Op: OpCreate, Node: Ident{FS: uint64(i) + 1, Ino: uint64(n) + 1}, Name: strings.Repeat("x", 300)}
				b := &Record{Op: OpAttr, Node: a.Node}
				w.Append(a, b)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, why := w.Gaps(); n > 0 {
		t.Fatalf("%d gaps: %v", n, why)
	}
	r := open(t, dir, Position{})
	var seen [writers]uint64
	for range writers * each {
		a, _, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if a.Op != OpCreate || b.Op != OpAttr || a.Node != b.Node {
			t.Fatalf("records of one append are apart: %v, %v", a, b)
		}
		i := a.Node.FS - 1
		seen[i]++
		if a.Node.Ino != seen[i] {
			t.Fatalf("goroutine %d: record %d comes as number %d", i, a.Node.Ino, seen[i])
		}
	}
	expect(t, r)
	if files, err := starts(w.dir); err != nil || len(files) < 2 {
		t.Errorf("%d files, %v: the journal has not been rotated", len(files), err)
	}
}

func TestAppendNothing(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	w.Append()
	w.flush()
	expect(t, open(t, dir, Position{}))
}

// TestAppendWithoutRun: nobody writes; the first operation waits a second, those after it do not, and all are told of.
func TestAppendWithoutRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := create(t, dir)
		began := time.Now()
		w.Append(&Record{Op: OpCreate, Name: "a"})
		if d := time.Since(began); d != appendWait {
			t.Errorf("waited %v", d)
		}
		w.Append(&Record{Op: OpCreate, Name: "b"})
		if d := time.Since(began); d != appendWait {
			t.Errorf("the second append waited too: %v", d)
		}
		if n, why := w.Gaps(); n != 1 || !errors.Is(why, errLate) {
			t.Errorf("%d gaps: %v", n, why)
		}
		w.flush()
		put(t, w, "c")
		expect(t, open(t, dir, Position{}), "a", "b", "("+errLate.Error()+")", "c")
	})
}

// TestAppendAfterRun: what is queued when Run is told to end is written, what comes later is answered at once.
func TestAppendAfterRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := create(t, dir)
		if w.enqueue([]*Record{{Op: OpCreate, Name: "a"}}) == nil {
			t.Fatal("given up")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.Append(&Record{Op: OpCreate, Name: "b"})
		if d := time.Since(began); d != 0 {
			t.Errorf("waited %v", d)
		}
		if n, why := w.Gaps(); n != 1 || !errors.Is(why, errClosed) {
			t.Errorf("%d gaps: %v", n, why)
		}
		expect(t, open(t, dir, Position{}), "a")
	})
}

func TestQueueFull(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	big := &Record{Op: OpSetXattr, Name: "big", XattrValue: make([]byte, 64<<10)}
	n := 0
	for w.enqueue([]*Record{big}) != nil {
		n++
	}
	if n < 64 || n > 65 {
		t.Errorf("%d records of 64 KiB fit in the queue", n)
	}
	if w.enqueue([]*Record{{Op: OpCreate, Name: "small"}}) != nil {
		t.Error("a record is queued behind a lost one, before the gap")
	}
	w.flush()
	put(t, w, "after")
	want := []string{}
	for range n {
		want = append(want, "big")
	}
	expect(t, open(t, dir, Position{}), append(want, "("+errQueue.Error()+")", "after")...)
}

// TestRecordTooLargeIsGap: the gap stands where the record would.
func TestRecordTooLargeIsGap(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a")
	if w.enqueue([]*Record{{Op: OpCreate, Name: "half"}, {Op: OpCreate, Name: strings.Repeat("n", 1<<16)}}) != nil {
		t.Fatal("queued")
	}
	put(t, w, "b")
	got, _ := rest(t, open(t, dir, Position{}))
	if len(got) != 3 || got[0] != "a" || got[1][0] != '(' || got[2] != "b" {
		t.Errorf("read %q", got)
	}
}

// smallDisk is a file system of its own that holds size bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskFull: a full disk costs records, which are told of, and nothing else: what was answered before is there, what
// comes after the disk has room again is there, and the record cut in the middle is in nobody's way.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t, "128k")
	dir := filepath.Join(disk, "journal")
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	start(t, w)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, Position{})
	for round := range 3 {
		var want []string
		appendOne := func(i int) bool {
			name := fmt.Sprintf("%d-%d-%s", round, i, strings.Repeat("x", 1000))
			before, _ := w.Gaps()
			w.Append(&Record{Op: OpCreate, Name: name})
			after, _ := w.Gaps()
			if before == after {
				want = append(want, name)
			}
			return before == after
		}
		i := 0
		for ; appendOne(i); i++ {
			if i > 1000 {
				t.Fatal("the disk is not full")
			}
		}
		for range 3 { // still full: each is answered, none waits
			i++
			began := time.Now()
			if appendOne(i) || time.Since(began) >= appendWait {
				t.Fatalf("append %d to a full disk", i)
			}
		}
		if _, why := w.Gaps(); !errors.Is(why, unix.ENOSPC) {
			t.Fatal(why)
		}
		if err := os.Truncate(ballast, 0); err != nil {
			t.Fatal(err)
		}
		if !appendOne(i + 1) {
			_, why := w.Gaps()
			t.Fatalf("append after there is room: %v", why)
		}
		last := want[len(want)-1]
		got, pos := rest(t, r)
		checkGap(t, got, want[:len(want)-1], last)
		if err := r.Trim(pos); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ballast, make([]byte, 32<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkGap: got is before, at least one gap, then after. Records that were given up may be there or not.
func checkGap(t *testing.T, got, before []string, after string) {
	t.Helper()
	if len(got) < len(before)+2 || fmt.Sprint(got[:len(before)]) != fmt.Sprint(before) {
		t.Fatalf("%d records before the gap are not all there", len(before))
	}
	gaps := 0
	for _, name := range got[len(before) : len(got)-1] {
		if name[0] == '(' {
			gaps++
		}
	}
	if gaps == 0 || got[len(got)-1] != after || got[len(got)-2][0] != '(' {
		t.Fatalf("%d gaps before the record after the gap", gaps)
	}
}

// TestGapIsToldWithoutAppends: when the disk has room again the gap is told even if nothing else happens.
func TestGapIsToldWithoutAppends(t *testing.T) {
	disk := smallDisk(t, "64k")
	dir := filepath.Join(disk, "journal")
	synctest.Test(t, func(t *testing.T) {
		w := create(t, dir)
		ballast := filepath.Join(disk, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		for w.gaps == 0 { // fills the page that is there
			w.enqueue([]*Record{{Op: OpCreate, Name: strings.Repeat("a", 100)}})
			w.flush()
		}
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return w.Run(ctx) })
		<-time.After(3*gapRetry + gapRetry/2)
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		<-time.After(gapRetry)
		synctest.Wait()
		got, _ := rest(t, open(t, dir, Position{}))
		if len(got) == 0 || got[len(got)-1][0] != '(' {
			t.Errorf("read %q", got)
		}
		if n, _ := w.Gaps(); n != 1 {
			t.Errorf("one gap is counted %d times", n)
		}
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestFailedWriteBeforeQueued: a gap is told between what a failed write lost and what was queued while it failed.
func TestFailedWriteBeforeQueued(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a")
	good := w.file
	bad, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bad.Close() })
	w.enqueue([]*Record{{Op: OpCreate, Name: "lost"}})
	g := w.take()
	w.enqueue([]*Record{{Op: OpCreate, Name: "queued"}})
	w.file = bad
	failure := w.write(g.buf)
	w.file = good
	w.failLocked(g, failure)
	w.flush()
	got, _ := rest(t, open(t, dir, Position{}))
	if len(got) != 3 || got[0] != "a" || got[1][0] != '(' || got[2] != "queued" {
		t.Errorf("read %q", got)
	}
	if n, why := w.Gaps(); n != 1 || !errors.Is(why, unix.ENOSPC) {
		t.Errorf("%d gaps: %v", n, why)
	}
}

// TestCreateSweeps: what a Create or Trim left that died is removed, and instances are not.
func TestCreateSweeps(t *testing.T) {
	dir := t.TempDir()
	w1 := create(t, dir)
	put(t, w1, "a")
	for _, name := range []string{newPrefix + "00000002-0000000000000001", oldPrefix + "00000001-0000000000000001"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w2 := create(t, dir)
	names := readNames(t, dir)
	want := []string{filepath.Base(w1.dir), filepath.Base(w2.dir), "notes.txt"}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("left %q, want %q", names, want)
	}
	info, err := os.Stat(w2.dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

func readNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestCreateOnFullDisk: an error, and nothing half made.
func TestCreateOnFullDisk(t *testing.T) {
	disk := smallDisk(t, "16k")
	dir := filepath.Join(disk, "journal")
	if err := os.WriteFile(filepath.Join(disk, "ballast"), make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := Create(dir); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if names := readNames(t, dir); len(names) > 0 {
		t.Errorf("left %q", names)
	}
}
