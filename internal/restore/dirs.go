package restore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/restore/object"
)

// Temporary names: recognisable, of fixed length because a file's own name may already have all 255 bytes, and the same at
// every run, so that an interrupted run's are found again.
const (
	tempPrefix = ".slipway-restore-"
	tempSuffix = ".tmp"
	tempHex    = 32
)

func (p place) temp() string {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, uint64(p.dir.inode.ID)) // a hash takes everything
	_, _ = h.Write([]byte(p.name))
	return tempPrefix + hex.EncodeToString(h.Sum(nil))[:tempHex] + tempSuffix
}

func isTemp(name string) bool {
	mid, ok := strings.CutPrefix(name, tempPrefix)
	if !ok || !strings.HasSuffix(mid, tempSuffix) || len(mid) != tempHex+len(tempSuffix) {
		return false
	}
	_, err := hex.DecodeString(mid[:tempHex])
	return err == nil
}

var errInTheWay = errors.New("another file is in its place and was kept; nothing below it is restored")

// makeDirs makes the directories, closed to others until they get their attributes at the end.
func (r *run) makeDirs(ctx context.Context) error {
	for _, d := range r.plan.dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.parent != nil && d.parent.state == dirFailed {
			d.state = dirFailed
			continue
		}
		if err := r.makeDir(d); err != nil {
			d.state = dirFailed
			if err := r.fail(d.path(), err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) makeDir(d *dir) error {
	if d.parent != nil {
		parent, err := r.dirs.get(d.parent)
		if err != nil {
			return err
		}
		defer r.dirs.put(parent)
		if err := r.mkdir(parent.fd, d); err != nil {
			return err
		}
	}
	h, err := r.dirs.get(d)
	if err != nil {
		return err
	}
	defer r.dirs.put(h)
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	d.dev, d.ino = st.Dev, st.Ino
	if !d.existed {
		return nil
	}
	if err := r.mayWrite(h.fd, &st); err != nil {
		return err
	}
	return r.sweep(h.fd, d)
}

func (r *run) mkdir(parent int, d *dir) error {
	err := unix.Mkdirat(parent, d.name, 0o700)
	if !errors.Is(err, unix.EEXIST) {
		return wrap("make directory", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		d.existed = true
		return r.openUp(parent, d, &st)
	}
	if !r.opt.Overwrite {
		r.note(func(res *Result) { res.Kept = append(res.Kept, d.path()) })
		return errInTheWay
	}
	if err := unix.Unlinkat(parent, d.name, 0); err != nil {
		return fmt.Errorf("make way for directory: %w", err)
	}
	return wrap("make directory", unix.Mkdirat(parent, d.name, 0o700))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// openUp lets the owner into a directory that an earlier run, or somebody else, has closed even to him. It gets its right
// mode at the end.
func (r *run) openUp(parent int, d *dir, st *unix.Stat_t) error {
	if r.euid == 0 || int(st.Uid) != r.euid || st.Mode&0o700 == 0o700 {
		return nil
	}
	fd, err := unix.Openat(parent, d.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // a directory: nothing is lost in closing it
	return wrap("open directory to its owner", object.Object{FD: fd, ByPath: true}.Chmod(st.Mode&0o7777|0o700))
}

func (r *run) mayWrite(fd int, st *unix.Stat_t) error {
	if r.euid == 0 || int(st.Uid) != r.euid || st.Mode&0o700 == 0o700 {
		return nil
	}
	return wrap("open directory to its owner", unix.Fchmod(fd, st.Mode&0o7777|0o700))
}

// sweep removes an interrupted run's temporary files. The lock on the target says that no other run uses them.
func (r *run) sweep(fd int, d *dir) error {
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("list directory: %w", err)
	}
	for _, n := range names {
		if !isTemp(n) {
			continue
		}
		if _, own := r.t.step(d.inode.ID, n); own {
			continue // a file of the volume that has such a name
		}
		if err := unix.Unlinkat(fd, n, 0); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EISDIR) {
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	return nil
}

func readNames(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), ".")
	defer func() { _ = f.Close() }() // only read
	return f.Readdirnames(-1)
}

// finishDir gives a directory its attributes. One that was there already and is only on the way to something chosen keeps its own.
func (r *run) finishDir(d *dir) {
	if d.state != dirThere || d.existed && !d.chosen || d.parent == nil && r.t.noRoot {
		return
	}
	err := func() error {
		h, err := r.dirs.get(d)
		if err != nil {
			return err
		}
		defer r.dirs.put(h)
		return r.make.SetAttributes(object.Object{FD: h.fd}, d.inode, d.path())
	}()
	if err != nil {
		r.note(func(res *Result) { res.Failed = append(res.Failed, Failure{d.path(), err}) })
	}
}
