package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is one kind of metadata that a volume may hold. make fails where this host or its file system has nothing of the kind.
type kind struct {
	name string
	make func(dir string) error
	also func(made, restored string) error // what a comparison of the trees does not see
}

// kinds are all that slipway carries (docs/format.md). Access times and the flags of chattr(1) are not among them.
var kinds = []kind{
	{name: "content", make: contents},
	{name: "holes of sparse files", make: holes, also: stillSparse},
	{name: "modes", make: modes},
	{name: "owners and groups", make: owners},
	{name: "modification times", make: times},
	{name: "user.* attributes", make: func(dir string) error { return attributes(dir, "user.slipway-doctor", "value\x00\xff") }},
	{name: "trusted.* attributes", make: func(dir string) error { return attributes(dir, "trusted.slipway-doctor", "value") }},
	{name: "security.* attributes", make: func(dir string) error { return attributes(dir, "security.slipway-doctor", "value") }},
	{name: "file capabilities", make: capable},
	{name: "ACLs", make: func(dir string) error { return attributes(dir, "system.posix_acl_access", string(acl())) }},
	{name: "default ACLs", make: defaultACLs},
	{name: "symbolic links", make: symlinks},
	{name: "hard links", make: hardlinks},
	{name: "FIFOs and sockets", make: pipes},
	{name: "devices", make: devices},
	{name: "odd names", make: oddNames},
	{name: "empty directories", make: func(dir string) error { return os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o700) }},
}

// makers runs steps until one fails.
func makers(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// contents: none, one byte, one chunk, several.
func contents(dir string) error {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 4096, 3 << 20} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(size)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

const sparseSize = 64 << 20

func holes(dir string) error {
	path := filepath.Join(dir, "sparse")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("begin"), 0)
	_, err2 := f.WriteAt([]byte("end"), sparseSize)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		return err
	}
	return isSparse(path)
}

func isSparse(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Blocks*512 > sparseSize/2 {
		return fmt.Errorf("a file of %d bytes with a hole takes %d: %w", st.Size, st.Blocks*512, unix.EOPNOTSUPP)
	}
	return nil
}

func stillSparse(_, restored string) error { return isSparse(filepath.Join(restored, "sparse")) }

// modes: all the bits, on files and on directories.
func modes(dir string) error {
	for _, mode := range []uint32{0, 0o444, 0o777, 0o1644, 0o2755, 0o4755, 0o7777} {
		for _, isDir := range []bool{false, true} {
			if err := withMode(dir, mode, isDir); err != nil {
				return err
			}
		}
	}
	return nil
}

func withMode(dir string, mode uint32, isDir bool) error {
	path := filepath.Join(dir, fmt.Sprintf("file %o", mode))
	err := error(nil)
	if isDir {
		mode |= 0o700 // so that who is not root gets rid of it
		path = filepath.Join(dir, fmt.Sprintf("dir %o", mode))
		err = os.MkdirAll(path, 0o700)
	} else {
		err = os.WriteFile(path, []byte("x"), 0o600)
	}
	if err := errors.Join(err, unix.Chmod(path, mode)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if got := st.Mode & 0o7777; got != mode {
		return fmt.Errorf("mode %o becomes %o: %w", mode, got, unix.EOPNOTSUPP)
	}
	return nil
}

func owners(dir string) error {
	file, sub, link := filepath.Join(dir, "file"), filepath.Join(dir, "dir"), filepath.Join(dir, "link")
	return makers(
		func() error { return os.WriteFile(file, []byte("x"), 0o640) },
		func() error { return os.Mkdir(sub, 0o700) },
		func() error { return os.Symlink("file", link) },
		func() error { return os.Lchown(file, 1234, 4321) },
		func() error { return os.Lchown(sub, 65534, 100_000) },
		func() error { return os.Lchown(link, 1<<31, 5) },
	)
}

// times: nanoseconds, before 1970, after 2038.
func times(dir string) error {
	for i, ns := range []int64{981_173_106_123_456_789, 1, -1_234_567_890_987_654_321, 4_102_444_800_000_000_001} {
		path := filepath.Join(dir, fmt.Sprint(i))
		ts := unix.NsecToTimespec(ns)
		var st unix.Stat_t
		if err := makers(
			func() error { return os.WriteFile(path, []byte("x"), 0o600) },
			func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, 0) },
			func() error { return unix.Stat(path, &st) },
		); err != nil {
			return err
		}
		if got := st.Mtim.Nano(); got != ns {
			return fmt.Errorf("a time of %d ns becomes %d: %w", ns, got, unix.EOPNOTSUPP)
		}
	}
	return nil
}

// attributes sets one on a file and on a directory.
func attributes(dir, name, value string) error {
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "dir")
	return makers(
		func() error { return os.WriteFile(file, []byte("x"), 0o600) },
		func() error { return os.Mkdir(sub, 0o700) },
		func() error { return unix.Setxattr(file, name, []byte(value), 0) },
		func() error { return unix.Setxattr(sub, name, []byte(value), 0) },
	)
}

// capable sets CAP_NET_BIND_SERVICE as setcap(8) does.
func capable(dir string) error {
	file := filepath.Join(dir, "program")
	value := append([]byte{1, 0, 0, 2, 0, 4, 0, 0}, bytes.Repeat([]byte{0}, 12)...)
	return makers(
		func() error { return os.WriteFile(file, []byte("x"), 0o755) },
		func() error { return unix.Setxattr(file, "security.capability", value, 0) },
	)
}

func defaultACLs(dir string) error {
	return makers(
		func() error { return unix.Setxattr(dir, "system.posix_acl_default", acl(), 0) },
		func() error { return os.Mkdir(filepath.Join(dir, "heir"), 0o770) },
		func() error { return os.WriteFile(filepath.Join(dir, "heir", "file"), []byte("x"), 0o660) },
	)
}

func symlinks(dir string) error {
	for name, target := range map[string]string{
		"dangling": "nowhere/at all", "long": strings.Repeat("0123456/", 120), "odd": "a\nb\xff", "absolute": "/", "to itself": "to itself",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func hardlinks(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	return makers(
		func() error { return os.Mkdir(at("sub"), 0o700) },
		func() error { return os.WriteFile(at("file"), []byte("x"), 0o600) },
		func() error { return os.Symlink("file", at("link")) },
		func() error { return os.Link(at("file"), at("sub/the same")) },
		func() error { return os.Link(at("link"), at("sub/the same link")) },
	)
}

func pipes(dir string) error {
	return makers(
		func() error { return unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640) },
		func() error { return unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o620, 0) },
	)
}

func devices(dir string) error {
	return makers(
		func() error {
			return unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
		},
		func() error {
			return unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 1<<17)))
		},
	)
}

func oddNames(dir string) error {
	for _, name := range []string{
		strings.Repeat("n", 255), "a\nnewline", "\xff\xfe not UTF-8", `"quotes' \`, "-dash", "*?[", " blanks ", "ü", "u\u0308", "CON.txt", "...",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			return err
		}
	}
	return nil
}
