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

// direntHead is the fixed part of a struct linux_dirent64: inode, offset, length, type.
const direntHead = 8 + 8 + 2 + 1

// ReadDir returns the names in a directory opened for reading, from its beginning, without "." and "..", in no order.
func ReadDir(f *os.File) ([]string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read directory %s: %w", f.Name(), err)
	}
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(int(f.Fd()), buf)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read directory %s: %w", f.Name(), err)
		}
		if n == 0 {
			return names, nil
		}
		if names, err = appendNames(names, buf[:n]); err != nil {
			return nil, fmt.Errorf("read directory %s: %w", f.Name(), err)
		}
	}
}

var errDirent = errors.New("entries of impossible length")

func appendNames(names []string, b []byte) ([]string, error) {
	for len(b) > 0 {
		if len(b) < direntHead {
			return nil, errDirent
		}
		n := int(binary.NativeEndian.Uint16(b[16:]))
		if n < direntHead || n > len(b) {
			return nil, errDirent
		}
		name, _, _ := strings.Cut(string(b[direntHead:n]), "\x00")
		if name != "." && name != ".." {
			names = append(names, name)
		}
		b = b[n:]
	}
	return names, nil
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
