package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// object is everything of a file that a restore must bring back.
type object struct {
	Mode   uint32
	UID    uint32
	GID    uint32
	Size   int64
	Mtime  int64
	Rdev   uint64
	Target string
	Sum    string
	Holes  bool
	Links  string // the first path of its set of hard links
	Xattrs map[string]string
}

// snapshot reads a tree by descriptor, so that paths longer than PATH_MAX are no obstacle. Its keys are paths relative to dir.
func snapshot(t *testing.T, dir string) map[string]object {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	r := &reader{t: t, out: map[string]object{}, first: map[[2]uint64]string{}}
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }() // only read
	r.out["."] = r.read(f, ".", fd, "")
	r.walk(f, "")
	return r.out
}

type reader struct {
	t     *testing.T
	out   map[string]object
	first map[[2]uint64]string
}

func (r *reader) walk(dir *os.File, path string) {
	names, err := dir.Readdirnames(-1)
	must(r.t, err)
	slices.Sort(names)
	for _, name := range names {
		p := filepath.Join(path, name)
		o := r.read(dir, name, -1, p)
		r.out[p] = o
		if o.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		must(r.t, err)
		sub := os.NewFile(uintptr(fd), name)
		r.walk(sub, p)
		must(r.t, sub.Close())
	}
}

// read returns one object; fd is its open descriptor where there is one.
func (r *reader) read(dir *os.File, name string, fd int, path string) object {
	var st unix.Stat_t
	if fd >= 0 {
		must(r.t, unix.Fstat(fd, &st))
	} else if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.t.Fatalf("stat %q: %v", path, err)
	}
	o := object{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		o.Size = st.Size
		o.Holes = st.Blocks*512 < st.Size/2
		o.Sum = r.sum(dir, name)
		if st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if r.first[key] == "" {
				r.first[key] = path
			}
			o.Links = r.first[key]
		}
	case unix.S_IFLNK:
		buf := make([]byte, 8192)
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		must(r.t, err)
		o.Target = string(buf[:n])
	case unix.S_IFBLK, unix.S_IFCHR:
		o.Rdev = st.Rdev
	}
	if path != "" {
		o.Xattrs = r.xattrs(dir, name, st.Mode)
	}
	return o
}

func (r *reader) sum(dir *os.File, name string) string {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		r.t.Fatalf("open %q: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		r.t.Fatalf("read %q: %v", name, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// xattrs reads extended attributes through /proc/self/fd, the one way that works for every kind of file.
func (r *reader) xattrs(dir *os.File, name string, mode uint32) map[string]string {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	must(r.t, err)
	defer func() { _ = unix.Close(fd) }()
	via := fmt.Sprintf("/proc/self/fd/%d", fd)
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(via, buf)
	if err != nil || n == 0 {
		return nil
	}
	out := map[string]string{}
	for key := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		m, err := unix.Getxattr(via, key, value)
		if err != nil {
			r.t.Fatalf("read xattr %s of %q (mode %o): %v", key, name, mode, err)
		}
		out[key] = string(value[:m])
	}
	return out
}

// differences lists how two trees differ, at most 20 lines.
func differences(want, got map[string]object) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[p]
		if !ok {
			out = append(out, fmt.Sprintf("missing: %q", p))
		} else if d := diff(want[p], g); d != "" {
			out = append(out, fmt.Sprintf("%q: %s", p, d))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			out = append(out, fmt.Sprintf("extra: %q", p))
		}
	}
	if len(out) > 20 {
		out = append(out[:20], fmt.Sprintf("and %d more", len(out)-20))
	}
	return out
}

func diff(a, b object) string {
	var d []string
	add := func(what string, x, y any) {
		if x != y {
			d = append(d, fmt.Sprintf("%s %v, want %v", what, y, x))
		}
	}
	add("mode", fmt.Sprintf("%o", a.Mode), fmt.Sprintf("%o", b.Mode))
	add("uid", a.UID, b.UID)
	add("gid", a.GID, b.GID)
	add("size", a.Size, b.Size)
	add("mtime", a.Mtime, b.Mtime)
	add("rdev", a.Rdev, b.Rdev)
	add("target", a.Target, b.Target)
	add("content", a.Sum, b.Sum)
	add("holes", a.Holes, b.Holes)
	add("links", a.Links, b.Links)
	if !maps.Equal(a.Xattrs, b.Xattrs) {
		d = append(d, fmt.Sprintf("xattrs %q, want %q", b.Xattrs, a.Xattrs))
	}
	return strings.Join(d, ", ")
}

// equal fails the test unless two trees are equal in content and metadata.
func equal(t *testing.T, what string, want, got map[string]object) {
	t.Helper()
	if d := differences(want, got); len(d) > 0 {
		t.Fatalf("%s: %d objects, differences:\n%s", what, len(want), strings.Join(d, "\n"))
	}
	t.Logf("%s: %d objects equal", what, len(want))
}

// measure counts the files and bytes of a tree.
func measure(t *testing.T, dir string) (files int, size int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that has its name by now
		}
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			files++
			size += info.Size()
		}
		return nil
	}))
	return files, size
}
