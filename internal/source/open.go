package source

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

const (
	resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	// pieceLength is how much of a path one openat2 takes: PATH_MAX counts the final NUL.
	pieceLength = unix.PathMax - 1
	// resolveTries is how often a path walk is repeated that the kernel gave up because of renames beside it.
	resolveTries = 64
)

// Open opens path (slash-separated, relative; "" or ".": root itself) below root with openat2 RESOLVE_BENEATH |
// RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, O_NOFOLLOW|O_NOATIME (falling back without NOATIME), and in pieces
// where the path is longer than PATH_MAX. want zero: any object; else ErrMoved when the identity differs. Without O_PATH
// only regular files and directories are opened, anything else is ErrSpecial; O_NONBLOCK is never used, as it makes
// opening a file with a lease on it fail.
func Open(root *os.File, path string, flags int, want journal.Ident) (*os.File, error) {
	defer runtime.KeepAlive(root)
	at, err := openPath(int(root.Fd()), path, flags&unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open %q below source: %w", path, err)
	}
	fd := at
	if flags&unix.O_PATH == 0 || !want.IsZero() {
		fd, err = check(at, flags, want)
	}
	if err != nil || fd != at {
		_ = unix.Close(at) // stood for the object, nothing was done with it
	}
	if err != nil {
		return nil, fmt.Errorf("open %q below source: %w", path, err)
	}
	return os.NewFile(uintptr(fd), cmp.Or(path, ".")), nil
}

// check compares what was found with what is wanted and opens it for reading, so that no device is ever opened and no reader
// waits at a fifo. With O_PATH it returns at itself.
func check(at, flags int, want journal.Ident) (int, error) {
	id, attr, err := Stat(at, "")
	if err != nil {
		return -1, err
	}
	if !want.IsZero() && id != want {
		return -1, ErrMoved
	}
	if flags&unix.O_PATH != 0 {
		return at, nil
	}
	if t := attr.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return -1, ErrSpecial
	}
	return reopen(at, flags&^(unix.O_NOFOLLOW|unix.O_NONBLOCK))
}

// reopen opens what an O_PATH descriptor stands for.
func reopen(at, flags int) (int, error) {
	link := procLink(at)
	fd, err := openNow(link, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = openNow(link, flags) // O_NOATIME is for the owner and root
	}
	return fd, err
}

func openNow(path string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// procLink is a path that leads to fd's object itself, whatever its type.
func procLink(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openPath returns an O_PATH descriptor of path. Descriptors are bare here: an os.File costs a system call more, and most live for
// a moment only.
func openPath(root int, path string, flags int) (int, error) {
	dir := root
	for {
		piece, rest := cutPath(path)
		fd, err := openPiece(dir, piece, rest == "", flags)
		if dir != root {
			_ = unix.Close(dir)
		}
		if err != nil || rest == "" {
			return fd, err
		}
		dir, path = fd, rest
	}
}

// cutPath cuts off as much of path as one system call takes, at a slash.
func cutPath(path string) (piece, rest string) {
	if len(path) <= pieceLength {
		return path, ""
	}
	cut := strings.LastIndexByte(path[:pieceLength+1], '/')
	if cut <= 0 {
		return path, "" // a name that long does not exist, the kernel says so
	}
	return path[:cut], strings.TrimLeft(path[cut:], "/")
}

func openPiece(dir int, piece string, last bool, flags int) (fd int, err error) {
	if piece == "" {
		piece = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve}
	how.Flags |= uint64(flags)
	if !last {
		how.Flags |= unix.O_DIRECTORY
	}
	for range resolveTries {
		fd, err = unix.Openat2(dir, piece, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}
