package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// Entry is what one name of a directory leads to.
type Entry struct {
	Name  string // raw bytes
	Ident journal.Ident
	Attr  journal.Attr
}

// Kind is a name in a directory, and whether it leads to a directory.
type Kind struct {
	Name string // raw bytes
	Dir  bool
}

// direntHead is the fixed part of a struct linux_dirent64: inode, offset, length, type.
const direntHead = 8 + 8 + 2 + 1

// ReadDir returns the names in a directory opened for reading, from its beginning, without "." and "..", in no order.
func ReadDir(f *os.File) ([]string, error) {
	var names []string
	if err := readNames(f, func(name string, _ byte) { names = append(names, name) }); err != nil {
		return nil, err
	}
	return names, nil
}

// ReadKinds is ReadDir with each name's kind, which most file systems tell without being asked about each name.
func ReadKinds(f *os.File) ([]Kind, error) {
	var names []Kind
	var unknown []int
	if err := readNames(f, func(name string, kind byte) {
		if kind == unix.DT_UNKNOWN {
			unknown = append(unknown, len(names))
		}
		names = append(names, Kind{name, kind == unix.DT_DIR})
	}); err != nil {
		return nil, err
	}
	for _, i := range unknown {
		if _, attr, err := Stat(int(f.Fd()), names[i].Name); err == nil {
			names[i].Dir = attr.Mode&unix.S_IFMT == unix.S_IFDIR
		}
	}
	return names, nil
}

// readNames calls fn for each name in a directory.
func readNames(f *os.File, fn func(name string, kind byte)) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read directory %s: %w", f.Name(), err)
	}
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(int(f.Fd()), buf)
			return err
		})
		if err != nil {
			return fmt.Errorf("read directory %s: %w", f.Name(), err)
		}
		if n == 0 {
			return nil
		}
		if err = eachName(buf[:n], fn); err != nil {
			return fmt.Errorf("read directory %s: %w", f.Name(), err)
		}
	}
}

var errDirent = errors.New("entries of impossible length")

func eachName(b []byte, fn func(name string, kind byte)) error {
	for len(b) > 0 {
		if len(b) < direntHead {
			return errDirent
		}
		n := int(binary.NativeEndian.Uint16(b[16:]))
		if n < direntHead || n > len(b) {
			return errDirent
		}
		name, _, _ := strings.Cut(string(b[direntHead:n]), "\x00")
		if name != "." && name != ".." {
			fn(name, b[direntHead-1])
		}
		b = b[n:]
	}
	return nil
}

// List is ReadDir with each name's identity and attributes. Names that are gone before they are looked at are left out.
func List(f *os.File) ([]Entry, error) {
	names, err := ReadDir(f)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(names))
	for _, name := range names {
		id, attr, err := Stat(int(f.Fd()), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list directory %s: %w", f.Name(), err)
		}
		entries = append(entries, Entry{Name: name, Ident: id, Attr: attr})
	}
	return entries, nil
}

// IsMountPoint tells a mounted file system from a subvolume of the same one; name "": is dirfd itself the root of one?
func IsMountPoint(dirfd int, name string) bool {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if retry(func() error { return unix.Statx(dirfd, name, flags, unix.STATX_TYPE, &st) }) != nil {
		return false
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// Readlink returns the target of the symbolic link name below dirfd; name "": dirfd is the link itself, opened with O_PATH.
func Readlink(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Readlinkat(dirfd, name, b)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read link %q: %w", name, err)
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// BootID returns the kernel's random id of this boot: a reboot ends every process that wrote to the source.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
