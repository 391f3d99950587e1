// Package fusefs is the mount process: it shows the source directory through FUSE and journals whatever changes.
//
// File data take the kernel's passthrough where the kernel and the file allow it; everything else is an *at() call relative
// to the O_PATH descriptor of a node. No path is walked after the start, so the mount may lie over its own source.
//
// What is true after a crash of this process: the files in the source are as the applications left them, because nothing is
// kept back here. Every operation that was answered is in the journal before its answer, and so is every open for writing;
// an operation cut off in the middle may be done in the source and missing in the journal, which is why every start
// (OpStart) counts as a gap. Applications that hold passthrough files or mappings go on writing after the process is dead,
// so an OpOpen without an OpRelease means: look at that file until nobody has it open. The mount point shows "transport
// endpoint is not connected", never the bare directory, until the next Serve puts a new mount beneath the dead one.
// docs/architecture.md has the rest.
package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/control"
	"slipway/internal/durability"
	"slipway/internal/journal"
)

// How long a wish to unmount waits for those who use the mount before it is detached from under them.
const unmountPatience = 10 * time.Second

// Options say what Serve mounts, and where.
type Options struct {
	Source      *os.File        // the source directory, opened read-only before anything was mounted over it
	MountPoint  string          // may be the source directory itself
	Journal     *journal.Writer // its Run belongs to the caller and must outlive Serve
	Volume      string          // shown as the mount's source
	Attrs       int             // MOUNT_ATTR_*, beside those of the source's own mount
	AllowOther  bool            // users other than root may enter
	Passthrough bool            // let the kernel read and write the files below by itself
	Ready       func()          // called once the mount can be used; may be nil
	// Explain answers user.slipway.* for a path relative to the volume ("." is the volume): values by the name behind that. It gets 50 ms;
	// nil, an error, what it does not name and "" are shown as no such attribute.
	Explain func(ctx context.Context, path string) (map[string]string, error)

	Durability *durability.Rules // which fsyncs wait for a stage; nil: none
	// DurabilityTimeout is how long they do before they are answered with EIO.
	DurabilityTimeout time.Duration
	// Durable asks the spooler, for as long as that: nil when it is so, fs.ErrNotExist when the volume does not have the object.
	Durable func(ctx context.Context, q control.Durable, within time.Duration) error
	Log     *slog.Logger // nil: silent
}

// Serve mounts and serves until the mount is gone. An umount(8) from outside and the end of ctx both end it with nil: the
// second unmounts, waits for those who still use the mount, and detaches it when they do not go. An aborted connection is
// an error, and the dead mount stays, so that nobody writes into the bare directory. So is a mount that cannot be taken away
// because another lies over it: the process has to end then.
func Serve(ctx context.Context, opt Options) error {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	point, err := resolveMountPoint(opt.MountPoint)
	if err != nil {
		return err
	}
	opt.MountPoint = point
	limit := raiseFileLimit()
	// The umask of each caller is applied by hand, because a default ACL takes its place (DONT_MASK).
	defer unix.Umask(unix.Umask(0))

	fsys, err := newFilesystem(&opt, opt.Journal, limit)
	if err != nil {
		return fmt.Errorf("open source %s: %w", opt.Source.Name(), err)
	}
	defer fsys.close()
	m, err := newMount(&opt)
	if err != nil {
		return fmt.Errorf("mount %s: %w", point, err)
	}
	defer m.close()
	if err := fsys.connect(m.device); err != nil {
		return fmt.Errorf("mount %s: %w", point, err)
	}
	if err := fsys.recordStart(); err != nil {
		return fmt.Errorf("read attributes of source %s: %w", opt.Source.Name(), err)
	}
	return fsys.run(ctx, m, opt.Ready)
}

// run owns every goroutine of the mount. The request loop ends when the kernel takes the mount away; that ends the rest.
func (f *filesystem) run(ctx context.Context, m *mount, ready func()) error {
	served, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var loop, others errgroup.Group
	loop.Go(func() error {
		defer end()
		return f.device.serve()
	})
	others.Go(func() error { f.settle.run(served); return nil })
	others.Go(func() error { f.prune.run(served); return nil })
	err := f.showUntilGone(ctx, served, m, ready)
	if errors.Is(err, errStays) {
		// The kernel goes on asking, so there is no waiting for the request loop, and its descriptors stay open under it.
		f.abandoned = true
		end()
		return errors.Join(err, others.Wait())
	}
	if err := errors.Join(err, loop.Wait(), others.Wait()); err != nil {
		return err
	}
	if m.attached() {
		return fmt.Errorf("serve %s: the connection was aborted: %w", m.point, unix.ECONNABORTED)
	}
	f.log.Info("unmounted", "volume", f.opt.Volume, "mount", m.point, "requests", f.device.requests())
	m.sweep()
	if !m.forced {
		f.releaseRemaining()
	}
	return nil
}

// showUntilGone attaches the mount and returns when it is gone, or when ctx has ended and it has been taken away.
func (f *filesystem) showUntilGone(ctx, served context.Context, m *mount, ready func()) error {
	if err := m.attach(); err != nil {
		m.close() // the last reference to the file system: the request loop ends
		return fmt.Errorf("mount %s: %w", m.point, err)
	}
	f.log.Info("mounted", "volume", f.opt.Volume, "mount", m.point, "passthrough", f.passthrough)
	if ready != nil {
		ready()
	}
	select {
	case <-served.Done():
		return nil
	case <-ctx.Done():
	}
	return m.unmount(served, unmountPatience)
}

// resolveMountPoint makes the path absolute and free of links. The last component is not looked at: it may be a dead mount.
func resolveMountPoint(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", path, err)
	}
	full, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, unix.ENOTCONN) {
		full, err = filepath.EvalSymlinks(filepath.Dir(abs))
		full = filepath.Join(full, filepath.Base(abs))
	}
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", path, err)
	}
	return full, nil
}

// raiseFileLimit lets the process have as many descriptors as the kernel allows at all, or without CAP_SYS_RESOURCE as it may, and returns how
// many that is. It needs one for each file that the kernel remembers, and what it has to forget for lack of descriptors costs requests
// when it is wanted again.
func raiseFileLimit() int {
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}) // without the capability the limit stays
		}
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	lim.Cur = lim.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim) // refused: the old limit is read below
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	return int(min(lim.Cur, 1<<30))
}
