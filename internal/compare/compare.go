// Package compare tells in words where two directory trees differ. It only reads, so a crash leaves nothing.
package compare

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Difference is a path of one of the trees, and in words what is not the same there.
type Difference struct{ Path, What string }

// Trees lists where two trees differ: names, types, modes, owners, times, content, links, extended attributes.
func Trees(a, b string) ([]Difference, error) {
	left, err := scan(a)
	if err != nil {
		return nil, err
	}
	right, err := scan(b)
	if err != nil {
		return nil, err
	}
	var differences []Difference
	for path, x := range left {
		y, ok := right[path]
		if !ok {
			differences = append(differences, Difference{path, "missing"})
			continue
		}
		what, err := x.differs(y)
		if err != nil {
			return nil, err
		}
		if what != "" {
			differences = append(differences, Difference{path, what})
		}
	}
	for path := range right {
		if _, ok := left[path]; !ok {
			differences = append(differences, Difference{path, "not in the original"})
		}
	}
	slices.SortFunc(differences, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return differences, nil
}

// object is a file of either tree.
type object struct {
	path   string
	stat   unix.Stat_t
	target string
	xattrs map[string]string
	first  string // the first path that leads to the same inode
}

func scan(root string) (map[string]*object, error) {
	found := map[string]*object{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		o := &object{path: path}
		if err := unix.Lstat(path, &o.stat); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if o.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			if o.target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if o.first = inodes[o.stat.Ino]; o.first == "" {
			o.first, inodes[o.stat.Ino] = rel, rel
		}
		o.xattrs, err = xattrs(path)
		found[rel] = o
		return err
	})
	return found, err
}

// differs says in words what is not the same, "" for nothing.
func (o *object) differs(p *object) (string, error) {
	a, b := &o.stat, &p.stat
	var what []string
	note := func(same bool, format string, x, y any) {
		if !same {
			what = append(what, fmt.Sprintf(format, x, y))
		}
	}
	dir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	note(a.Mode == b.Mode, "mode %o and %o", a.Mode, b.Mode)
	note(a.Uid == b.Uid && a.Gid == b.Gid, "owner %v and %v", [2]uint32{a.Uid, a.Gid}, [2]uint32{b.Uid, b.Gid})
	note(a.Mtim == b.Mtim, "modified %v and %v", a.Mtim, b.Mtim)
	note(a.Rdev == b.Rdev, "device %v and %v", a.Rdev, b.Rdev)
	note(dir || a.Size == b.Size, "size %d and %d", a.Size, b.Size)
	note(dir || a.Nlink == b.Nlink && o.first == p.first, "links %d and %d", a.Nlink, b.Nlink)
	note(o.target == p.target, "target %q and %q", o.target, p.target)
	note(fmt.Sprint(o.xattrs) == fmt.Sprint(p.xattrs), "extended attributes %q and %q", o.xattrs, p.xattrs)
	if len(what) == 0 && a.Mode&unix.S_IFMT == unix.S_IFREG {
		same, err := sameContent(o.path, p.path)
		if err != nil {
			return "", err
		}
		note(same, "content%v%v", "", "")
	}
	return strings.Join(what, ", "), nil
}

func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer func() { _ = g.Close() }()
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(f, x)
		m, err2 := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.Is(err2, io.EOF) || errors.Is(err2, io.ErrUnexpectedEOF), nil
		}
		if err := errors.Join(err, err2); err != nil {
			return false, fmt.Errorf("read %s: %w", a, err)
		}
	}
}

func xattrs(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes of %s: %w", path, err)
	}
	found := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		m, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s of %s: %w", name, path, err)
		}
		found[name] = string(value[:m])
	}
	return found, nil
}
