package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

const (
	flagNodump    = 0x40
	flagAppend    = 0x20
	flagNoatime   = 0x80
	flagImmutable = 0x10
	flagJournal   = 0x4000 // ext4: takes CAP_SYS_RESOURCE, which the file system itself asks for
)

// changeFlags does what chattr(1) does.
func changeFlags(path string, set uint32) error {
	return throughFd(path, func(fd int) error {
		old, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(old|set))
	})
}

func throughFd(path string, do func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return do(fd)
}

// TestIoctls: what chattr(1) and lsattr(1) do comes out as in the directory below, for root and for others; what holds pointers is refused.
func TestIoctls(t *testing.T) {
	f := mounted(t)
	nobody := &user{uid: 65534, gid: 65534}
	file := func(uid int) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
				return err
			}
			return os.Chown(path, uid, uid)
		}
	}
	for name, set := range map[string]uint32{"nodump": flagNodump, "noatime": flagNoatime, "append": flagAppend, "journal": flagJournal, "immutable": flagImmutable, "nothing": 0} {
		for who, u := range map[string]*user{"root": nil, "owner": nobody, "stranger": {uid: 65533, gid: 65533}} {
			likeNative(t, f, name+" as "+who, file(65534), u, func(dir string) error {
				path := filepath.Join(dir, "file")
				err := changeFlags(path, set)
				t.Cleanup(func() {
					_ = throughFd(path, func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0) })
				})
				return err
			})
		}
		likeNative(t, f, name+" of a directory", nil, nil, func(dir string) error {
			path := filepath.Join(dir, "sub")
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			err := changeFlags(path, set)
			t.Cleanup(func() {
				_ = throughFd(path, func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0) })
			})
			return err
		})
	}

	t.Run("in force", func(t *testing.T) {
		path := f.path("kept")
		must(t, os.WriteFile(f.below("kept"), []byte("content"), 0o644)) // so that its attributes are cached from the first look on
		before := ctime(t, path)
		must(t, changeFlags(path, flagImmutable))
		t.Cleanup(func() {
			must(t, throughFd(path, func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0) }))
		})
		if err := os.Remove(path); !errors.Is(err, unix.EPERM) {
			t.Errorf("an immutable file is removed: %v", err)
		}
		if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("an immutable file is opened for writing: %v", err)
		}
		if after := ctime(t, path); after == before || after != ctime(t, f.below("kept")) {
			t.Errorf("ctime was %d, is %d, below %d", before, after, ctime(t, f.below("kept")))
		}
		if !slices.ContainsFunc(f.records(), func(r journal.Record) bool { return r.Op == journal.OpAttr && r.Attr.Ctime == ctime(t, path) }) {
			t.Error("the journal does not tell of the change")
		}
		must(t, throughFd(path, func(fd int) error {
			flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
			if flags&flagImmutable == 0 {
				t.Errorf("flags %#x", flags)
			}
			return err
		}))
	})

	t.Run("values", func(t *testing.T) {
		must(t, os.WriteFile(f.path("values"), nil, 0o644))
		for cmd, size := range ioctls {
			if cmd == unix.FS_IOC_SETFLAGS || cmd == ioctlSetXattr {
				continue
			}
			var got [2][]byte
			for i, path := range []string{f.path("values"), f.below("values")} {
				got[i] = make([]byte, max(size, 8))
				must(t, throughFd(path, func(fd int) error { return ioctl(fd, cmd, got[i]) }))
			}
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("ioctl %#x: %x through the mount, %x below", cmd, got[0], got[1])
			}
		}
	})

	t.Run("refused", func(t *testing.T) {
		must(t, os.WriteFile(f.path("refused"), nil, 0o644))
		fiemap := make([]byte, 32)
		for name, c := range map[string]struct {
			cmd uint32
			arg []byte
		}{
			"FIEMAP": {0xc020660b, fiemap}, "FS_IOC_GET_ENCRYPTION_POLICY_EX": {0xc0096616, make([]byte, 16)}, "EXT4_IOC_MOVE_EXT": {0xc028660f, make([]byte, 40)}, "FITRIM": {0xc0185879, make([]byte, 24)},
		} {
			err := throughFd(f.path("refused"), func(fd int) error { return ioctl(fd, c.cmd, c.arg) })
			if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, os.Mkdir(f.path("folded"), 0o755))
		if err := changeFlags(f.path("folded"), flagCasefold); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("names the same in either case: %v", err)
		}
	})
}

func ctime(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ctim.Nano()
}
