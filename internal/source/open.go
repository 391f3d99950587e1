package source

import (
	"errors"
	"fmt"
	"os"
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
	f, err := openPath(root, path, flags&unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open %q below source: %w", path, err)
	}
	if flags&unix.O_PATH != 0 && want.IsZero() {
		return f, nil
	}
	opened, err := check(f, flags, want)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %q below source: %w", path, err), f.Close())
	}
	if opened != f {
		_ = f.Close()
	}
	return opened, nil
}

// check compares what was found with what is wanted and opens it for reading, so that no device is ever opened and no reader
// waits at a fifo.
func check(f *os.File, flags int, want journal.Ident) (*os.File, error) {
	id, attr, err := Stat(int(f.Fd()), "")
	if err != nil {
		return nil, err
	}
	if !want.IsZero() && id != want {
		return nil, ErrMoved
	}
	if flags&unix.O_PATH != 0 {
		return f, nil
	}
	if t := attr.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, ErrSpecial
	}
	return reopen(f, flags&^(unix.O_NOFOLLOW|unix.O_NONBLOCK))
}

// reopen opens what an O_PATH descriptor stands for.
func reopen(f *os.File, flags int) (*os.File, error) {
	link := procLink(f)
	fd, err := openNow(link, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = openNow(link, flags) // O_NOATIME is for the owner and root
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func openNow(path string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// procLink is a path that leads to f's object itself, whatever its type.
func procLink(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// openPath returns an O_PATH descriptor of path.
func openPath(root *os.File, path string, flags int) (*os.File, error) {
	dir := root
	for {
		piece, rest := cutPath(path)
		f, err := openPiece(dir, piece, rest == "", flags)
		if dir != root {
			_ = dir.Close()
		}
		if err != nil || rest == "" {
			return f, err
		}
		dir, path = f, rest
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

func openPiece(dir *os.File, piece string, last bool, flags int) (*os.File, error) {
	if piece == "" {
		piece = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve}
	how.Flags |= uint64(flags)
	if !last {
		how.Flags |= unix.O_DIRECTORY
	}
	var fd int
	var err error
	for range resolveTries {
		fd, err = unix.Openat2(int(dir.Fd()), piece, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), piece), nil
}
