package journal

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// threeFiles makes an instance of three files with one record each and returns the position behind each record.
func threeFiles(t *testing.T, w *Writer, dir string) (at []Position) {
	t.Helper()
	for i := range 3 {
		put(t, w, fmt.Sprint(i))
		at = append(at, end(t, dir))
		if i < 2 {
			if err := w.rotate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return at
}

func TestTrimFiles(t *testing.T) {
	for i, left := range []int{2, 1, 1} {
		dir := t.TempDir()
		w := create(t, dir)
		at := threeFiles(t, w, dir)
		r := open(t, dir, Position{})
		if err := r.Trim(at[i]); err != nil {
			t.Fatal(err)
		}
		files, err := starts(w.dir)
		if err != nil || len(files) != left {
			t.Errorf("trimmed up to record %d: %d files, %v", i, len(files), err)
		}
		again := open(t, dir, at[i])
		expect(t, again, []string{"0", "1", "2"}[i+1:]...)
		if i > 0 {
			if _, err := OpenReader(dir, at[0]); !errors.Is(err, ErrLost) {
				t.Errorf("open at a trimmed position: %v", err)
			}
		}
		if i == 0 {
			expect(t, r, "0", "1", "2") // the first file was open already
		} else {
			expect(t, r, "0", "(missing journal file)", "2")
		}
	}
}

// TestTrimPartOfFile: a file with one record that is still to be read stays.
func TestTrimPartOfFile(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir)
	put(t, w, "a")
	at := end(t, dir)
	put(t, w, "b")
	if err := w.rotate(); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, Position{})
	if err := r.Trim(at); err != nil {
		t.Fatal(err)
	}
	expect(t, open(t, dir, at), "b")
}

func TestTrimInstances(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		w := create(t, dir)
		put(t, w, fmt.Sprint(i))
		if i < 2 {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := open(t, dir, Position{})
	_, first := next(t, r)
	if err := r.Trim(first); err != nil {
		t.Fatal(err)
	}
	expect(t, open(t, dir, Position{}), "0", "1", "2")
	_, second := next(t, r)
	if err := r.Trim(second); err != nil {
		t.Fatal(err)
	}
	expect(t, open(t, dir, Position{}), "1", "2")
	expect(t, open(t, dir, second), "2")
	last := expect(t, r, "2")
	if err := r.Trim(last); err != nil {
		t.Fatal(err)
	}
	if names := readNames(t, dir); len(names) != 1 {
		t.Errorf("left %q", names)
	}
	if w := create(t, dir); w.instance.serial != 4 {
		t.Errorf("serial %d after 3", w.instance.serial)
	}
}

// TestTrimKeepsTheLiving: an older instance whose writer lives, and the newest one, whatever the position.
func TestTrimKeepsTheLiving(t *testing.T) {
	dir := t.TempDir()
	old := create(t, dir)
	put(t, old, "old")
	newest := create(t, dir)
	put(t, newest, "new")
	r := open(t, dir, Position{})
	if err := r.Trim(Position{Serial: 99}); err != nil {
		t.Fatal(err)
	}
	expect(t, r, "old")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := newest.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Trim(Position{Serial: 99}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(newest.dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(old.dir); err == nil {
		t.Error("a dead instance before the position is left")
	}
}

// TestReaderOfTrimmedInstance: who reads where another trims is told.
func TestReaderOfTrimmedInstance(t *testing.T) {
	dir := t.TempDir()
	w1 := create(t, dir)
	put(t, w1, "a")
	r := open(t, dir, Position{})
	expect(t, r, "a")
	if err := w1.Close(); err != nil {
		t.Fatal(err)
	}
	create(t, dir)
	if err := open(t, dir, Position{}).Trim(Position{Serial: 2}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
}
