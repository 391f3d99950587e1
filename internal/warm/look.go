package warm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/catalog"
	"slipway/internal/journal"
)

// seen is an object of the directory as it was left, or as it is now; zero: none.
type seen struct {
	Ino         uint64
	Birth       int64
	Mode        uint32
	UID, GID    uint32
	Size, Mtime int64
	Ctime       int64
}

func (s seen) ident() journal.Ident { return journal.Ident{Ino: s.Ino, Birth: s.Birth} }

// is tells whether the object that is there now is the one that was left, and nobody wrote into it since.
func (s seen) is(now seen) bool {
	if s.Ino == 0 || s.ident() != now.ident() || s.Mode&unix.S_IFMT != now.Mode&unix.S_IFMT {
		return false
	}
	return s.Mode&unix.S_IFMT != unix.S_IFREG || s.Size == now.Size && s.Mtime == now.Mtime
}

// left returns how an object was left.
func left(in *catalog.Inode) seen {
	return seen{
		Ino: in.Ident.Ino, Birth: in.Ident.Birth, Mode: in.Attr.Mode, UID: in.Attr.UID, GID: in.Attr.GID,
		Size: in.Attr.Size, Mtime: in.Attr.Mtime, Ctime: in.Ctime,
	}
}

// note writes down how an object was left.
func (s seen) note(in *catalog.Inode) {
	in.Ident, in.Size, in.Ctime = s.ident(), s.Size, s.Ctime
	in.Attr = journal.Attr{Mode: s.Mode, UID: s.UID, GID: s.GID, Size: s.Size, Mtime: s.Mtime, Ctime: s.Ctime}
}

// look returns what lies under a name, or with no name what is open; zero where there is nothing.
func look(dirfd int, name string) (seen, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	err := unix.Statx(dirfd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if errors.Is(err, unix.ENOENT) {
		return seen{}, nil
	}
	if err != nil {
		return seen{}, fmt.Errorf("look at %q: %w", name, err)
	}
	s := seen{
		Ino: st.Ino, Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: int64(st.Size),
		Mtime: nanoseconds(st.Mtime), Ctime: nanoseconds(st.Ctime),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		s.Birth = nanoseconds(st.Btime)
	}
	return s, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func readNames(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	f := os.NewFile(uintptr(again), ".")
	defer func() { _ = f.Close() }() // only read
	return f.Readdirnames(-1)
}
