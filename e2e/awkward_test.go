package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awkward makes every kind of file that backups are known to get wrong, below dir.
func awkward(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) { t.Helper(); must(t, os.WriteFile(in(name), data, 0o644)) }

	write("empty", nil)
	write("one byte", []byte("x"))
	write("new\nline", []byte("a name with a newline\n"))
	write(`quote"s and 'quotes' \ back`, []byte("quotes"))
	write("invalid \xff\xfe utf-8", []byte("not UTF-8"))
	write(strings.Repeat("n", 255), []byte("255 bytes"))
	write("  spaces  ", []byte(" "))
	write("-rf", []byte("looks like a flag"))
	write("big", noise(r, 5<<20+123))
	write("repeated", bytes.Repeat([]byte("the same line again\n"), 200_000))
	must(t, os.Mkdir(in("empty directory"), 0o700))

	must(t, os.Symlink("big", in("link")))
	must(t, os.Symlink("/nowhere/\xfd", in("dangling")))
	must(t, os.Link(in("big"), in("hard link")))
	must(t, os.Mkdir(in("sub"), 0o2775))
	must(t, os.Link(in("big"), in("sub/hard link across")))
	must(t, unix.Mkfifo(in("fifo"), 0o640))
	must(t, unix.Mknod(in("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))))
	must(t, unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0))
	sparse(t, in("sparse"))

	write("owned", []byte("1234:4321"))
	must(t, os.Chown(in("owned"), 1234, 4321))
	write("setuid", []byte("#!/bin/sh\n"))
	must(t, unix.Chmod(in("setuid"), 0o4755))
	write("attributes", []byte("x"))
	must(t, unix.Setxattr(in("attributes"), "user.comment", []byte("binary \x00 value"), 0))
	must(t, unix.Setxattr(in("attributes"), "user.empty", nil, 0))
	must(t, unix.Setxattr(in("attributes"), "trusted.note", []byte("t"), 0))
	must(t, unix.Setxattr(in("sub"), "user.directory", []byte("d"), 0))
	must(t, unix.Setxattr(in("attributes"), "security.capability", capability, 0))
	must(t, unix.Setxattr(in("owned"), "system.posix_acl_access", accessACL, 0))
	must(t, unix.Setxattr(in("sub"), "system.posix_acl_default", accessACL, 0))
	write("sub/inherits", []byte("an ACL by default"))
	must(t, os.Mkdir(in("sub/inherits too"), 0o755))

	deep(t, dir)
	at := func(name string, when time.Time) {
		t.Helper()
		ts := []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	at("one byte", time.Date(1969, 7, 20, 20, 17, 40, 123456789, time.UTC))
	at("link", time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC))
	at("fifo", time.Date(2038, 1, 19, 3, 14, 8, 1, time.UTC))
	at("empty directory", time.Date(1999, 12, 31, 23, 59, 59, 999999999, time.UTC))
}

// capability is cap_net_raw+ep as the kernel stores it (revision 2).
var capability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// accessACL is user::rw-, user:1000:r--, group::r--, mask::r--, other::r-- as the kernel stores it.
var accessACL = func() []byte {
	var b bytes.Buffer
	b.Write([]byte{2, 0, 0, 0})
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, 1000}, {4, 4, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 4, ^uint32(0)}} {
		b.Write([]byte{byte(e.tag), 0, byte(e.perm), 0, byte(e.id), byte(e.id >> 8), byte(e.id >> 16), byte(e.id >> 24)})
	}
	return b.Bytes()
}()

// sparse makes a file of 64 MiB with three small islands of data.
func sparse(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	must(t, f.Truncate(64<<20))
	for i, off := range []int64{0, 20 << 20, 64<<20 - 10} {
		_, err := f.WriteAt([]byte(fmt.Sprintf("island %d", i)), off)
		must(t, err)
	}
}

// deep makes directories until the path is more than 4,000 bytes long, with a file in the last.
func deep(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	name := strings.Repeat("d", 200)
	for range 21 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	file, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	_, err = unix.Write(file, []byte("4,200 bytes below"))
	must(t, err)
	must(t, unix.Close(file))
	must(t, unix.Close(fd))
}

// noise returns n bytes that do not compress.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		x := r.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(x)
			x >>= 8
		}
	}
	return b
}
