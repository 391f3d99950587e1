package warm_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/volumetest"
)

// aside returns what was moved aside, by content.
func aside(t *testing.T, p place) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(p.dir, ".slipway-warm"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		all[string(data)] = path
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// tree describes the directory without what was moved aside.
func tree(t *testing.T, p place) map[string]string {
	t.Helper()
	got := volumetest.Scan(t, p.dir)
	for path := range got {
		if strings.HasPrefix(path, ".slipway-warm") {
			delete(got, path)
		}
	}
	return got
}

// meddle does to the directory what nobody should.
func meddle(t *testing.T, in func(string) string) {
	t.Helper()
	write := func(name, data string) {
		t.Helper()
		if err := os.WriteFile(in(name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("edited", "foreign 1")
	write("edited and gone", "foreign 2")
	if err := errors.Join(os.Remove(in("replaced")), os.Remove(in("removed"))); err != nil {
		t.Fatal(err)
	}
	write("replaced", "foreign 3")
	write("edited and moved", "foreign 4")
	write("new", "foreign 5")
	write("emptied/foreign", "foreign 6")

	st, err := os.Stat(in("looks the same"))
	if err != nil {
		t.Fatal(err)
	}
	write("other", "other  7")
	if err := errors.Join(os.Chtimes(in("other"), st.ModTime(), st.ModTime()), unix.Rename(in("other"), in("looks the same"))); err != nil {
		t.Fatal(err)
	}
}

// What somebody put into the directory is moved aside where a step meets it, never lost, and the step goes on.
func TestForeignInTheWay(t *testing.T) {
	m, p := newModel(t, 9), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(1, "edited", "1")
	m.file(1, "edited and gone", "2")
	m.file(1, "replaced", "3")
	m.file(1, "edited and moved", "4")
	m.file(1, "removed", "5")
	m.file(1, "looks the same", "original")
	m.file(m.dir(1, "emptied"), "f", "6")
	m.seal(true, nil)
	apply(t, w)
	in := func(name string) string { return filepath.Join(p.dir, name) }
	meddle(t, in)

	m.drop(1, "looks the same")
	for name, data := range map[string]string{"edited": "1 changed", "replaced": "3 changed", "removed": "5 changed"} {
		c := m.v.Content(data)
		m.change(m.entries[key{1, name}], func(in *batch.Inode) { in.Content = c })
	}
	m.drop(1, "edited and gone")
	m.move(key{1, "edited and moved"}, key{1, "moved"})
	m.file(1, "new", "7")
	m.drop(1, "emptied")
	m.seal(true, nil)
	apply(t, w)
	same(t, restored(t, m, 2), tree(t, p))
	kept := aside(t, p)
	for _, data := range []string{"foreign 1", "foreign 2", "foreign 3", "foreign 4", "foreign 5", "foreign 6", "other  7"} {
		if kept[data] == "" {
			t.Errorf("%s is lost: %v", data, kept)
		}
	}
	if n := strings.Count(p.log.String(), "moved aside"); n != 7 {
		t.Errorf("%d times said:\n%s", n, p.log)
	}
}

// Verify finds what was changed and added, and the next step makes it as it was.
func TestVerify(t *testing.T) {
	m, p := newModel(t, 10), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(1, "edited", "1")
	m.file(1, "mode", "2")
	m.file(m.dir(m.dir(1, "removed"), "sub"), "f", "3")
	m.file(m.dir(1, "closed"), "f", "4")
	m.seal(true, nil)
	apply(t, w)
	in := func(name string) string { return filepath.Join(p.dir, name) }
	err := errors.Join(os.WriteFile(in("edited"), []byte("foreign"), 0o600), os.Chmod(in("mode"), 0o777),
		os.RemoveAll(in("removed")), os.Chmod(in("closed"), 0o700), os.WriteFile(in("closed/added"), []byte("added"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	found, err := w.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	said := make(map[string]bool)
	for _, f := range found {
		said[f.Path] = true
	}
	for _, path := range []string{"", "edited", "mode", "removed", "closed", "closed/added"} {
		if !said[path] {
			t.Errorf("%q was not found: %v", path, found)
		}
	}
	if err := os.Remove(in("closed/added")); err != nil { // what was added is for people to remove
		t.Fatal(err)
	}
	apply(t, w)
	same(t, restored(t, m, 1), tree(t, p))
	if aside(t, p)["foreign"] == "" {
		t.Error("the edited file is lost")
	}
}

// A directory swapped for a symbolic link, or for another directory, does not lead a step outside.
func TestSwappedDirectory(t *testing.T) {
	for _, link := range []bool{true, false} {
		m, p := newModel(t, 11), newPlace(t)
		w := open(t, m, p)
		outside := t.TempDir()
		dir := m.dir(1, "dir")
		sub := m.dir(dir, "sub")
		m.file(sub, "changed", "1")
		m.file(sub, "gone", "2")
		m.file(dir, "stays", "3")
		m.seal(true, nil)
		apply(t, w)
		at := filepath.Join(p.dir, "dir")
		err := errors.Join(os.MkdirAll(filepath.Join(outside, "sub"), 0o755),
			os.WriteFile(filepath.Join(outside, "sub", "gone"), []byte("outside"), 0o600), unix.Rename(at, at+"-away"))
		if link {
			err = errors.Join(err, os.Symlink(outside, at))
		} else {
			err = errors.Join(err, os.MkdirAll(filepath.Join(at, "sub"), 0o755), os.WriteFile(filepath.Join(at, "sub", "gone"), []byte("inside"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		before := volumetest.Scan(t, outside)
		m.drop(sub, "gone")
		c := m.v.Content("changed")
		m.change(m.entries[key{sub, "changed"}], func(in *batch.Inode) { in.Content = c })
		m.file(sub, "new", "new")
		m.seal(true, nil)
		apply(t, w)
		same(t, before, volumetest.Scan(t, outside))
		if err := os.RemoveAll(at + "-away"); err != nil {
			t.Fatal(err)
		}
		want, got := restored(t, m, 2), tree(t, p)
		delete(want, "")
		delete(got, "")
		same(t, want, got)
		if !link && aside(t, p)["inside"] == "" {
			t.Error("the other directory is lost")
		}
		shut(t, w)
	}
}
