package fusefs

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// maxWrite bounds one WRITE or READ request; what the kernel passes through is not bound by it.
const maxWrite = 256 << 10

const (
	// longTimeout is for how long the kernel may believe what it was told: the mount is the only way in.
	longTimeout = time.Hour
	// foreignTimeout is for other file systems mounted below the source, which have other ways in.
	foreignTimeout = time.Second
)

// appender is the writing end of the journal.
type appender interface {
	Append(rs ...*journal.Record)
	AppendSoon(r *journal.Record)
}

// filesystem answers the kernel's requests. Each concern has its file; the requests come from many goroutines at once.
type filesystem struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented

	opt     *Options
	log     *slog.Logger
	journal appender
	creds   *credentials

	device      *device
	abandoned   bool // the kernel may still ask: close nothing
	passthrough bool // the kernel offers it and the options want it; false until connect

	nodes   *nodeTable
	handles *handleTable
	fsids   fsidTable
	settle  *settler
	prune   *pruner
	syncs   chan struct{} // one for each fsync that waits for a stage; full: no more may
}

func newFilesystem(opt *Options, j appender, fileLimit int) (*filesystem, error) {
	creds, err := processCredentials()
	if err != nil {
		return nil, err
	}
	f := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opt:           opt,
		log:           opt.Log,
		journal:       j,
		creds:         creds,
		handles:       newHandleTable(),
		syncs:         make(chan struct{}, maxSyncs),
	}
	f.fsids.known = make(map[uint64]uint64)
	f.settle = &settler{step: f.settleStep, wake: make(chan struct{}, 1)}
	f.prune = &pruner{fs: f, wake: make(chan struct{}, 1), high: fileLimit * 7 / 10, low: fileLimit / 2}
	fd, err := unix.Openat(int(opt.Source.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	st, err := statx(fd, "")
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	ident, err := f.fsids.ident(fd, &st)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	root := &node{id: fuse.FUSE_ROOT_ID, fd: fd, key: keyOf(&st), ident: ident, kind: unix.S_IFDIR, lookups: 1}
	f.nodes = newNodeTable(root, st.Mnt_id)
	f.nodes.grown = f.prune.grown
	return f, nil
}

// connect begins to talk to the kernel over the FUSE device, which it takes over.
func (f *filesystem) connect(fd int) error {
	opts := &fuse.MountOptions{
		MaxWrite:             maxWrite,
		MaxBackground:        64,
		EnableAcl:            true,
		EnableSymlinkCaching: true, // a symbolic link never changes
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_DONT_MASK |
			fuse.CAP_SETXATTR_EXT | fuse.CAP_IOCTL_DIR | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO,
		PanicHandler: f.panicked,
		Logger:       log.New(logWriter{f.log}, "", 0),
	}
	if !f.opt.Passthrough {
		opts.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	var err error
	if f.device, err = newDevice(fd, f, opts, newProcessors(f.creds.has(unix.CAP_SYS_NICE))); err != nil {
		return fmt.Errorf("begin the FUSE session: %w", err)
	}
	offered := f.device.offered
	f.passthrough = f.opt.Passthrough && offered&fuse.CAP_PASSTHROUGH != 0
	if f.opt.Passthrough && !f.passthrough {
		f.log.Warn("this kernel has no FUSE passthrough (Linux 6.9): reads and writes go through this process")
	}
	if offered&fuse.CAP_HANDLE_KILLPRIV_V2 == 0 {
		f.log.Warn("this kernel has no HANDLE_KILLPRIV_V2 (Linux 5.12): every write costs an extra request")
	}
	return nil
}

// String names the file system for go-fuse.
func (f *filesystem) String() string { return "slipway" }

// panicked turns a panic in a handler into EIO and goes on serving. What the handler had done is unknown: a gap.
func (f *filesystem) panicked(v any) fuse.Status {
	f.log.Error("panic in a request", "panic", v, "stack", string(debug.Stack()))
	f.gap(fmt.Sprintf("panic in a request: %v", v))
	return fuse.EIO
}

// releaseRemaining journals the end of the handles whose release was lost because the unmount followed at once. The mount is
// gone and was not in use, so nobody has them any more.
func (f *filesystem) releaseRemaining() {
	for _, h := range f.handles.drain() {
		f.recordRelease(h)
		_ = unix.Close(h.fd)
	}
}

// close releases every descriptor once the kernel sends no more requests. What the kernel still held is forgotten with it.
func (f *filesystem) close() {
	if f.abandoned {
		return
	}
	if f.device != nil {
		f.device.close()
	}
	for _, h := range f.handles.drain() {
		_ = unix.Close(h.fd)
	}
	for _, n := range f.nodes.drain() {
		_ = unix.Close(n.fd)
	}
}

// logWriter hands the library's own lines to slog. They are about single requests and of use only when looking for a fault.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("fuse", "line", string(bytes.TrimSpace(p)))
	return len(p), nil
}

// fsidTable remembers the file system id of each device number, which source.Stat finds out with statfs(2).
type fsidTable struct {
	mu    sync.Mutex
	known map[uint64]uint64
}
