package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dirStream reads a directory. Positions are those of the file system below, so that they hold over seekdir(3) and over
// whatever is created and removed meanwhile.
type dirStream struct {
	mu   sync.Mutex
	buf  []byte
	rest []byte // read and not given to the kernel yet
	at   uint64 // the position of rest
}

// OpenDir opens a directory. Its listing may be cached: the mount is the only way to change it.
func (f *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.nodes.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	fd, err := f.openat(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return status(err)
	}
	h := &handle{node: n, fd: fd, dir: &dirStream{}}
	f.nodes.hold(n)
	f.handles.add(h)
	out.Fh = h.id
	if !n.foreign {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReleaseDir ends a directory handle.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	if h := f.handles.remove(in.Fh); h != nil {
		_ = unix.Close(h.fd)
		f.nodes.drop(h.node)
	}
}

// FsyncDir makes the names in a directory durable below, and where `durability:` asks for it further on.
func (f *filesystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, err := f.file(in.Fh)
	if err != nil {
		return status(err)
	}
	if err := again(func() error { return unix.Fsync(h.fd) }); err != nil {
		return status(err)
	}
	return f.awaitStage(cancel, in, h)
}

// ReadDir lists names.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(_ *handle, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names and looks each up at once; the kernel asks for it when it expects to be asked.
func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(h *handle, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true // node 0: no lookup
		}
		if err := f.lookup(h.node, e.Name, entry); err != nil {
			*entry = fuse.EntryOut{} // gone meanwhile: the name alone
			return true
		}
		out.FixMode(entry.Mode)
		return true
	})
}

// list hands entries from the position of the request on to add until it takes no more.
func (f *filesystem) list(in *fuse.ReadIn, add func(*handle, fuse.DirEntry) bool) fuse.Status {
	h, err := f.file(in.Fh)
	if err != nil || h.dir == nil {
		return fuse.EBADF
	}
	h.dir.mu.Lock()
	defer h.dir.mu.Unlock()
	if err := h.dir.seek(h.fd, in.Offset); err != nil {
		return status(err)
	}
	for added := false; ; added = true {
		if len(h.dir.rest) == 0 {
			if added {
				return fuse.OK // what is in the kernel's buffer first; it comes back for more
			}
			if err := h.dir.fill(h.fd); err != nil {
				return status(err)
			}
			if len(h.dir.rest) == 0 {
				return fuse.OK // the end
			}
		}
		var e fuse.DirEntry
		size := e.Parse(h.dir.rest)
		if !add(h, e) {
			return fuse.OK
		}
		h.dir.rest = h.dir.rest[size:]
		h.dir.at = e.Off
	}
}

// seek puts the stream at a position the kernel was given before, or at the beginning, which also forgets what was read.
func (d *dirStream) seek(fd int, at uint64) error {
	if at == d.at && at != 0 {
		return nil
	}
	d.rest, d.at = nil, at
	_, err := unix.Seek(fd, int64(at), unix.SEEK_SET)
	return err
}

func (d *dirStream) fill(fd int) error {
	if d.buf == nil {
		d.buf = make([]byte, 32<<10)
	}
	return again(func() error {
		n, err := unix.Getdents(fd, d.buf)
		if err == nil {
			d.rest = d.buf[:n]
		}
		return err
	})
}
