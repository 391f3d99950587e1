package catalog

import (
	"errors"
	"fmt"
	"os"
	"time"

	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// openChecked opens the file for its writer, waits for its lock, and checks its pages.
func openChecked(name string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if err = lock(f, unix.LOCK_EX, writeWait); err == nil {
		err = checkPages(f)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

func lock(f *os.File, how int, wait time.Duration) error {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock: %w", err)
		case time.Now().Add(pause).After(deadline):
			return ErrBusy
		}
		<-time.After(pause)
	}
}

// classify tells what an error of opening means: the file has been opened and locked before, so what the system does not
// complain about is the fault of its content.
func classify(err error) error {
	var errno unix.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrBusy
	case errors.Is(err, ErrBusy), errors.Is(err, ErrCorrupt), errors.As(err, &errno):
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
