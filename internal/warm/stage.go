package warm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/restore"
	"slipway/internal/restore/object"
)

// stageName is a directory in the root while a step runs, and after it only if it holds what was moved aside. It is no part of
// the tree; where the volume has a file of that name, another is taken.
const stageName = ".slipway-warm"

// asideName lies in the staging directory and holds what was found in the way.
const asideName = "aside"

// bootName says since when what is staged can be believed: a machine that went down may have kept sizes and times without bytes.
const bootName = "boot"

// workers is how many files are written at once.
const workers = 4

// stage makes all new objects where the tree does not see them. failed says which could not be made, and why.
func (t *Tree) stage(ctx context.Context, p *planner) (failed map[batch.FileID]string, err error) {
	if p.step.empty() {
		return nil, nil
	}
	if err := t.at("stage"); err != nil {
		return nil, err
	}
	fd, err := t.nameStage(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // a directory: nothing is lost in closing it
	if err := p.sweep(fd); err != nil {
		return nil, err
	}
	for _, id := range p.step.Mkdir {
		if err := unix.Mkdirat(fd, newName(&p.puts[id].Inode), 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	return p.write(ctx, fd)
}

// nameStage finds a name that the tree does not use, and opens the directory.
func (t *Tree) nameStage(p *planner) (int, error) {
	for i := 0; ; i++ {
		n := stageName
		if i > 0 {
			n += "-" + strconv.Itoa(i)
		}
		var taken bool
		err := t.cat.View(func(tx *catalog.Tx) (err error) {
			_, taken, err = tx.Lookup(batch.Root, n)
			return err
		})
		if err != nil {
			return -1, err
		}
		if _, comes := p.diff[name{batch.Root, n}]; comes && !taken {
			if err := t.tidy(n); err != nil { // an attempt that did not know of the name may have used it
				return -1, err
			}
			taken = true
		}
		if taken {
			continue
		}
		fd, err := t.openStage(n)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // somebody's file
		}
		p.step.Staging = n
		return fd, errors.Join(err, t.tidy(stageName+"-"+strconv.Itoa(i+1)))
	}
}

// tidy removes a staging directory that an earlier attempt used and the tree does not, unless something was moved aside into it.
func (t *Tree) tidy(n string) error {
	owned := false
	err := t.cat.View(func(tx *catalog.Tx) (err error) {
		_, owned, err = tx.Lookup(batch.Root, n)
		return err
	})
	if err != nil || owned {
		return err
	}
	fd, err := object.OpenDir(t.rootFd(), n)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open staging directory: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // a directory: nothing is lost in closing it
	if err := sweep(fd, nil); err != nil {
		return err
	}
	return t.unstage(fd, n)
}

// Yield moves what was moved aside in the directory to another place on the same file system, since the directory is to become somebody
// else's; false: there was nothing. The tree must not be used any more, but closed.
func (t *Tree) Yield(to string) (moved bool, err error) {
	for i := 0; ; i++ {
		n := stageName
		if i > 0 {
			n += "-" + strconv.Itoa(i)
		}
		taken := false
		if err := t.cat.View(func(tx *catalog.Tx) (err error) {
			_, taken, err = tx.Lookup(batch.Root, n)
			return err
		}); err != nil {
			return false, err
		}
		if taken {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstat(t.rootFd(), &st)
		if err == nil {
			err = unix.Renameat2(t.rootFd(), n, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		}
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err == nil { // the tree's own time
			err = unix.UtimesNanoAt(t.rootFd(), ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}, 0)
		}
		if err != nil {
			return false, fmt.Errorf("move what lies aside to %s: %w", to, err)
		}
		return true, nil
	}
}

// unstage removes the staging directory if nothing was moved aside into it.
func (t *Tree) unstage(fd int, n string) error {
	if err := unix.Unlinkat(fd, bootName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", bootName, err)
	}
	err := unix.Unlinkat(t.rootFd(), n, unix.AT_REMOVEDIR)
	if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
}

func (t *Tree) openStage(name string) (int, error) {
	if err := unix.Mkdirat(t.rootFd(), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("make staging directory: %w", err)
	}
	fd, err := object.OpenDir(t.rootFd(), name)
	if err != nil {
		return -1, fmt.Errorf("open staging directory: %w", err)
	}
	_ = unix.Fremovexattr(fd, "system.posix_acl_default") // of the root: whoever makes a file sets its ACL anyway
	return fd, nil
}

// sweep removes what an earlier attempt staged and this one has no use for.
func (p *planner) sweep(fd int) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	wanted := make(map[string]bool)
	if staged, err := readSmall(fd, bootName); err == nil && string(staged) == string(boot) {
		for _, id := range p.step.Make {
			wanted[newName(&p.puts[id].Inode)] = true
		}
	}
	if err := sweep(fd, wanted); err != nil {
		return err
	}
	return writeSmall(fd, bootName, boot)
}

// sweep removes staged objects but the wanted ones.
func sweep(fd int, wanted map[string]bool) error {
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !strings.ContainsAny(n[:1], "nkl") || wanted[n] {
			continue
		}
		err := unix.Unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) {
			err = unix.Unlinkat(fd, n, unix.AT_REMOVEDIR)
		}
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) { // a directory that found no place stays, for people
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	return nil
}

func readSmall(dirfd int, name string) ([]byte, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
	return buf[:max(0, n)], err
}

func writeSmall(dirfd int, name string, data []byte) error {
	fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = unix.Write(fd, data)
	return errors.Join(err, unix.Close(fd))
}

// maker makes objects and says once what this process may not set.
func (t *Tree) maker(c *change) *object.Maker {
	var mu sync.Mutex
	told := make(map[string]bool)
	m := &object.Maker{Euid: os.Geteuid(), Skip: func(kind, path string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !told[kind] {
			told[kind] = true
			t.opt.Log.Warn("warm tree cannot have all attributes", "kind", kind, "first", path, "error", err)
		}
	}}
	if c != nil {
		m.Content = c.content
	}
	return m
}

// write writes the new files. One that cannot be made does not keep the others from it.
func (p *planner) write(ctx context.Context, fd int) (map[batch.FileID]string, error) {
	maker := p.t.maker(p.change)
	var mu sync.Mutex
	failed := make(map[batch.FileID]string)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	const run = 64 // files that follow one another in a shard
	for from := 0; from < len(p.step.Make) && gctx.Err() == nil; from += run {
		g.Go(func() error {
			for _, id := range p.step.Make[from:min(from+run, len(p.step.Make))] {
				err := p.writeOne(gctx, maker, fd, &p.puts[id].Inode)
				if err == nil {
					continue
				}
				if restore.Stops(err) || errors.Is(err, errFault) {
					return fmt.Errorf("make inode %d: %w", id, err)
				}
				p.t.opt.Log.Error("file of the warm tree cannot be made", "inode", id, "error", err)
				mu.Lock()
				failed[id] = err.Error()
				mu.Unlock()
			}
			return nil
		})
	}
	return failed, errors.Join(g.Wait(), ctx.Err())
}

// errFault ends a step in tests.
var errFault = errors.New("fault")

func (p *planner) writeOne(ctx context.Context, maker *object.Maker, fd int, in *batch.Inode) error {
	if err := errors.Join(ctx.Err(), p.t.at("make")); err != nil {
		return err
	}
	n := newName(in)
	var st unix.Stat_t
	err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && maker.Equal(fd, n, in, &st) { // its times were set last, so it is whole
		return nil
	}
	_, err = maker.Make(ctx, fd, n, in, "inode "+strconv.FormatUint(uint64(in.ID), 10), nil)
	return err
}
