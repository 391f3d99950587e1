package source

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Quiet probes with a read lease, dropped at once, whether nobody has the file open for writing or mapped writable, here or
// in a process that outlived a dead mount. f is open read-only. ErrNoLease where the file system or the process may not have
// leases: then nothing can be said.
//
// The lease is held for the length of two system calls: who opens the file for writing in between waits that long, but with
// O_NONBLOCK fails.
func Quiet(f *os.File) (bool, error) {
	defer runtime.KeepAlive(f)
	fd := f.Fd()
	err := setLease(fd, unix.F_RDLCK)
	switch {
	case err == nil:
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES), errors.Is(err, unix.EOPNOTSUPP):
		return false, fmt.Errorf("probe %s for writers: %w (%w)", f.Name(), ErrNoLease, err)
	default:
		return false, fmt.Errorf("probe %s for writers: %w", f.Name(), err)
	}
	// EAGAIN: somebody broke the lease and the kernel took it away meanwhile.
	if err := setLease(fd, unix.F_UNLCK); err != nil && !errors.Is(err, unix.EAGAIN) {
		return false, fmt.Errorf("drop lease on %s: %w", f.Name(), err)
	}
	return true, nil
}

func setLease(fd uintptr, kind int) error {
	return retry(func() error {
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, kind)
		return err
	})
}
