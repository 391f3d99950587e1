package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrMode tells that a secret file may be read by others, or is owned by somebody else. The error names file, mode and the chmod to run.
var ErrMode = errors.New("secret file has unsafe permissions")

const maxSecretFile = 64 << 10

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("too large for a key")
)

// ReadSecretFile reads a file that holds a secret: regular, mode without group and others, owned by this user or root, at most 64 KiB.
func ReadSecretFile(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO in its place would hold us here. What is checked is the open file, so that nobody can put
	// another under its name in between.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read secret file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	if err := checkSecretFile(f, path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, fmt.Errorf("read secret file: %w", err)
	}
	if len(data) > maxSecretFile {
		return nil, fmt.Errorf("read secret file %s: %w", path, errTooLarge)
	}
	return data, nil
}

func checkSecretFile(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("read secret file %s: %w", path, err)
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	switch uid := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("read secret file %s: %w", path, errNotRegular)
	case mode&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %04o, others may use it: run chmod 600 %s", ErrMode, path, uint32(mode), path)
	case st.Uid != uid && st.Uid != 0:
		return fmt.Errorf("%w: %s has mode %04o and belongs to user %d, not to user %d or root: run chown %d %s and chmod 600 %s",
			ErrMode, path, uint32(mode), st.Uid, uid, uid, path, path)
	}
	return nil
}
