package fusefs

import (
	"encoding/binary"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

const (
	ioctlGetVersion = 0x80087601 // FS_IOC_GETVERSION
	ioctlGetXattr   = 0x801c581f // FS_IOC_FSGETXATTR
	ioctlSetXattr   = 0x401c5820 // FS_IOC_FSSETXATTR
	ioctlGetLabel   = 0x81009431 // FS_IOC_GETFSLABEL

	// flagCasefold makes the names of a directory the same in either case, which the kernel's cache of names above cannot follow.
	flagCasefold = 0x40000000 // FS_CASEFOLD_FL
)

// ioctls are passed on: those that people use on files, of lsattr(1) and chattr(1), and whose argument holds no pointer into the memory of
// whoever calls, which is out of reach here. The value is the argument's size.
var ioctls = map[uint32]int{
	unix.FS_IOC_GETFLAGS: 4,
	unix.FS_IOC_SETFLAGS: 4,
	ioctlGetVersion:      4,
	ioctlGetXattr:        28,
	ioctlSetXattr:        28,
	ioctlGetLabel:        256,
}

// Ioctl passes a few on to the file below, with the rights of who asks. All others are as on a file system that has none: ENOTTY.
func (f *filesystem) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	size, known := ioctls[in.Cmd]
	h := f.handles.get(in.Fh)
	if !known || h == nil || in.Flags&fuse.IOCTL_COMPAT != 0 {
		return fuse.Status(unix.ENOTTY)
	}
	arg := make([]byte, max(size, len(inbuf), len(outbuf)))
	copy(arg, inbuf)
	sets := in.Cmd == unix.FS_IOC_SETFLAGS || in.Cmd == ioctlSetXattr
	if in.Cmd == unix.FS_IOC_SETFLAGS && binary.NativeEndian.Uint32(arg)&flagCasefold != 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if !sets {
		err := ioctl(h.fd, in.Cmd, arg)
		copy(outbuf, arg)
		return status(err)
	}
	if err := f.creds.asProcess(in.Caller, func() error { return ioctl(h.fd, in.Cmd, arg) }); err != nil {
		return status(err)
	}
	st, err := statx(h.node.fd, "")
	if err != nil {
		return status(err)
	}
	f.record(nodeRecord(journal.OpAttr, h.node, &st)) // its ctime
	f.device.forgetAttributes(h.node.id)
	return fuse.OK
}

func ioctl(fd int, cmd uint32, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	if errno != 0 {
		return errno
	}
	return nil
}
