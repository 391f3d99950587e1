package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// create makes an instance whose writer the test drives by hand.
func create(t testing.TB, dir string) *Writer {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// put writes records with Run's step and without Run.
func put(t testing.TB, w *Writer, names ...string) {
	t.Helper()
	for _, name := range names {
		if w.enqueue([]*Record{{Op: OpCreate, Name: name}}) == nil {
			t.Fatalf("append of %s is given up", name)
		}
		w.flush()
	}
}

func open(t testing.TB, dir string, from Position) *Reader {
	t.Helper()
	r, err := OpenReader(dir, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// next reads one record: its name, "(reason)" for a gap, "wait" where none follows.
func next(t testing.TB, r *Reader) (string, Position) {
	t.Helper()
	rec, pos, err := r.Next()
	switch {
	case errors.Is(err, ErrWait):
		return "wait", pos
	case err != nil:
		t.Fatal(err)
	case rec.Op == OpGap:
		return "(" + rec.Name + ")", pos
	}
	return rec.Name, pos
}

// rest reads until none follows.
func rest(t testing.TB, r *Reader) (names []string, last Position) {
	t.Helper()
	for {
		name, pos := next(t, r)
		if name == "wait" {
			return names, last
		}
		if pos.Before(last) {
			t.Fatalf("position went back from %v to %v", last, pos)
		}
		names, last = append(names, name), pos
	}
}

func expect(t testing.TB, r *Reader, want ...string) Position {
	t.Helper()
	got, pos := rest(t, r)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("read %v, want %v", got, want)
	}
	return pos
}

func end(t testing.TB, dir string) Position {
	t.Helper()
	p, err := End(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReadAcrossInstances(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	if p := end(t, dir); !p.IsZero() {
		t.Fatalf("end of no journal: %v", p)
	}
	r := open(t, dir, Position{})
	expect(t, r)
	w := create(t, dir)
	if p := end(t, dir); p != w.Position() || p.Serial != 1 {
		t.Fatalf("end of an empty instance: %v, want %v", p, w.Position())
	}
	expect(t, r)
	put(t, w, "a", "b")
	if pos := expect(t, r, "a", "b"); pos != end(t, dir) {
		t.Fatalf("read up to %v of %v", pos, end(t, dir))
	}
	put(t, w, "c")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, r, "c")
	w2 := create(t, dir)
	put(t, w2, "d")
	pos := expect(t, r, "d")
	if pos != end(t, dir) || pos.Serial != 2 {
		t.Fatalf("read up to %v of %v", pos, end(t, dir))
	}
	expect(t, open(t, dir, Position{}), "a", "b", "c", "d")
}

// TestLivingInstanceFirst: a newer instance is not read while the older one lives.
func TestLivingInstanceFirst(t *testing.T) {
	dir := t.TempDir()
	w1, w2 := create(t, dir), create(t, dir)
	put(t, w2, "second")
	r := open(t, dir, Position{})
	expect(t, r)
	put(t, w1, "first")
	expect(t, r, "first")
	if err := w1.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, r, "second")
}

func TestOpenAtEveryPosition(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a", "b")
	if err := w.rotate(); err != nil {
		t.Fatal(err)
	}
	put(t, w, "c")
	all := []string{"a", "b", "c"}
	r := open(t, dir, Position{})
	for i := range all {
		_, pos := next(t, r)
		expect(t, open(t, dir, pos), all[i+1:]...)
	}
	expect(t, open(t, dir, w.Position()), all...)
}

func TestLost(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a")
	at := end(t, dir)
	for name, p := range map[string]Position{
		"other instance":  {Serial: at.Serial, Instance: at.Instance + 1, Offset: 0},
		"other serial":    {Serial: at.Serial + 1, Instance: at.Instance, Offset: 0},
		"behind the end":  {Serial: at.Serial, Instance: at.Instance, Offset: at.Offset + 1},
		"negative offset": {Serial: at.Serial, Instance: at.Instance, Offset: -1},
	} {
		if _, err := OpenReader(dir, p); !errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// recording is one file of an instance as its writer left it.
type recording struct {
	inst   instance
	names  []string
	bytes  []byte
	bounds []int // where in bytes records end, the header first
}

func record(t testing.TB, names ...string) recording {
	t.Helper()
	dir := t.TempDir()
	w := create(t, dir)
	rec := recording{inst: w.instance, names: names, bounds: []int{headerSize}}
	for _, name := range names {
		put(t, w, name)
		rec.bounds = append(rec.bounds, headerSize+int(w.size))
	}
	b, err := os.ReadFile(filepath.Join(w.dir, fileName(0)))
	if err != nil {
		t.Fatal(err)
	}
	rec.bytes = b
	return rec
}

// whole returns how many records lie wholly before cut.
func (rec recording) whole(cut int) (n int, clean bool) {
	for i, b := range rec.bounds {
		if b <= cut {
			n, clean = i, b == cut
		}
	}
	return n, clean
}

// lay puts b down as that instance's first file, with a writer that lives or not.
func (rec recording) lay(t testing.TB, dir string, b []byte, living bool) (path string) {
	t.Helper()
	instDir := filepath.Join(dir, rec.inst.name())
	if err := os.MkdirAll(instDir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(instDir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if living {
		if err := flock(lock, unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(instDir, fileName(0))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTornAtEveryByte(t *testing.T) {
	rec := record(t, "alpha", "bravo", "charlie")
	for cut := headerSize; cut <= len(rec.bytes); cut++ {
		dir := t.TempDir()
		rec.lay(t, dir, rec.bytes[:cut], false)
		w := create(t, dir)
		put(t, w, "after")
		n, clean := rec.whole(cut)
		want := append([]string{}, rec.names[:n]...)
		if !clean {
			want = append(want, "(torn record)")
		}
		r := open(t, dir, Position{})
		pos := expect(t, r, append(want, "after")...)
		if pos != end(t, dir) {
			t.Fatalf("cut at %d: read up to %v of %v", cut, pos, end(t, dir))
		}
	}
}

// TestTornLast: the torn tail of the last instance there is, is told once, and the next instance awaited.
func TestTornLast(t *testing.T) {
	rec := record(t, "alpha", "bravo")
	dir := t.TempDir()
	rec.lay(t, dir, rec.bytes[:len(rec.bytes)-1], false)
	r := open(t, dir, Position{})
	pos := expect(t, r, "alpha", "(torn record)")
	if pos != end(t, dir) {
		t.Fatalf("read up to %v of %v", pos, end(t, dir))
	}
	expect(t, r)
	expect(t, open(t, dir, pos))
}

func TestUnfinishedAtEveryByte(t *testing.T) {
	rec := record(t, "alpha", "bravo", "charlie")
	for cut := headerSize; cut <= len(rec.bytes); cut++ {
		dir := t.TempDir()
		path := rec.lay(t, dir, rec.bytes[:cut], true)
		r := open(t, dir, Position{})
		n, _ := rec.whole(cut)
		expect(t, r, rec.names[:n]...)
		expect(t, r)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(rec.bytes[cut:]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		expect(t, r, rec.names[n:]...)
	}
}

// TestFlipAtEveryByte: whatever byte is damaged, exactly the record it lies in is replaced by a gap, the writer dead or alive.
func TestFlipAtEveryByte(t *testing.T) {
	rec := record(t, "alpha", "bravo", "charlie")
	for _, living := range []bool{false, true} {
		for i := range rec.bytes {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				b := append([]byte{}, rec.bytes...)
				b[i] ^= mask
				dir := t.TempDir()
				rec.lay(t, dir, b, living)
				want := append([]string{"(damaged header of a journal file)"}, rec.names...)
				if i >= headerSize {
					n, _ := rec.whole(i)
					want = append([]string{}, rec.names...)
					want[n] = "(damaged record)"
				}
				if pos := expect(t, open(t, dir, Position{}), want...); pos != end(t, dir) {
					t.Fatalf("flip at %d: read up to %v of %v", i, pos, end(t, dir))
				}
			}
		}
	}
}

// TestDamageThenAppend: a reader that passed a damaged tail of a living writer goes on with what is appended.
func TestDamageThenAppend(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a", "b")
	f, err := os.OpenFile(filepath.Join(w.dir, fileName(0)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, headerSize+w.size-1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, Position{})
	expect(t, r, "a", "(damaged record)")
	put(t, w, "c")
	expect(t, r, "c")
	expect(t, open(t, dir, Position{}), "a", "(damaged record)", "c")
}

// TestDamageLong: the next whole record may be far away, and across the borders of what is read at once.
func TestDamageLong(t *testing.T) {
	rec := record(t, "alpha")
	frame := rec.bytes[headerSize:]
	for _, junk := range []int{1, readAhead - 20, readAhead, readAhead + 20, 3*readAhead - maxFrame, 3 * readAhead} {
		b := append([]byte{}, rec.bytes...)
		b = append(b, make([]byte, junk)...)
		b = append(b, frame...)
		dir := t.TempDir()
		rec.lay(t, dir, b, false)
		expect(t, open(t, dir, Position{}), "alpha", "(damaged record)", "alpha")
	}
}

// TestForgedRecord: bytes that look like a record inside another's field are not one.
func TestForgedRecord(t *testing.T) {
	forged, err := appendFrame(nil, seed(1), &Record{Op: OpUnlink, Name: "forged"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	rec := record(t, "alpha", string(forged), "charlie")
	b := append([]byte{}, rec.bytes...)
	b[rec.bounds[1]] ^= 1
	dir := t.TempDir()
	rec.lay(t, dir, b, false)
	expect(t, open(t, dir, Position{}), "alpha", "(damaged record)", "charlie")
}

func TestUnknownVersion(t *testing.T) {
	rec := record(t, "alpha")
	b := append([]byte{}, rec.bytes...)
	b[11]++
	fixHeader(b)
	dir := t.TempDir()
	rec.lay(t, dir, b, false)
	if _, err := OpenReader(dir, Position{}); !errors.Is(err, ErrVersion) {
		t.Errorf("open: %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	for _, living := range []bool{true, false} {
		dir := t.TempDir()
		w := create(t, dir)
		var files []int64
		for _, name := range []string{"a", "b", "c"} {
			files = append(files, w.start)
			put(t, w, name)
			if err := w.rotate(); err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, dir, Position{})
		if err := os.Remove(filepath.Join(w.dir, fileName(files[1]))); err != nil {
			t.Fatal(err)
		}
		if !living {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, r, "a", "(missing journal file)", "c")
	}
}

// TestReadWhileWritten: a reader at the very end, while files and instances change all the time, misses nothing and
// takes nothing for torn.
func TestReadWhileWritten(t *testing.T) {
	const records = 1500
	dir := t.TempDir()
	r := open(t, dir, Position{})
	var g errgroup.Group
	g.Go(func() error {
		var w *Writer
		for i := range records {
			if i%50 == 0 {
				if w != nil {
					if err := w.Close(); err != nil {
						return err
					}
				}
				var err error
				if w, err = Create(dir); err != nil {
					return err
				}
			}
			w.enqueue([]*Record{{Op: OpCreate, Name: fmt.Sprint(i)}})
			w.flush()
			if i%3 == 0 {
				if err := w.rotate(); err != nil {
					return err
				}
			}
		}
		return w.Close()
	})
	for i := 0; i < records && !t.Failed(); {
		name, _ := next(t, r)
		if name == "wait" {
			runtime.Gosched()
			continue
		}
		if name != fmt.Sprint(i) {
			t.Errorf("record %d is %s", i, name)
		}
		i++
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	expect(t, r)
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, Position{})
	if got := r.Watch(); len(got) != 1 || got[0] != dir {
		t.Errorf("before there is an instance: %q", got)
	}
	w := create(t, dir)
	expect(t, r)
	if got := r.Watch(); len(got) != 2 || got[1] != w.dir {
		t.Errorf("with an instance: %q", got)
	}
}

// FuzzReader: whatever a file holds, a reader comes to its end, and never goes back.
func FuzzReader(f *testing.F) {
	rec := record(f, "alpha", "bravo")
	f.Add(rec.bytes[headerSize:])
	f.Add(append(make([]byte, 100), rec.bytes[headerSize:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		rec.lay(t, dir, append(append([]byte{}, rec.bytes[:headerSize]...), b...), false)
		r := open(t, dir, Position{})
		if _, last := rest(t, r); len(b) > 0 && last != end(t, dir) {
			t.Fatalf("read up to %v of %v", last, end(t, dir))
		}
	})
}
