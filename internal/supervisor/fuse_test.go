package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// fakeMount is a slipway mount without slipway: an empty directory served with the least of the FUSE protocol that lets
// it live. Only package fusefs knows the library.
type fakeMount struct {
	device *os.File
	group  errgroup.Group
	once   sync.Once
}

// newFakeMount mounts at point and serves.
func newFakeMount(t *testing.T, point string) *fakeMount {
	t.Helper()
	m := &fakeMount{device: mountSilent(t, point)}
	m.group.Go(m.serve)
	t.Cleanup(func() { m.die(t) })
	return m
}

// mountSilent mounts at point and answers nothing.
func mountSilent(t *testing.T, point string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("projects", point, fstype, 0, options); err != nil {
		t.Fatal(err)
	}
	device := os.NewFile(uintptr(fd), "/dev/fuse") // only now: before, nobody can wait for it
	t.Cleanup(func() {
		_ = device.Close()
		_ = unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	})
	return device
}

// die ends the serving process, as the kernel sees it: the mount stays, and is dead.
func (m *fakeMount) die(t *testing.T) {
	t.Helper()
	m.once.Do(func() {
		if err := m.device.Close(); err != nil {
			t.Error(err)
		}
		if err := m.group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func (m *fakeMount) serve() error {
	buf := make([]byte, 1<<20)
	for {
		n, err := m.device.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENOENT): // a request that was taken back
			continue
		case err != nil:
			return err
		case n < 40:
			return unix.EIO
		}
		if err := m.answer(binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint64(buf[8:])); err != nil {
			return err
		}
	}
}

// The requests that are answered, from linux/fuse.h.
const (
	fuseForget      = 2
	fuseGetattr     = 3
	fuseStatfs      = 17
	fuseInit        = 26
	fuseOpendir     = 27
	fuseReaddir     = 28
	fuseInterrupt   = 36
	fuseBatchForget = 42
)

func (m *fakeMount) answer(opcode uint32, unique uint64) error {
	var body []byte
	code := int32(0)
	switch opcode {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil
	case fuseInit:
		body = make([]byte, 64)
		binary.NativeEndian.PutUint32(body, 7)
		binary.NativeEndian.PutUint32(body[4:], 31)
		binary.NativeEndian.PutUint32(body[20:], 1<<16) // max_write
	case fuseGetattr:
		body = make([]byte, 104)
		binary.NativeEndian.PutUint64(body, 3600)                       // valid, in seconds
		binary.NativeEndian.PutUint64(body[16:], 1)                     // inode
		binary.NativeEndian.PutUint32(body[16+60:], unix.S_IFDIR|0o755) // mode
		binary.NativeEndian.PutUint32(body[16+64:], 2)                  // links
	case fuseStatfs:
		body = make([]byte, 80)
	case fuseOpendir:
		body = make([]byte, 16)
	case fuseReaddir:
	default:
		code = -int32(unix.ENOSYS)
	}
	head := make([]byte, 16)
	binary.NativeEndian.PutUint32(head, uint32(16+len(body)))
	binary.NativeEndian.PutUint32(head[4:], uint32(code))
	binary.NativeEndian.PutUint64(head[8:], unique)
	_, err := m.device.Write(append(head, body...))
	if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
