package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

func openAt(t *testing.T, root *os.File, path string, flags int) *os.File {
	t.Helper()
	f, err := Open(root, path, flags, journal.Ident{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "src", "main.go"), "package main")
	for path, size := range map[string]int{"src/main.go": 12, "src//main.go": 12, "": 0, ".": 0, "src": 0, "src/": 0} {
		f := openAt(t, root, path, unix.O_RDONLY)
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() != (size == 0) || size > 0 && info.Size() != int64(size) {
			t.Errorf("%q is %v", path, info)
		}
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%q: flags %#x, %v", path, flags, err)
		}
		if flags, err = unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%q: descriptor flags %#x, %v", path, flags, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "projects")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := openDir(t, dir)
	write(t, filepath.Join(top, "secret"), "")
	write(t, filepath.Join(dir, "file"), "")
	for name, target := range map[string]string{"out": "..", "away": top, "same": "file", "proc": "/proc/self/fd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"../secret": unix.EXDEV, filepath.Join(top, "secret"): unix.EXDEV, "out/secret": unix.ELOOP, "away/secret": unix.ELOOP,
		"proc/0": unix.ELOOP, "same": ErrSpecial, "fifo": ErrSpecial, "null": ErrSpecial, "none": fs.ErrNotExist,
		"file/x": unix.ENOTDIR, strings.Repeat("x", 5000): unix.ENAMETOOLONG,
		strings.Repeat("../", 2000) + "secret": unix.EXDEV, "file\x00": unix.EINVAL,
	} {
		f, err := Open(root, path, unix.O_RDONLY, journal.Ident{})
		if !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", path, err, want)
		}
		if err == nil {
			_ = f.Close()
		}
	}
	for _, path := range []string{"same", "fifo", "null"} {
		openAt(t, root, path, unix.O_PATH)
	}
	if _, err := Open(root, "file", unix.O_PATH|unix.O_DIRECTORY, journal.Ident{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file as a directory: %v", err)
	}
}

func TestOpenMoved(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	write(t, filepath.Join(dir, "a"), "")
	write(t, filepath.Join(dir, "b"), "")
	a, _, err := Stat(int(root.Fd()), "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []int{unix.O_RDONLY, unix.O_PATH} {
		f, err := Open(root, "a", flags, a)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if _, err := Open(root, "b", flags, a); !errors.Is(err, ErrMoved) {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
}

// TestOpenLeased: a lease that somebody else holds does not make opening fail.
func TestOpenLeased(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	write(t, filepath.Join(dir, "a"), "")
	holder := openDir(t, filepath.Join(dir, "a"))
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		t.Fatal(err)
	}
	openAt(t, root, "a", unix.O_RDONLY)
}

// TestOpenKeepsAtime: reading for a backup is not a use of the file.
func TestOpenKeepsAtime(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	path := filepath.Join(dir, "a")
	write(t, path, "content")
	old := time.Now().Add(-100 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	f := openAt(t, root, "a", unix.O_RDONLY)
	if _, err := f.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Atim.Nano() != old.UnixNano() {
		t.Errorf("read %v ago", time.Since(time.Unix(st.Atim.Unix())))
	}
}

// TestOpenOfOthers: who may not keep the access time reads all the same.
func TestOpenOfOthers(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	write(t, filepath.Join(dir, "a"), "")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread() // and never unlocked: the thread ends with its other user id
		if err := unix.Setfsuid(65534); err != nil {
			return err
		}
		f, err := Open(root, "a", unix.O_RDONLY, journal.Ident{})
		if err != nil {
			return err
		}
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NOATIME != 0 {
			err = errors.New("opened as the owner")
		}
		return errors.Join(err, f.Close())
	})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStatLink(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, attr, err := Stat(int(root.Fd()), "link")
	if err != nil || attr.Mode&unix.S_IFMT != unix.S_IFLNK || attr.Size != 7 {
		t.Errorf("%+v, %v", attr, err)
	}
	if _, _, err := Stat(int(root.Fd()), "nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestQuietWithoutLeases(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/dev/null"} {
		if quiet, err := Quiet(openDir(t, path)); quiet || !errors.Is(err, ErrNoLease) {
			t.Errorf("%s: %v, %v", path, quiet, err)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	want := []string{"new\nline", "\xff\xfe", `"quoted"`, " ", strings.Repeat("n", 255)}
	for i := range 2000 {
		want = append(want, fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%40)))
	}
	for _, name := range want {
		write(t, filepath.Join(dir, name), "")
	}
	f := openDir(t, dir)
	slices.Sort(want)
	for range 2 { // a second listing begins anew
		names, err := ReadDir(f)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Fatalf("%d names, want %d", len(names), len(want))
		}
	}
	entries, err := List(f)
	if err != nil || len(entries) != len(want) {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		id, attr, err := Stat(int(f.Fd()), e.Name)
		if err != nil || id != e.Ident || attr != e.Attr {
			t.Fatalf("%q: %+v, want %+v, %v", e.Name, e, id, err)
		}
	}
	if names, err := ReadDir(openDir(t, t.TempDir())); len(names) != 0 || err != nil {
		t.Errorf("of an empty directory: %q, %v", names, err)
	}
	kinds, err := ReadKinds(openDir(t, dir))
	if err != nil || len(kinds) != len(want) {
		t.Fatalf("%d kinds, %v", len(kinds), err)
	}
	for _, k := range kinds {
		if !slices.Contains(want, k.Name) || k.Dir {
			t.Errorf("%q: a directory: %v", k.Name, k.Dir)
		}
	}
	above, err := ReadKinds(openDir(t, filepath.Dir(dir)))
	if i := slices.Index(above, Kind{filepath.Base(dir), true}); i < 0 || err != nil {
		t.Errorf("%v, %v", above, err)
	}
	if _, err := ReadDir(openDir(t, filepath.Join(dir, " "))); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("of a file: %v", err)
	}
}

// TestListWhileRemoved: names that vanish are left out, and are no error.
func TestListWhileRemoved(t *testing.T) {
	dir := t.TempDir()
	f := openDir(t, dir)
	var g errgroup.Group
	for i := range 2000 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), "")
	}
	g.Go(func() error {
		for i := range 2000 {
			if err := os.Remove(filepath.Join(dir, fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return nil
	})
	for left := 1; left > 0; {
		entries, err := List(f)
		if err != nil {
			t.Error(err)
			break
		}
		left = len(entries)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestReadlink(t *testing.T) {
	dir := t.TempDir()
	root := openDir(t, dir)
	for _, target := range []string{"a", strings.Repeat("x", 256), strings.Repeat("y", 4095), "\xff\n"} {
		path := filepath.Join(dir, "link")
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		got, err := Readlink(int(root.Fd()), "link")
		if got != target || err != nil {
			t.Errorf("%d bytes: %.20q, %v", len(target), got, err)
		}
		f := openAt(t, root, "link", unix.O_PATH)
		if got, err = Readlink(int(f.Fd()), ""); got != target || err != nil {
			t.Errorf("by descriptor: %.20q, %v", got, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Readlink(int(root.Fd()), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestXattrNames(t *testing.T) {
	for name, want := range map[string]bool{
		"user.a": true, "trusted.a": true, "security.capability": true, "system.posix_acl_access": true,
		"system.posix_acl_default": true, "system.nfs4_acl": false, "trusted.SGI_ACL_FILE": false, "system.": false,
	} {
		if isKept(name) != want {
			t.Errorf("%q: kept %v", name, !want)
		}
	}
}

func TestBootID(t *testing.T) {
	a, err := BootID()
	b, _ := BootID()
	if err != nil || len(a) != 36 || a != b {
		t.Errorf("%q, %q, %v", a, b, err)
	}
}

func TestCutPath(t *testing.T) {
	long := strings.Repeat("d/", 5000) + "f"
	var pieces []string
	for rest := long; rest != ""; {
		var piece string
		piece, rest = cutPath(rest)
		if len(piece) > pieceLength {
			t.Fatalf("a piece of %d bytes", len(piece))
		}
		pieces = append(pieces, piece)
	}
	if strings.Join(pieces, "/") != long || len(pieces) != 3 {
		t.Errorf("%d pieces", len(pieces))
	}
}

func dirent(name string, length int) []byte {
	b := make([]byte, length)
	binary.NativeEndian.PutUint16(b[16:], uint16(length))
	copy(b[direntHead:], name)
	return b
}

func FuzzEachName(f *testing.F) {
	f.Add(append(dirent("a", 24), dirent("..", 24)...))
	f.Add(dirent("long name", 28)[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		length := 0
		err := eachName(b, func(name string, _ byte) {
			if strings.ContainsRune(name, 0) {
				t.Fatalf("%q", name)
			}
			length += len(name)
		})
		if err == nil && length > len(b) {
			t.Fatal("more names than bytes")
		}
	})
}

func BenchmarkStat(b *testing.B) {
	dir, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Stat(int(dir.Fd()), ""); err != nil {
			b.Fatal(err)
		}
	}
}
