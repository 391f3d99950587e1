package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const old, fresh = "old content", "fresh content, somewhat longer"

// verbs are the ways a file comes into being. before is what may be there, nil for nothing.
var verbs = map[string]struct {
	do     func(path string) error
	before []byte
}{
	"create exclusive":        {func(p string) error { return CreateExclusive(p, []byte(fresh), 0o640) }, nil},
	"create idempotent":       {func(p string) error { return CreateIdempotent(p, []byte(fresh), 0o640) }, nil},
	"create idempotent again": {func(p string) error { return CreateIdempotent(p, []byte(fresh), 0o640) }, []byte(fresh)},
	"overwrite new":           {func(p string) error { return Overwrite(p, []byte(fresh), 0o640) }, nil},
	"overwrite":               {func(p string) error { return Overwrite(p, []byte(fresh), 0o640) }, []byte(old)},
	"temp":                    {writeAndPublish, nil},
	"remove":                  {Remove, []byte(old)},
}

func writeAndPublish(path string) error {
	temp, err := WriteTemp(filepath.Dir(path), []byte(fresh), 0o640)
	if err != nil {
		return err
	}
	return PublishTemp(temp, path)
}

func setUp(t *testing.T, before []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "object")
	if before != nil {
		if err := os.WriteFile(path, before, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// content returns what is under path, nil for nothing.
func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}

func temps(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if IsTemp(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestVerbs(t *testing.T) {
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			path := setUp(t, verb.before)
			if err := verb.do(path); err != nil {
				t.Fatal(err)
			}
			want := fresh
			if name == "remove" {
				want = ""
			}
			if got := content(t, path); string(got) != want {
				t.Fatalf("content %q, want %q", got, want)
			}
			if left := temps(t, filepath.Dir(path)); len(left) != 0 {
				t.Fatalf("left over: %v", left)
			}
		})
	}
}

// record runs do and returns the labels of its steps in order.
func record(t *testing.T, do func() error) (ops []string) {
	t.Helper()
	fault = func(op, _ string, do func() error) error {
		ops = append(ops, op)
		return do()
	}
	defer func() { fault = nil }()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	return ops
}

// Every fsync has its place: this is the list that a removed one breaks.
func TestSteps(t *testing.T) {
	want := map[string]string{
		"create exclusive":        "create write sync rename syncdir",
		"create idempotent":       "create write sync rename syncdir",
		"create idempotent again": "syncdir",
		"overwrite new":           "create write sync rename syncdir",
		"overwrite":               "create write sync rename syncdir",
		"temp":                    "create write sync syncdir rename syncdir",
		"remove":                  "remove syncdir",
	}
	for name, verb := range verbs {
		path := setUp(t, verb.before)
		if got := strings.Join(record(t, func() error { return verb.do(path) }), " "); got != want[name] {
			t.Errorf("%s: steps %q, want %q", name, got, want[name])
		}
	}
	dir := t.TempDir()
	ops := record(t, func() error { return MkdirAll(filepath.Join(dir, "a/b"), 0o750) })
	if got := strings.Join(ops, " "); got != "mkdir syncdir mkdir syncdir" {
		t.Errorf("mkdir all: steps %q", got)
	}
}

var errInjected = errors.New("injected")

// Each step of each verb fails, once without and once with having taken effect. Afterwards the name holds the old or the
// new content and nothing else, and the same call again succeeds.
func TestFaults(t *testing.T) {
	for name, verb := range verbs {
		path := setUp(t, verb.before)
		steps := record(t, func() error { return verb.do(path) })
		for i, op := range steps {
			for _, persisted := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d %s/persisted=%v", name, i, op, persisted), func(t *testing.T) {
					testFault(t, verb.do, verb.before, i, persisted)
				})
			}
		}
	}
}

func testFault(t *testing.T, do func(string) error, before []byte, at int, persisted bool) {
	path := setUp(t, before)
	n, hit := 0, false
	fault = func(_, _ string, do func() error) error {
		n++
		if n != at+1 {
			return do()
		}
		hit = true
		if persisted {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		}
		return errInjected
	}
	err := do(path)
	fault = nil
	if !hit || !errors.Is(err, errInjected) {
		t.Fatalf("fault hit: %v, error: %v", hit, err)
	}
	got := content(t, path)
	if !bytes.Equal(got, before) && string(got) != fresh && got != nil {
		t.Fatalf("half done: %q", got)
	}
	for _, temp := range temps(t, filepath.Dir(path)) {
		if data := content(t, filepath.Join(filepath.Dir(path), temp)); string(data) != fresh {
			t.Errorf("a temporary file of a failed write was kept: %q", data)
		}
	}
	err = do(path)
	if errors.Is(err, fs.ErrExist) && string(got) == fresh {
		return // CreateExclusive whose first attempt took effect
	}
	if err != nil {
		t.Fatalf("again: %v", err)
	}
}

// A failed fsync is never repeated on the same file: the next attempt writes anew.
func TestFailedSyncIsThrownAway(t *testing.T) {
	path := setUp(t, nil)
	var synced []string
	fault = func(op, p string, do func() error) error {
		if op == "sync" {
			synced = append(synced, p)
			if len(synced) == 1 {
				return unix.EIO
			}
		}
		return do()
	}
	defer func() { fault = nil }()
	if err := CreateExclusive(path, []byte(fresh), 0o640); !errors.Is(err, unix.EIO) {
		t.Fatalf("first: %v", err)
	}
	if left := temps(t, filepath.Dir(path)); len(left) != 0 {
		t.Fatalf("kept after a failed fsync: %v", left)
	}
	if err := CreateExclusive(path, []byte(fresh), 0o640); err != nil {
		t.Fatal(err)
	}
	if len(synced) != 2 || synced[0] == synced[1] {
		t.Fatalf("fsyncs: %v", synced)
	}
}

func TestTaken(t *testing.T) {
	path := setUp(t, []byte(old))
	if err := CreateExclusive(path, []byte(fresh), 0o640); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create exclusively: %v", err)
	}
	if err := CreateIdempotent(path, []byte(fresh), 0o640); !errors.Is(err, ErrDiffers) {
		t.Errorf("create idempotently: %v", err)
	}
	for _, other := range []string{old + "x", old[1:], ""} { // longer, shorter, empty
		if err := CreateIdempotent(path, []byte(other), 0o640); !errors.Is(err, ErrDiffers) {
			t.Errorf("create %q idempotently: %v", other, err)
		}
	}
	if err := writeAndPublish(path); !errors.Is(err, ErrDiffers) {
		t.Errorf("publish: %v", err)
	}
	if got := content(t, path); string(got) != old {
		t.Fatalf("content %q", got)
	}
}

// What is not a regular file is neither followed nor opened in a way that blocks.
func TestTakenByOtherThings(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte(fresh), 0o640); err != nil {
		t.Fatal(err)
	}
	make := map[string]func(path string) error{
		"symlink":   func(p string) error { return os.Symlink(elsewhere, p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"socket":    func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	}
	for name, f := range make {
		path := filepath.Join(dir, name)
		if err := f(path); err != nil {
			t.Fatal(err)
		}
		if err := CreateIdempotent(path, []byte(fresh), 0o640); !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPublishTempAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "object")
	temp, err := WriteTemp(dir, []byte(fresh), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if !IsTemp(filepath.Base(temp)) || string(content(t, temp)) != fresh {
		t.Fatalf("temporary file %s: %q", temp, content(t, temp))
	}
	for range 2 { // the second one is what recovery does
		if err := PublishTemp(temp, path); err != nil {
			t.Fatal(err)
		}
	}
	again, err := WriteTemp(dir, []byte(fresh), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if err := PublishTemp(again, path); err != nil {
		t.Fatalf("present and equal: %v", err)
	}
	if left := temps(t, dir); len(left) != 0 {
		t.Fatalf("left over: %v", left)
	}
	if err := PublishTemp(again, filepath.Join(dir, "other")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("neither there: %v", err)
	}
}

func TestPublishTempAcrossDirectories(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "object")
	if err := MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	temp, err := WriteTemp(dir, []byte(fresh), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if ops := record(t, func() error { return PublishTemp(temp, path) }); strings.Join(ops, " ") != "rename syncdir syncdir" {
		t.Fatalf("steps: %v", ops)
	}
	if got := content(t, path); string(got) != fresh {
		t.Fatalf("content %q", got)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(path, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o750 {
		t.Fatalf("%v, %v", st, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "below")} {
		if err := MkdirAll(p, 0o750); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestRemoveAbsent(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"absent", "absent/below"} {
		if err := Remove(filepath.Join(dir, p)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestConcurrentExclusive(t *testing.T) {
	path := setUp(t, nil)
	var wins atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := CreateExclusive(path, fmt.Appendf(nil, "writer %d", i), 0o640)
			if err == nil {
				wins.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || len(temps(t, filepath.Dir(path))) != 0 {
		t.Fatalf("winners: %d, left over: %v", wins.Load(), temps(t, filepath.Dir(path)))
	}
}

func TestConcurrentIdempotent(t *testing.T) {
	path := setUp(t, nil)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := CreateIdempotent(path, []byte(fresh), 0o640); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLink(t *testing.T) {
	dir := t.TempDir()
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	temp, err := d.writeTemp([]byte(fresh), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if err := linkNoReplace(d.fd(), temp, d.fd(), "object"); err != nil {
		t.Fatal(err)
	}
	if temps(t, dir) != nil || string(content(t, filepath.Join(dir, "object"))) != fresh {
		t.Fatal("link did not take the place of a rename")
	}
	if temp, err = d.writeTemp([]byte(old), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := linkNoReplace(d.fd(), temp, d.fd(), "object"); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("taken: %v", err)
	}
}

func TestTempNames(t *testing.T) {
	name := TempName()
	if !IsTemp(name) || name == TempName() {
		t.Fatalf("%q", name)
	}
	for _, other := range []string{"", ".tmp-", name + "0", name[1:], "object", ".tmp-" + strings.Repeat("g", tempDigits)} {
		if IsTemp(other) {
			t.Errorf("%q counts as temporary", other)
		}
	}
}

func TestRemoveTemps(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{TempName(), TempName(), "object"} {
		path := filepath.Join(dir, name)
		paths = append(paths, path)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for _, i := range []int{0, 2} {
		if err := os.Chtimes(paths[i], now, now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTemps(dir, now.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if left := temps(t, dir); len(left) != 1 || left[0] != filepath.Base(paths[1]) {
		t.Fatalf("left: %v", left)
	}
	if _, err := os.Stat(paths[2]); err != nil {
		t.Fatal(err)
	}
}

// TestLock holds the lock in this process and asks for it in another one.
func TestLock(t *testing.T) {
	path := os.Getenv("DURABLE_TEST_LOCK")
	if path != "" {
		_, err := Lock(path)
		fmt.Println("locked:", errors.Is(err, ErrLocked))
		return
	}
	path = filepath.Join(t.TempDir(), "lock")
	f, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLock$")
		cmd.Env = append(os.Environ(), "DURABLE_TEST_LOCK="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.SplitN(string(out), "\n", 2)[0]
	}
	if got := ask(); got != "locked: true" {
		t.Fatalf("while held: %s", got)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second in one process: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "locked: false" {
		t.Fatalf("after closing: %s", got)
	}
}
