package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// hammerFor is how long a writer and captures run beside each other; on a busy machine longer, until one was accepted.
const (
	hammerFor  = 2 * time.Second
	hammerMost = time.Minute
)

// hammer runs writer until the captures are through. writer does one change at a time and pauses in between by itself.
func (r *rig) hammer(name string, force bool, writer func(i uint64) error, check func(c *Captured, data []byte)) (clean int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g errgroup.Group
	g.Go(func() error {
		for i := uint64(1); ctx.Err() == nil; i++ {
			if err := writer(i); err != nil {
				return err
			}
		}
		return nil
	})
	kinds := map[string]int{}
	for began := time.Now(); time.Since(began) < hammerFor || kinds["clean"] == 0 && time.Since(began) < hammerMost; {
		got := r.take(name, force)
		switch {
		case errors.Is(got.Err, ErrBusy):
			kinds["busy"]++
		case errors.Is(got.Err, ErrChanging):
			kinds["changing"]++
		case got.Err != nil:
			r.t.Error(got.Err)
		default:
			data := r.restored(&got)
			r.TakePublished(1<<20, 0)
			if got.Clean {
				kinds["clean"]++
				check(&got, data)
			} else {
				kinds["unclean"]++
			}
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("captures: %v", kinds)
	return kinds["clean"]
}

// pause waits a while that is different each time, so that every phase of a capture is met.
func pause(i uint64, most time.Duration) {
	t := time.NewTimer(time.Duration(i*2654435761%1000) * most / 1000)
	defer t.Stop()
	<-t.C
}

// A program opens, writes in two steps, closes, again and again: what is accepted has both halves of one round.
func TestCaptureNeverTornOpenWriteClose(t *testing.T) {
	const half = 2 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", make([]byte, 2*half))
	writer := func(i uint64) error {
		f, err := os.OpenFile(r.path("f"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer closed(t, f)
		for _, at := range []int64{0, half} {
			if _, err := f.WriteAt(bytes.Repeat(binary.LittleEndian.AppendUint64(nil, i), half/8), at); err != nil {
				return err
			}
		}
		pause(i, 20*time.Millisecond) // held open
		if err := f.Close(); err != nil {
			return err
		}
		pause(i/3, 250*time.Millisecond)
		return nil
	}
	clean := r.hammer("f", false, writer, func(_ *Captured, data []byte) { wantUniform(t, data) })
	if clean == 0 {
		t.Error("nothing was captured in all the pauses")
	}
}

func wantUniform(t *testing.T, data []byte) {
	t.Helper()
	if !bytes.Equal(data, bytes.Repeat(data[:8], len(data)/8)) {
		t.Errorf("torn: begins with %x, ends with %x", data[:8], data[len(data)-8:])
	}
}

// A program holds the file open and rewrites it with one write(2) after another.
func TestCaptureNeverTornBigWrites(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", make([]byte, size))
	f, err := os.OpenFile(r.path("f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, f)
	buf := make([]byte, size)
	writer := func(i uint64) error {
		for at := 0; at < size; at += 8 {
			binary.LittleEndian.PutUint64(buf[at:], i)
		}
		_, err := f.WriteAt(buf, 0)
		pause(i, 200*time.Millisecond)
		return err
	}
	r.hammer("f", true, writer, func(_ *Captured, data []byte) { wantUniform(t, data) })
}

// The kernel sets the time before write(2) copies: while a long one is under way, equal times prove nothing. Here it stops
// half-way, at a page of its buffer that is not there before the test says so.
func TestCaptureWaitsForWriteUnderWay(t *testing.T) {
	const size = 2 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", make([]byte, size))
	f, err := os.OpenFile(r.path("f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, f)
	buf := newStoppedBuffer(t, size, size/2)
	for i := range buf.mem[:size/2] {
		buf.mem[i] = 1
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := f.WriteAt(buf.mem, 0)
		return err
	})
	buf.reached(t)

	result := make(chan Captured, 1)
	g.Go(func() error {
		result <- r.take("f", true)
		return nil
	})
	select {
	case got := <-result:
		if got.Clean {
			wantUniform(t, r.restored(&got))
		}
		t.Errorf("captured in the middle of a write: clean %v, %v", got.Clean, got.Err)
	case <-time.After(6 * raceWindow):
	}
	buf.release(t)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		return
	}
	got := <-result
	if data := r.restored(&got); !got.Clean || data[0] != 1 || data[size-1] != 2 {
		t.Fatalf("clean %v, content %d…%d", got.Clean, data[0], data[size-1])
	}
}

// closed closes a file; it may be closed already.
func closed(t testing.TB, f *os.File) {
	t.Helper()
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// mapping is a file mapped for writing, closed.
func mapping(t testing.TB, path string, size int) (m []byte, unmap func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, f)
	m, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	unmap = func() {
		once.Do(func() {
			if err := unix.Munmap(m); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(unmap) // before the file system goes
	return m, unmap
}

// A program stores through a mapping whose descriptor is closed: first page, then last page. What is accepted as clean never
// has a last page younger than the first, nor more than one round older.
func TestCaptureNeverTornMapping(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", make([]byte, size))
	m, _ := mapping(t, r.path("f"), size)
	round := uint64(0)
	writer := func(i uint64) error {
		for range 100_000 {
			round++
			binary.LittleEndian.PutUint64(m, round)
			binary.LittleEndian.PutUint64(m[size-8:], round)
		}
		pause(i, 400*time.Millisecond)
		return nil
	}
	clean := r.hammer("f", true, writer, func(_ *Captured, data []byte) {
		first, last := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[size-8:])
		if last > first || first > last+1 {
			t.Errorf("torn: first page of round %d, last page of round %d", first, last)
		}
	})
	if clean == 0 {
		t.Error("nothing was captured in all the pauses")
	}
}

// A store to a page that is dirty already moves no time. Here it comes while the file is read, to a page that is
// read already and to one that is not.
func TestCaptureStoreToDirtyPage(t *testing.T) {
	const size = 6 << 20
	r := newRig(t, mounted(t, "ext4"))
	r.write("f", noise(1, size))
	m, _ := mapping(t, r.path("f"), size)
	store := func(v byte) { m[0], m[size-1] = v, v }
	store(1)
	pause(999, 2*raceWindow)
	r.during(1, func(int) { store(2) })
	got := r.mustTake("f", true)
	if data := r.restored(&got); !got.Clean || data[0] != 2 || data[size-1] != 2 {
		t.Fatalf("clean %v, first page of round %d, last page of round %d", got.Clean, data[0], data[size-1])
	}
}

// Close is not the end of writing.
func TestCaptureMappingAfterClose(t *testing.T) {
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, mounted(t, kind))
			r.write("f", make([]byte, 4096))
			m, unmap := mapping(t, r.path("f"), 4096)
			pause(999, 2*raceWindow)
			if got := r.take("f", false); !errors.Is(got.Err, ErrBusy) {
				t.Fatalf("mapped file: %v, want ErrBusy", got.Err)
			}
			// Nobody stores at this moment. On ext4 that can be told; on tmpfs it cannot (V18).
			if got := r.mustTake("f", true); got.Clean != (kind == "ext4") {
				t.Fatalf("forced: clean %v", got.Clean)
			}
			copy(m, "stored after close")
			unmap()
			got := r.mustTake("f", false)
			if !got.Clean || !bytes.HasPrefix(r.restored(&got), []byte("stored after close")) {
				t.Fatalf("after munmap: clean %v", got.Clean)
			}
		})
	}
}

// A log that somebody appends to and closes each time, and one that stays open.
func TestCaptureGrowing(t *testing.T) {
	const record = 64 << 10
	for _, force := range []bool{false, true} {
		r := newRig(t, mounted(t, "ext4"))
		want := noise(0, record)
		r.write("f", want)
		held, err := os.OpenFile(r.path("f"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, held)
		if !force {
			closed(t, held)
		}
		grow := func(i int) {
			f := held
			if !force {
				if f, err = os.OpenFile(r.path("f"), os.O_WRONLY|os.O_APPEND, 0); err != nil {
					t.Fatal(err)
				}
				defer closed(t, f)
			}
			data := noise(uint64(i), record)
			if _, err := f.Write(data); err != nil {
				t.Fatal(err)
			}
			want = append(want, data...)
		}
		r.during(2, grow)
		got := r.mustTake("f", force)
		if data := r.restored(&got); !got.Clean || !bytes.Equal(data, want) {
			t.Fatalf("force %v: %d bytes of %d, clean %v", force, len(data), len(want), got.Clean)
		}
		r.during(1000, func(i int) { grow(100 + i) })
		grow(99)
		got = r.take("f", force)
		if !force {
			if !errors.Is(got.Err, ErrChanging) {
				t.Fatalf("always growing: %v, want ErrChanging", got.Err)
			}
			continue
		}
		if got.Err != nil || got.Clean {
			t.Fatalf("always growing, forced: %v, clean %v", got.Err, got.Clean)
		}
		if data := r.restored(&got); !bytes.HasPrefix(want, data) || len(data) < record {
			t.Fatalf("always growing, forced: %d bytes, not a beginning of the file", len(data))
		}
	}
}

// A file that changed just now is waited for, not refused: nothing proves that it holds still before.
func TestCaptureOutwaitsRecentChange(t *testing.T) {
	r := newRig(t, mounted(t, "ext4"))
	began := time.Now() // before the file is new: this thread may be kept from the processor at any place
	r.write("f", []byte("new"))
	got := r.mustTake("f", false)
	if !got.Clean || time.Since(began) < raceWindow/2 {
		t.Fatalf("clean %v after %v", got.Clean, time.Since(began))
	}
}

func BenchmarkCaptureSmallFiles(b *testing.B) {
	r := newRig(b, mounted(b, "ext4"))
	const files = 2000
	for i := range files {
		r.write(benchName(i), noise(uint64(i), 4096))
	}
	pause(999, 2*raceWindow)
	jobs := make([]Job, files)
	for i := range jobs {
		jobs[i] = r.job(benchName(i), false)
	}
	b.ResetTimer()
	for i := range b.N {
		if got := r.Capture(context.Background(), jobs[i%files], r.packers[0]); got.Err != nil {
			b.Fatal(got.Err)
		}
	}
}

func benchName(i int) string {
	return string([]byte{'a' + byte(i/676%26), 'a' + byte(i/26%26), 'a' + byte(i%26)})
}
