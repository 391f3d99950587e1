package source

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattrs reads all extended attributes of an open file or directory (O_RDONLY), or of an O_PATH descriptor through
// /proc/self/fd; nil for none or where the file system has none. The kernel's own (system.* except posix ACLs) are left out.
func Xattrs(f *os.File) (map[string][]byte, error) {
	defer runtime.KeepAlive(f)
	c := byDescriptor(f)
	list, err := grow(256, c.list)
	if errors.Is(err, unix.EBADF) { // O_PATH
		c = byLink(f)
		list, err = grow(256, c.list)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list xattrs of %s: %w", f.Name(), err)
	}
	var all map[string][]byte
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if name == "" || !isKept(name) {
			continue
		}
		value, err := grow(256, func(b []byte) (int, error) { return c.get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if name == "security.capability" && errors.Is(err, unix.EINVAL) {
			continue // malformed: the kernel takes it for none, and shows its name alone
		}
		if err != nil {
			return nil, fmt.Errorf("read xattr %q of %s: %w", name, f.Name(), err)
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[name] = value
	}
	return all, nil
}

// isKept: trusted.SGI_* is how xfs shows the POSIX ACLs once more; on another file system it would be a stray attribute.
func isKept(name string) bool {
	if name == "trusted.SGI_ACL_FILE" || name == "trusted.SGI_ACL_DEFAULT" {
		return false
	}
	return !strings.HasPrefix(name, "system.") || name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// xattrs are the two system calls on one object.
type xattrs struct {
	list func(b []byte) (int, error)
	get  func(name string, b []byte) (int, error)
}

func byDescriptor(f *os.File) xattrs {
	fd := int(f.Fd())
	return xattrs{
		list: func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		get:  func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) },
	}
}

// byLink is for O_PATH descriptors, which the calls by descriptor refuse; those by path would find another object.
func byLink(f *os.File) xattrs {
	link := procLink(int(f.Fd()))
	return xattrs{
		list: func(b []byte) (int, error) { return unix.Listxattr(link, b) },
		get:  func(name string, b []byte) (int, error) { return unix.Getxattr(link, name, b) },
	}
}

// maxValue is the kernel's bound on a value and on a list of names.
const maxValue = 64 << 10

// grow calls call with a larger buffer until the answer fits; never nil without an error.
func grow(size int, call func(b []byte) (int, error)) ([]byte, error) {
	for {
		b := make([]byte, size)
		n, err := call(b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ERANGE) && size < maxValue:
			size = maxValue
		case err != nil:
			return nil, err
		default:
			return b[:n:n], nil
		}
	}
}
