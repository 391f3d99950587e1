package volumetest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Scan describes everything below a directory, by path, without following links and whatever the depth.
func Scan(t testing.TB, root string) map[string]string {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	s := scanner{t, all, make(map[uint64]string)}
	s.object(fd, ".", "")
	s.dir(fd, "")
	return all
}

type scanner struct {
	t     testing.TB
	all   map[string]string
	first map[uint64]string // inode → its first path
}

func (s *scanner) dir(fd int, path string) {
	s.t.Helper()
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // only read
	names, err := f.Readdirnames(-1)
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(names)
	for _, n := range names {
		p := strings.TrimPrefix(path+"/"+n, "/")
		if s.object(fd, n, p) != unix.S_IFDIR {
			continue
		}
		sub, err := unix.Openat(fd, n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		s.dir(sub, p)
	}
}

func (s *scanner) object(dirfd int, name, path string) uint32 {
	s.t.Helper()
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }() // only looked at
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		s.t.Fatal(err)
	}
	d := fmt.Sprintf("%o %d:%d %d", st.Mode, st.Uid, st.Gid, unix.TimespecToNsec(st.Mtim))
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if f, ok := s.first[st.Ino]; ok {
			d += " link of " + f
		} else {
			s.first[st.Ino] = path
		}
	}
	switch kind {
	case unix.S_IFREG:
		d += fmt.Sprintf(" %d bytes %s", st.Size, contentSum(s.t, fd, &st))
	case unix.S_IFLNK:
		buf := make([]byte, 5000)
		n, err := unix.Readlinkat(fd, "", buf)
		if err != nil {
			s.t.Fatal(err)
		}
		d += fmt.Sprintf(" -> %q", buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		d += fmt.Sprintf(" dev %x", st.Rdev)
	}
	s.all[path] = d + xattrs(s.t, fmt.Sprintf("/proc/self/fd/%d", fd))
	return kind
}

func contentSum(t testing.TB, fd int, st *unix.Stat_t) string {
	if st.Size > 1<<30 {
		return fmt.Sprintf("%d blocks", st.Blocks)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))[:12]
}

func xattrs(t testing.TB, path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var d string
	for _, name := range names {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		d += fmt.Sprintf(" %q=%x", name, value[:n])
	}
	return d
}
