package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// dataInterval is how often the journal is told again that a handle served here is being written to.
const dataInterval = time.Second

// started is the zero of the monotonic clock used for handles; a second before it, so that no moment is 0.
var started = time.Now().Add(-time.Second)

// file returns the handle of a request on an open file.
func (f *filesystem) file(id uint64) (*handle, error) {
	if h := f.handles.get(id); h != nil {
		return h, nil
	}
	return nil, unix.EBADF
}

// Read serves a read of a file that is not in passthrough. The bytes go from the file below to the kernel by splice.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, err := f.file(in.Fh)
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultFd(uintptr(h.fd), int64(in.Offset), min(int(in.Size), len(buf))), fuse.OK
}

// Write serves a write of a file that is not in passthrough.
func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, err := f.file(in.Fh)
	if err != nil {
		return 0, status(err)
	}
	written := 0
	err = f.killing(h.node, in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0, in.Caller, func() error {
		for written < len(data) {
			n, err := unix.Pwrite(h.fd, data[written:], int64(in.Offset)+int64(written))
			if n > 0 {
				written += n
			}
			if err != nil && err != unix.EINTR {
				return err
			}
		}
		return nil
	})
	if written > 0 {
		f.wrote(h)
		return uint32(written), fuse.OK
	}
	return 0, status(err)
}

// wrote journals that the content changed, at the first write of a handle and then once in a while: the spooler needs to know
// that there is something to look at, not each step.
func (f *filesystem) wrote(h *handle) {
	now := int64(time.Since(started))
	last := h.dataAt.Load()
	if last != 0 && now-last < int64(dataInterval) || !h.dataAt.CompareAndSwap(last, now) {
		return
	}
	f.changed(h)
}

// changed journals that the content changed by this process's doing.
func (f *filesystem) changed(h *handle) {
	st, err := statx(h.fd, "")
	if err != nil {
		f.gap("read the attributes of a written file: " + err.Error())
		return
	}
	f.keepWatching(h.node, &st)
	f.record(nodeRecord(journal.OpData, h.node, &st))
}

// Lseek answers SEEK_DATA and SEEK_HOLE.
func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, err := f.file(in.Fh)
	if err != nil {
		return status(err)
	}
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	if err != nil {
		return status(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// Fallocate changes a file's allocation, and with some modes its content.
func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, err := f.file(in.Fh)
	if err != nil {
		return status(err)
	}
	err = f.killing(h.node, killsFor(h.node, in.Pid), in.Caller, func() error {
		return again(func() error { return unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length)) })
	})
	if err == nil {
		f.changed(h)
	}
	return status(err)
}

// CopyFileRange copies between two files below, which may share the blocks instead.
func (f *filesystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, err := f.file(in.FhIn)
	if err != nil {
		return 0, status(err)
	}
	to, err := f.file(in.FhOut)
	if err != nil {
		return 0, status(err)
	}
	copied := 0
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	err = f.killing(to.node, killsFor(to.node, in.Pid), in.Caller, func() error {
		return again(func() (err error) {
			copied, err = unix.CopyFileRange(from.fd, &offIn, to.fd, &offOut, int(min(in.Len, 1<<30)), int(in.Flags))
			return err
		})
	})
	if err != nil {
		return 0, status(err)
	}
	if copied > 0 {
		f.changed(to)
	}
	return uint32(copied), fuse.OK
}

// Fsync makes a file durable below, and where `durability:` asks for it further on. The journal is told, so that the content is captured soon,
// but is not synced itself.
func (f *filesystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, err := f.file(in.Fh)
	if err != nil {
		return status(err)
	}
	sync := unix.Fsync
	if in.FsyncFlags&1 != 0 {
		sync = unix.Fdatasync
	}
	if err := again(func() error { return sync(h.fd) }); err != nil {
		return status(err)
	}
	if st, err := statx(h.fd, ""); err == nil {
		f.record(nodeRecord(journal.OpSync, h.node, &st))
	}
	return f.awaitStage(cancel, in, h)
}

// Flush has nothing to do at close(2), and saying so once saves the request ever after.
func (f *filesystem) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }
