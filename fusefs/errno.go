package fusefs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// status maps an error to what the application sees. System calls below give their own errno; what is not one is EIO.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fuse.EIO
	}
	switch errno {
	case unix.ENOSYS:
		// To the kernel ENOSYS means: never ask again, for the whole mount.
		return fuse.Status(unix.EOPNOTSUPP)
	case unix.EMFILE:
		// It is this process that ran out of descriptors, not the application.
		return fuse.Status(unix.ENFILE)
	}
	return fuse.Status(errno)
}

// again repeats a system call that a signal to this process cut short (the Go runtime sends many).
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // a bare errno from the system call just made
			return err
		}
	}
}
