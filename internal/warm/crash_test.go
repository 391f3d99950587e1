package warm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/volumetest"
	"slipway/internal/warm"
)

// crash ends a step at its n-th operation, and at every one after it, as a process that died would.
type crash struct {
	mu   sync.Mutex
	left int
	op   string // where it ended
}

func (c *crash) fault(op string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left >= 0 {
		return nil
	}
	if c.op == "" {
		c.op = op
	}
	return fmt.Errorf("%w at %s", warm.ErrFault, op)
}

// eventful makes a tree, and a batch with every kind of change to it.
func eventful(t *testing.T) (m *model, base map[string]string, change func()) {
	m = newModel(t, 7)
	a, b := m.dir(1, "a"), m.dir(1, "b")
	sub := m.dir(a, "sub")
	m.file(sub, "deep", "deep in a")
	hard := m.file(a, "hard", "one file")
	m.link(b, "hard", hard)
	m.link(1, "hard", hard)
	moved := m.file(1, "moved", "moves")
	m.file(1, "x", "x to y")
	m.file(1, "y", "y to x")
	twin := m.file(b, "twin", "gets another name")
	m.link(b, "pair 2", m.file(b, "pair 1", "loses both names and gets two"))
	attr := m.file(b, "attributes", "stay")
	m.link(1, "pipe", m.put(batch.Inode{Mode: unix.S_IFIFO | 0o600}))
	gone := m.dir(1, "gone")
	m.file(gone, "file", "gone")
	kept := m.dir(gone, "kept")
	m.file(kept, "file", "kept")
	m.file(1, "becomes a directory", "file")
	m.file(m.dir(1, "becomes a file"), "below", "gone")
	m.seal(true, nil)
	return m, restored(t, m, 1), func() {
		m.move(key{gone, "kept"}, key{b, "kept"})
		m.drop(1, "gone")
		m.swap(key{1, "x"}, key{1, "y"})
		m.move(key{a, "sub"}, key{1, "sub"}) // a cycle of directories
		m.move(key{1, "a"}, key{sub, "a"})
		c := m.v.Content("one file, another content")
		m.change(hard, func(in *batch.Inode) { in.Content = c })
		m.drop(1, "hard")
		m.link(sub, "hard", hard)
		m.move(key{1, "moved"}, key{a, "moved"})
		m.change(moved, func(in *batch.Inode) { in.Mode, in.UID = unix.S_IFREG|0o600, 5 })
		m.link(sub, "twin", twin)
		m.move(key{b, "pair 1"}, key{sub, "pair 3"})
		m.move(key{b, "pair 2"}, key{sub, "pair 4"})
		m.change(attr, func(in *batch.Inode) { in.Xattrs = map[string][]byte{"user.a": []byte("b")} })
		m.drop(1, "pipe")
		m.dir(m.dir(1, "new"), "below")
		m.file(1, "new file", "new")
		m.link(1, "new link", m.put(batch.Inode{Mode: unix.S_IFLNK | 0o777, Target: "new file"}))
		m.file(m.dir(1, "becomes a directory"), "in it", "a directory now")
		m.file(1, "becomes a file", "a file now")
		m.seal(true, nil)
	}
}

// memory returns a directory where syncing costs nothing.
func memory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// based makes a tree with the base applied.
func based(t *testing.T, m *model, below string) place {
	t.Helper()
	p := newPlace(t)
	p.dir, p.state = filepath.Join(below, "dir"), filepath.Join(below, "state")
	if err := errors.Join(os.Mkdir(below, 0o755), os.Mkdir(p.dir, 0o755), os.Mkdir(p.state, 0o700)); err != nil {
		t.Fatal(err)
	}
	w := open(t, m, p)
	apply(t, w)
	shut(t, w)
	return p
}

// A step cut off at any operation, and cut off again while it is finished, ends as if it had not been.
func TestCrashAnywhere(t *testing.T) {
	m, base, change := eventful(t)
	below := memory(t)
	places := make([]place, 80)
	for i := range places { // the base has to be applied before the change is sealed
		places[i] = based(t, m, filepath.Join(below, fmt.Sprint(i)))
	}
	same(t, base, volumetest.Scan(t, places[0].dir))
	change()
	want := restored(t, m, 2)
	ops := make(map[string]int)
	for n, p := range places {
		c := &crash{left: n}
		if crashed(t, m, p, c) {
			same(t, want, volumetest.Scan(t, p.dir))
			t.Logf("%d operations: %v", n, ops)
			break
		}
		ops[c.op]++
		crashed(t, m, p, &crash{left: n / 2})
		afterCrash(t, m, p, base, want)
		if t.Failed() {
			t.Fatalf("operation %d, %s", n, c.op)
		}
		if n == len(places)-1 {
			t.Errorf("more than %d operations", n)
		}
	}
	for _, op := range []string{"stage", "make", "save", "commit", "hold", "detach", "mark", "attach", "replace", "attributes", "clear", "done"} {
		if ops[op] == 0 {
			t.Errorf("no crash at %s", op)
		}
	}
}

// afterCrash opens a tree whose process died: the files are those of one of the two batches, and get to the newer one.
func afterCrash(t *testing.T, m *model, p place, base, want map[string]string) {
	t.Helper()
	w := open(t, m, p)
	defer shut(t, w)
	at, whole, err := w.At()
	if err != nil || !whole {
		t.Errorf("at %+v, whole %v, %v", at, whole, err)
	}
	if at.Seq == 2 {
		equal(t, want, volumetest.Scan(t, p.dir)) // without the stores
	} else {
		got := tree(t, p)
		got[""] = base[""] // its time was moved by what was staged
		equal(t, base, got)
	}
	if at := apply(t, w); at.Seq != 2 {
		t.Errorf("at %+v", at)
	}
	equal(t, want, volumetest.Scan(t, p.dir))
	if found, err := w.Verify(context.Background()); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	if strings.Contains(p.log.String(), "level=ERROR") {
		t.Errorf("%s", p.log)
	}
}

// crashed opens the tree and makes a step until it crashes. It tells whether it came to its end.
func crashed(t *testing.T, m *model, p place, c *crash) bool {
	t.Helper()
	w, err := warm.OpenFault(p.options(m), c.fault)
	if errors.Is(err, warm.ErrFault) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, w)
	_, err = w.ApplyOnce(context.Background())
	if err != nil && !errors.Is(err, warm.ErrFault) {
		t.Fatal(err)
	}
	return err == nil
}

// What was staged before the commit is used again after a process died, and not after the machine went down: then sizes and
// times may be there without bytes.
func TestStagedBeforeTheCommit(t *testing.T) {
	for _, machine := range []bool{false, true} {
		m, p := newModel(t, 12), newPlace(t)
		m.file(1, "staged", "content")
		m.seal(true, nil)
		c := &counting{Store: m.v.Stores[0].Store}
		m.v.Stores[0].Store = c
		w, err := warm.OpenFault(p.options(m), func(op string) error {
			if op == "commit" {
				return warm.ErrFault
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.ApplyOnce(context.Background()); !errors.Is(err, warm.ErrFault) {
			t.Fatal(err)
		}
		shut(t, w)
		if machine {
			loseBytes(t, p)
		}
		read := c.shards
		w = open(t, m, p)
		if at, whole, err := w.At(); at.Seq != 0 || !whole || err != nil {
			t.Errorf("at %+v, %v, %v", at, whole, err)
		}
		apply(t, w)
		shut(t, w)
		if (c.shards > read) != machine {
			t.Errorf("machine %v: %d shards read, then %d", machine, read, c.shards-read)
		}
		same(t, restored(t, m, 1), volumetest.Scan(t, p.dir))
	}
}

// loseBytes leaves a staged file its size and times, under another boot's id.
func loseBytes(t *testing.T, p place) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(p.dir, ".slipway-warm", "n*"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	st, err := os.Stat(list[0])
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(list[0], make([]byte, st.Size()), 0o644), os.Chtimes(list[0], st.ModTime(), st.ModTime()),
		os.WriteFile(filepath.Join(p.dir, ".slipway-warm", "boot"), []byte("11111111-2222-3333-4444-555555555555\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// The volume gets a file of the name that an attempt before it staged under.
func TestNameOfTheStagingDirectory(t *testing.T) {
	m, p := newModel(t, 13), newPlace(t)
	m.file(1, "file", "1")
	m.seal(true, nil)
	if crashed(t, m, p, &crash{left: 2}) {
		t.Fatal("not crashed")
	}
	if _, err := os.Lstat(filepath.Join(p.dir, ".slipway-warm")); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		switch round {
		case 0:
			m.file(m.dir(1, ".slipway-warm"), "of the volume", "2")
		case 1:
			m.file(1, ".slipway-warm-1", "3")
		case 2:
			m.drop(1, ".slipway-warm")
		}
		at := m.seal(true, nil).Envelope.Last
		if crashed(t, m, p, &crash{left: 2}) {
			t.Fatal("not crashed")
		}
		w := open(t, m, p)
		apply(t, w)
		shut(t, w)
		same(t, restored(t, m, at), volumetest.Scan(t, p.dir))
	}
	if strings.Contains(p.log.String(), "level=ERROR") {
		t.Errorf("%s", p.log)
	}
}
