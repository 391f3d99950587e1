package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// device is the daemon's end of a FUSE connection: it reads requests, has go-fuse take them apart and call the file system, and writes the
// answers. go-fuse's own server keeps a second reader waiting all the time, so that requests change threads, and each change of threads costs
// more than a request (docs/architecture.md has the measurement). Here one goroutine reads and answers by itself; only when an answer takes long
// another one begins to read.
type device struct {
	fd       int
	protocol *fuse.ProtocolServer
	offered  uint64 // capabilities of the kernel, fuse.CAP_*

	processors *processors
	readers    errgroup.Group
	bound      atomic.Pointer[affinity] // of the reader that answered last
	watching   atomic.Bool
	wake       chan struct{} // there are requests to watch over

	mu      sync.Mutex // guards what follows
	waiting int        // readers that wait for a request
	all     int
	took    time.Time // when the last request was taken
	served  int64     // requests
}

const (
	// patience is how long an answer may take before somebody else reads the next request.
	patience = time.Millisecond
	// watchLooks is how many looks without a request end the watch.
	watchLooks = 50
	// maxReaders bounds the requests that are in hand at once.
	maxReaders = 256

	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = 16
	bufferSize    = maxWrite + 64<<10 // a request or an answer with all that goes before the data

	opInit = 26

	ioctlBackingOpen  = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	ioctlBackingClose = 0x4004e502
)

// newDevice takes fd over and answers the kernel's greeting.
func newDevice(fd int, fs fuse.RawFileSystem, opts *fuse.MountOptions, h *processors) (*device, error) {
	d := &device{fd: fd, protocol: fuse.NewProtocolServer(fs, opts), processors: h, wake: make(chan struct{}, 1)}
	if err := d.greet(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *device) greet() error {
	b := newBuffers()
	n, err := d.read(b)
	if err != nil {
		return fmt.Errorf("read the kernel's greeting: %w", err)
	}
	if op := binary.NativeEndian.Uint32(b.in[4:]); op != opInit || n < int(unsafe.Sizeof(fuse.InitIn{})) {
		return fmt.Errorf("the kernel greets with opcode %d", op)
	}
	d.offered = (*fuse.InitIn)(unsafe.Pointer(&b.in[0])).Flags64()
	return d.answer(b, n, &affinity{processors: d.processors})
}

// buffers are what one reader needs.
type buffers struct{ in, out []byte }

func newBuffers() *buffers { return &buffers{make([]byte, bufferSize), make([]byte, bufferSize)} }

// client returns the thread that asks, 0 if the kernel itself does.
func (b *buffers) client() uint32 {
	return binary.NativeEndian.Uint32(b.in[unsafe.Offsetof(fuse.InHeader{}.Caller)+unsafe.Offsetof(fuse.Caller{}.Pid):])
}

// read waits for a request. ENODEV and ECONNABORTED say that the mount is gone.
func (d *device) read(b *buffers) (int, error) {
	for {
		n, err := unix.Read(d.fd, b.in)
		switch err {
		case nil:
			if n < inHeaderSize {
				return 0, fmt.Errorf("a request of %d bytes", n)
			}
			return n, nil
		case unix.ENOENT, unix.EINTR, unix.EAGAIN: // withdrawn; a signal
		default:
			return 0, err
		}
	}
}

// answer has one request answered.
func (d *device) answer(b *buffers, size int, near *affinity) error {
	n, code := d.protocol.HandleRequest([][]byte{b.in[:size]}, [][]byte{b.out})
	if !code.Ok() { // it could not be taken apart: whoever asks must not wait for ever
		n = outHeaderSize
		binary.NativeEndian.PutUint32(b.out, uint32(n))
		binary.NativeEndian.PutUint32(b.out[4:], uint32(-int32(code)))
		copy(b.out[8:n], b.in[8:inHeaderSize]) // the request's number
	}
	if n == 0 {
		return nil // none is wanted
	}
	near.answering()
	if _, err := unix.Write(d.fd, b.out[:n]); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("answer a request: %w", err)
	}
	return nil // ENOENT: who asked does not want it any more
}

// serve answers until the mount is gone.
func (d *device) serve() error {
	ctx, stop := context.WithCancel(context.Background())
	var watch errgroup.Group
	watch.Go(func() error { return d.watch(ctx) })
	d.waiting, d.all = 1, 1
	d.readers.Go(d.loop)
	err := d.readers.Wait()
	stop()
	return errors.Join(err, watch.Wait())
}

// loop is one reader.
func (d *device) loop() error {
	defer d.ended()
	near := &affinity{processors: d.processors}
	defer near.end()
	for b := newBuffers(); ; {
		n, err := d.read(b)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNABORTED) { // the latter: it went while this reader was taking a request
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		d.taken()
		d.bound.Store(near)
		near.request(b.client())
		if err := d.answer(b, n, near); err != nil {
			return err
		}
		if !d.again() {
			return nil
		}
	}
}

// taken notes that a reader has a request in hand.
func (d *device) taken() {
	d.mu.Lock()
	d.waiting--
	d.took = time.Now()
	d.served++
	d.mu.Unlock()
	if !d.watching.Load() {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// requests returns how many have been taken.
func (d *device) requests() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.served
}

// again tells a reader whether to go on: one that waits is enough.
func (d *device) again() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting > 0 {
		return false
	}
	d.waiting++
	return true
}

func (d *device) ended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
}

// watch has somebody read while an answer takes long.
func (d *device) watch(ctx context.Context) error {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		tick.Stop()
		d.watching.Store(false)
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		}
		d.watching.Store(true)
		tick.Reset(patience)
		for quiet := 0; quiet < watchLooks; quiet++ {
			select {
			case <-ctx.Done():
				return nil
			case now := <-tick.C:
				if d.relieve(now) {
					quiet = 0
				}
			}
		}
	}
}

// relieve starts another reader where nobody has been reading for some time, and tells whether requests have come lately.
func (d *device) relieve(now time.Time) (busy bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := now.Sub(d.took)
	if since >= patience {
		if near := d.bound.Load(); near != nil {
			near.end()
		}
	}
	if d.waiting == 0 && since >= patience && d.all < maxReaders {
		d.waiting++
		d.all++
		d.readers.Go(d.loop)
	}
	return d.waiting == 0 || since < watchLooks*patience
}

// aside has another reader read on at once, and does not count the calling one, while its answer waits for something outside; back does.
func (d *device) aside() (back func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if near := d.bound.Load(); near != nil {
		near.end()
	}
	d.all--
	if d.waiting == 0 {
		d.waiting++
		d.all++
		d.readers.Go(d.loop)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all++
	}
}

// notify sends the kernel a message of its own accord.
func (d *device) notify(code int32, fields ...any) error {
	msg := make([]byte, outHeaderSize, 256)
	for _, f := range fields {
		var err error
		if msg, err = binary.Append(msg, binary.NativeEndian, f); err != nil {
			return err
		}
	}
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint32(msg[4:], uint32(-code))
	_, err := unix.Write(d.fd, msg)
	return err
}

// forgetAttributes makes the kernel ask for an inode's attributes anew.
func (d *device) forgetAttributes(node uint64) {
	_ = d.notify(fuse.NOTIFY_INVAL_INODE, node, int64(-1), int64(0)) // ENOENT: it does not know it
}

// forgetName makes the kernel look a name up anew.
func (d *device) forgetName(parent uint64, name string) {
	_ = d.notify(fuse.NOTIFY_INVAL_ENTRY, parent, uint32(len(name)), uint32(0), append([]byte(name), 0)) // ENOENT: it does not know it
}

// prune asks the kernel to let go of inodes that nobody uses. Kernels before 6.18 cannot (EINVAL).
func (d *device) prune(nodes []uint64) error {
	return d.notify(fuse.NOTIFY_PRUNE, uint32(len(nodes)), uint32(0), uint64(0), nodes)
}

// registerBacking hands the kernel a file that it may read and write by itself, with the credentials of this process.
func (d *device) registerBacking(fd int) (int32, error) {
	m := fuse.BackingMap{Fd: int32(fd)}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), ioctlBackingOpen, uintptr(unsafe.Pointer(&m)))
	if errno != 0 {
		return 0, errno
	}
	return int32(id), nil
}

func (d *device) unregisterBacking(id int32) {
	// The connection may be gone, and the id with it.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), ioctlBackingClose, uintptr(unsafe.Pointer(&id)))
}

func (d *device) close() { _ = unix.Close(d.fd) }
