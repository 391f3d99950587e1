package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/control"
)

const (
	// maxSyncs bounds the fsyncs that wait at once: each has a thread of an application, and buffers here.
	maxSyncs = 256
	// killedLook is how often a process that has had a signal is looked at.
	killedLook = 20 * time.Millisecond
)

// awaitStage holds the answer of an fsync back until the spooler says that what it is about has reached the stage that `durability:` asks for.
// It is the one case in which the mount waits for another process.
func (f *filesystem) awaitStage(cancel <-chan struct{}, in *fuse.FsyncIn, h *handle) fuse.Status {
	q, wanted, err := f.stageFor(h)
	if err != nil || !wanted {
		return status(err)
	}
	if h.node.foreign {
		return fuse.EIO // it is in no volume, and saying OK would be a lie
	}
	select {
	case f.syncs <- struct{}{}:
		defer func() { <-f.syncs }()
	default:
		f.log.Warn("fsync answered with EIO: too many wait for a stage", "path", string(q.Path), "waiting", maxSyncs)
		return fuse.EIO
	}
	back := f.device.aside()
	defer back()
	err = f.ask(cancel, in.Pid, q)
	var errno unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &errno):
		return fuse.Status(errno)
	case errors.Is(err, fs.ErrNotExist):
		if _, wanted, err := f.stageFor(h); err == nil && !wanted {
			return fuse.OK // removed meanwhile, or moved to where nothing is asked for
		}
	}
	f.log.Warn("fsync answered with EIO", "path", string(q.Path), "stage", q.Stage, "error", err)
	return fuse.EIO
}

// ask asks the spooler until the time is over or whoever waits is killed (EINTR).
func (f *filesystem) ask(cancel <-chan struct{}, pid uint32, q control.Durable) error {
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return untilKilled(ctx, cancel, pid)
	})
	err := f.opt.Durable(ctx, q, f.opt.DurabilityTimeout)
	stop()
	if killed := g.Wait(); killed != nil && err != nil {
		return killed
	}
	return err
}

// stageFor says what an fsync through a handle has to ask. One name of the node is known here. Where there are others, the spooler knows them.
func (f *filesystem) stageFor(h *handle) (q control.Durable, wanted bool, err error) {
	rules := f.opt.Durability
	if rules == nil {
		return q, false, nil
	}
	st, err := statx(h.fd, "")
	if err != nil || st.Nlink == 0 { // without a name nobody will ever look for it
		return q, false, err
	}
	path := f.nodes.path(h.node)
	q = control.Durable{Object: h.node.ident, Path: []byte(path)}
	if h.dir != nil {
		q.Stage = rules.Dir(path)
	} else {
		q.Names = st.Nlink > 1 || f.nodes.isUnsure(h.node)
		q.Stage = rules.File(path)
	}
	return q, q.Names || q.Stage > control.Pending, nil
}

// waitsAtSync tells whether a file that is about to be opened is not to be passed through: the kernel would do O_SYNC writes and msync(2) by
// itself, which come as an fsync where the file is served here.
func (f *filesystem) waitsAtSync(n *node) bool {
	return f.opt.Durability != nil && f.opt.Durability.File(f.nodes.path(n)) > control.Pending
}

// untilKilled returns EINTR when the process that asks is being killed. Other signals interrupt a request as well, and once only: they are no reason
// to fail an fsync, which nobody expects to be interrupted.
func untilKilled(ctx context.Context, interrupted <-chan struct{}, pid uint32) error {
	select {
	case <-ctx.Done():
		return nil
	case <-interrupted:
	}
	look := time.NewTicker(killedLook)
	defer look.Stop()
	for {
		if isKilled(pid) {
			return unix.EINTR
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// isKilled tells whether a thread has SIGKILL before it, which the kernel makes of every deadly signal. One that cannot be seen is not waited for.
func isKilled(pid uint32) bool {
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if pid == 0 || err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		if hex, ok := strings.CutPrefix(line, "SigPnd:"); ok {
			pending, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err != nil || pending&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return true
}
