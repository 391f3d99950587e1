package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// place is where a volume lies: its source, opened, and its mount point.
type place struct {
	source     *os.File
	tree       *os.File // what keeps the mounts below source reachable if it was opened beneath a dead mount, else nil
	mountPoint string
}

func (p *place) close() {
	_ = p.source.Close()
	if p.tree != nil {
		_ = p.tree.Close()
	}
}

// reopenSource opens the source for one child. Each gets a descriptor of its own, as copies of one would share the
// place where a listing goes on.
func (p *place) reopenSource() (*os.File, error) {
	fd, err := unix.Openat(int(p.source.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open source directory again: %w", err)
	}
	return os.NewFile(uintptr(fd), p.source.Name()), nil
}

// preparePlace opens the source before anything is mounted and checks that it and the mount point can serve. Where a dead
// slipway mount lies over one of them it looks beneath, without taking that mount away. A living one gets some
// patience: its supervisor may have died a moment ago, and its end be on the way.
func preparePlace(ctx context.Context, source, mountPoint string, patience time.Duration) (*place, error) {
	source, err := canonical("source", source)
	if err != nil {
		return nil, err
	}
	mountPoint, err = canonical("mount point", mountPoint)
	if err != nil {
		return nil, err
	}
	if err := checkPaths(source, mountPoint); err != nil {
		return nil, err
	}
	beneath := false
	for _, path := range []string{source, mountPoint} {
		c, err := awaitEnd(ctx, path, patience)
		if err != nil {
			return nil, err
		}
		if c == alive {
			return nil, fmt.Errorf("mount at %s: %w", path, ErrMounted)
		}
		beneath = beneath || c == dead
	}
	if beneath {
		return openBeneath(source, mountPoint)
	}
	return openPlace(source, mountPoint, false)
}

// canonical returns the path without symbolic links, asking no file system that may be dead.
func canonical(what, path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s %s: %w: it does not exist, make the directory first", what, path, ErrPlace)
	case errors.Is(err, unix.ENOTDIR):
		return "", fmt.Errorf("%s %s: %w: it is not a directory", what, path, ErrPlace)
	case err != nil:
		return "", fmt.Errorf("%s %s: %w: %w", what, path, ErrPlace, err)
	}
	defer func() { _ = unix.Close(fd) }()
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", fmt.Errorf("find the path of %s %s: %w", what, path, err)
	}
	return real, nil
}

// checkPaths refuses places where slipway would read through a mount of its own.
func checkPaths(source, mountPoint string) error {
	if isBelow(mountPoint, source) {
		return fmt.Errorf("mount point %s: %w: it lies inside the source %s", mountPoint, ErrPlace, source)
	}
	if isBelow(source, mountPoint) {
		return fmt.Errorf("source %s: %w: it lies inside the mount point %s", source, ErrPlace, mountPoint)
	}
	all, err := readMounts()
	if err != nil {
		return err
	}
	for _, path := range []string{source, mountPoint} {
		if above, ok := slipwayAbove(all, path); ok {
			return fmt.Errorf("%s: %w: it lies inside the slipway mount at %s", path, ErrPlace, above)
		}
	}
	return nil
}

// awaitEnd returns what lies at path, after patience where it is a living slipway mount.
func awaitEnd(ctx context.Context, path string, patience time.Duration) (condition, error) {
	began := time.Now()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		c, err := inspect(path)
		if err != nil || c != alive || time.Since(began) >= patience {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-again.C:
		}
	}
}

// openPlace opens the source and checks the mount point, both as the calling thread sees them.
func openPlace(source, mountPoint string, beneath bool) (*place, error) {
	p := &place{mountPoint: mountPoint}
	at, name := unix.AT_FDCWD, source
	if beneath {
		// The mounts of this thread end with it. A copy of the source's lives on with its descriptor.
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w: %w", source, ErrPlace, err)
		}
		p.tree = os.NewFile(uintptr(fd), source)
		at, name = fd, "."
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if p.tree != nil {
			_ = p.tree.Close()
		}
		return nil, fmt.Errorf("source %s: %w: %w", source, ErrPlace, err)
	}
	p.source = os.NewFile(uintptr(fd), source)
	if err := p.checkMountPoint(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// checkMountPoint refuses a mount point that is neither the source nor empty: what lies there would be hidden.
func (p *place) checkMountPoint() error {
	dir, err := os.Open(p.mountPoint)
	if err != nil {
		return fmt.Errorf("mount point %s: %w: %w", p.mountPoint, ErrPlace, err)
	}
	defer func() { _ = dir.Close() }()
	there, err := dir.Stat()
	if err != nil {
		return fmt.Errorf("mount point %s: %w: %w", p.mountPoint, ErrPlace, err)
	}
	source, err := p.source.Stat()
	if err != nil {
		return fmt.Errorf("source %s: %w: %w", p.source.Name(), ErrPlace, err)
	}
	if os.SameFile(there, source) {
		return nil
	}
	names, err := dir.Readdirnames(4)
	if len(names) == 0 {
		return nil // the error is io.EOF
	}
	if err != nil {
		return fmt.Errorf("mount point %s: %w: %w", p.mountPoint, ErrPlace, err)
	}
	list := strings.Join(quoteAll(names[:min(3, len(names))]), ", ")
	if len(names) > 3 {
		list += ", …"
	}
	return fmt.Errorf("mount point %s: %w: it is neither the source nor empty, it holds %s", p.mountPoint, ErrPlace, list)
}

func quoteAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return quoted
}

// openBeneath is openPlace on a thread that has its own view of the mounts, in which the dead ones are taken away. For
// everybody else they stay where they are.
func openBeneath(source, mountPoint string) (p *place, err error) {
	err = onLostThread(func() error {
		if err := leaveNamespace(); err != nil {
			return err
		}
		for _, path := range []string{source, mountPoint} {
			if err := detachAll(path); err != nil {
				return err
			}
		}
		p, err = openPlace(source, mountPoint, true)
		return err
	})
	return p, err
}

// onLostThread runs f on a thread that nothing else runs on afterwards: it ends with its goroutine, which never unlocks it.
// The process's first thread would stay, and /proc/self show its view of the mounts, so that one is not used.
func onLostThread(f func() error) error {
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			return f()
		}
		defer runtime.UnlockOSThread() // holds the first thread until f has run on another
		return onLostThread(f)
	})
	return g.Wait()
}

// leaveNamespace gives the thread a mount namespace from which nothing spreads to others.
func leaveNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("look beneath a dead mount: unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("look beneath a dead mount: make mounts private: %w", err)
	}
	return nil
}

// maxStack bounds how many dead mounts lie over each other: each supervisor leaves at most one, and its successor replaces it.
const maxStack = 16

// detachAll takes the dead slipway mounts on top at path away; a living one beneath them is an error.
func detachAll(path string) error {
	for range maxStack {
		c, err := inspect(path)
		switch {
		case err != nil:
			return err
		case c == noSlipway:
			return nil
		case c == alive:
			return fmt.Errorf("mount at %s, beneath a dead one: %w", path, ErrMounted)
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("detach the dead mount at %s: %w", path, err)
		}
	}
	return fmt.Errorf("mount at %s: %w: more than %d dead mounts lie there", path, ErrPlace, maxStack)
}

// detachDead takes away what a mount process left that died before it could unmount, for everybody: we were asked to unmount.
func (p *place) detachDead() error {
	c, err := inspect(p.mountPoint)
	if err != nil || c != dead {
		return err
	}
	return detachAll(p.mountPoint)
}
