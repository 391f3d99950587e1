package source

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/loopdisk"
)

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s (make deps installs what is missing)", args, err, out)
	}
}

// TestDisks: what the other tests find on the disk they happen to run on holds on each of these.
func TestDisks(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := loopdisk.New(t, kind, 512<<20, "")
			checkIdentity(t, dir)
			checkQuiet(t, dir)
			checkHoles(t, dir)
			checkXattrs(t, dir)
			checkLongPath(t, dir)
			if kind == "btrfs" {
				checkSubvolume(t, dir)
			}
		})
	}
}

func openDir(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkIdentity: it is the same however asked for, and another after the file is made anew.
func checkIdentity(t *testing.T, dir string) {
	t.Helper()
	root := openDir(t, dir)
	path := filepath.Join(dir, "identity")
	write(t, path, "content")
	at := int(root.Fd())
	id, attr, err := Stat(at, "identity")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if id.FS == 0 || id.Ino != st.Ino || id.Birth == 0 {
		t.Errorf("identity %+v, inode %d", id, st.Ino)
	}
	if attr.Mode != st.Mode || attr.Size != 7 || attr.Nlink != 1 || attr.Mtime != st.Mtim.Nano() || attr.Ctime != st.Ctim.Nano() {
		t.Errorf("attributes %+v, want %+v", attr, st)
	}
	f := openDir(t, path)
	if again, _, err := Stat(int(f.Fd()), ""); again != id || err != nil {
		t.Errorf("by descriptor: %+v, %v", again, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "content")
	if again, _, err := Stat(at, "identity"); again == id || err != nil {
		t.Errorf("the file made anew has the identity %+v of the old one, %v", again, err)
	}
}

// checkQuiet: V1 and V3 of the facts this rests on. A mapping that outlives its descriptor is found.
func checkQuiet(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "quiet")
	write(t, path, strings.Repeat("x", 8192))
	f := openDir(t, path)
	expect := func(when string, want bool) {
		t.Helper()
		if got, err := Quiet(f); got != want || err != nil {
			t.Errorf("%s: quiet %v, %v", when, got, err)
		}
	}
	expect("at rest", true)
	other := openDir(t, path)
	expect("open for reading", true)
	_ = other.Close()
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect("open for writing", false)
	m, err := unix.Mmap(int(w.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	expect("mapped after close", false)
	m[4096] = 'y'
	expect("mapped and written", false)
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	expect("unmapped", true)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("the lease is still held: %v", err)
	}
	_ = unix.Close(fd)
}

// checkHoles: found, and none made up.
func checkHoles(t *testing.T, dir string) {
	t.Helper()
	const block = 64 << 10
	f, err := os.Create(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	data := bytes.Repeat([]byte{1}, block)
	for _, at := range []int64{0, 16 * block} {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	size := int64(64 * block)
	if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
		t.Fatal(err)
	}
	want := [][2]int64{{block, 15 * block}, {17 * block, 47 * block}}
	if got, err := Holes(f, size); fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
		t.Errorf("holes %v, want %v, %v", got, want, err)
	}
	if got, err := Holes(f, 20*block); fmt.Sprint(got) != fmt.Sprint([][2]int64{{block, 15 * block}, {17 * block, 3 * block}}) || err != nil {
		t.Errorf("up to a smaller size: %v, %v", got, err)
	}
	if err := f.Truncate(block); err != nil {
		t.Fatal(err)
	}
	if got, err := Holes(f, block); got != nil || err != nil {
		t.Errorf("in a file without: %v, %v", got, err)
	}
	if got, err := Holes(f, size); err != nil || len(got) > 1 {
		t.Errorf("in a file that became shorter: %v, %v", got, err)
	}
	if err := errors.Join(f.Truncate(0), f.Truncate(size)); err != nil {
		t.Fatal(err)
	}
	if got, err := Holes(f, size); fmt.Sprint(got) != fmt.Sprint([][2]int64{{0, size}}) || err != nil {
		t.Errorf("in a file of nothing else: %v, %v", got, err)
	}
}

// checkXattrs: all of a file's and a link's, ACLs too, by any kind of descriptor.
func checkXattrs(t *testing.T, dir string) {
	t.Helper()
	root := openDir(t, dir)
	path, link := filepath.Join(dir, "xattrs"), filepath.Join(dir, "link")
	write(t, path, "")
	if err := os.Symlink("xattrs", link); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"user.empty": "", "user.big": strings.Repeat("v", 3000), "trusted.\xff\n": "\x00"}
	for name, value := range want {
		if err := unix.Setxattr(path, name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Lsetxattr(link, "trusted.link", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, "security.capability", nil, 0); err != nil { // malformed, and unreadable from then on
		t.Fatal(err)
	}
	command(t, "setfacl", "-m", "u:12345:r", path)
	for _, flags := range []int{unix.O_RDONLY, unix.O_PATH} {
		f := openAt(t, root, "xattrs", flags)
		got, err := Xattrs(f)
		if err != nil || len(got) != len(want)+1 || len(got["system.posix_acl_access"]) == 0 {
			t.Errorf("flags %#x: %q, %v", flags, slices.Collect(maps.Keys(got)), err)
		}
		for name, value := range want {
			if v, ok := got[name]; !ok || v == nil || string(v) != value {
				t.Errorf("flags %#x: %q is %q", flags, name, v)
			}
		}
	}
	got, err := Xattrs(openAt(t, root, "link", unix.O_PATH))
	if err != nil || len(got) != 1 || string(got["trusted.link"]) != "1" {
		t.Errorf("of the link: %q, %v", got, err)
	}
	write(t, filepath.Join(dir, "plain"), "")
	if got, err := Xattrs(openAt(t, root, "plain", unix.O_RDONLY)); got != nil || err != nil {
		t.Errorf("of a file without: %q, %v", got, err)
	}
}

// checkLongPath: a file far deeper than a path can name.
func checkLongPath(t *testing.T, dir string) {
	t.Helper()
	root := openDir(t, dir)
	name := strings.Repeat("d", 200)
	path := strings.TrimSuffix(strings.Repeat(name+"/", 50), "/")
	at, err := unix.Dup(int(root.Fd()))
	for range 50 {
		if err != nil {
			t.Fatal(err)
		}
		below := -1
		if err = unix.Mkdirat(at, name, 0o755); err == nil {
			below, err = unix.Openat(at, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		}
		_ = unix.Close(at)
		at = below
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(at) }()
	fd, err := unix.Openat(at, "deep", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	want, _, err := Stat(at, "deep")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(root, path+"/deep", unix.O_RDONLY, want)
	if err != nil {
		t.Fatalf("open %d bytes deep: %v", len(path), err)
	}
	_ = f.Close()
	if f, err = Open(root, path, unix.O_RDONLY|unix.O_DIRECTORY, want); !errors.Is(err, ErrMoved) {
		t.Errorf("the directory in place of the file: %v, %v", f, err)
	}
}

// checkSubvolume: a subvolume has inode numbers of its own, so its identity differs.
func checkSubvolume(t *testing.T, dir string) {
	t.Helper()
	root := openDir(t, dir)
	var ids []any
	for _, name := range []string{"one", "two"} {
		command(t, "btrfs", "subvolume", "create", filepath.Join(dir, name))
		write(t, filepath.Join(dir, name, "file"), "")
		f := openAt(t, root, name+"/file", unix.O_RDONLY)
		id, _, err := Stat(int(f.Fd()), "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id.FS, id.Ino)
	}
	if ids[0] == ids[2] || ids[1] != ids[3] {
		t.Errorf("file systems and inodes in two subvolumes: %v", ids)
	}
}
