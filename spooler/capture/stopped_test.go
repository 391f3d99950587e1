package capture

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stoppedBuffer is memory whose second part is not there until release: a write(2) from it stops in the middle, holding the
// inode's lock. userfaultfd(2) tells when it has come that far.
type stoppedBuffer struct {
	mem  []byte
	at   int
	uffd int
}

// The interface of userfaultfd, from linux/userfaultfd.h.
const (
	uffdAPI        = 0xc018aa3f
	uffdRegister   = 0xc020aa00
	uffdCopy       = 0xc028aa03
	uffdAPIVersion = 0xaa
	uffdMissing    = 1
	uffdPageFault  = 0x12
)

func newStoppedBuffer(t *testing.T, size, at int) *stoppedBuffer {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	b := &stoppedBuffer{mem: mem, at: at, uffd: int(fd)}
	t.Cleanup(func() {
		if err := errors.Join(unix.Close(b.uffd), unix.Munmap(mem)); err != nil {
			t.Error(err)
		}
	})
	api := [3]uint64{uffdAPIVersion}
	b.ioctl(t, uffdAPI, unsafe.Pointer(&api))
	register := [4]uint64{uint64(uintptr(unsafe.Pointer(&mem[at]))), uint64(size - at), uffdMissing}
	b.ioctl(t, uffdRegister, unsafe.Pointer(&register))
	return b
}

func (b *stoppedBuffer) ioctl(t *testing.T, request uintptr, arg unsafe.Pointer) {
	t.Helper()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(b.uffd), request, uintptr(arg)); errno != 0 {
		t.Fatalf("userfaultfd ioctl %#x: %v", request, errno)
	}
}

// reached returns when somebody wants the second part.
func (b *stoppedBuffer) reached(t *testing.T) {
	t.Helper()
	var event [32]byte
	if _, err := unix.Read(b.uffd, event[:]); err != nil || event[0] != uffdPageFault {
		t.Fatalf("userfaultfd event %#x: %v", event[0], err)
	}
}

// release fills the second part with 2 and lets go.
func (b *stoppedBuffer) release(t *testing.T) {
	t.Helper()
	rest := make([]byte, len(b.mem)-b.at)
	for i := range rest {
		rest[i] = 2
	}
	arg := [5]uint64{
		uint64(uintptr(unsafe.Pointer(&b.mem[b.at]))), uint64(uintptr(unsafe.Pointer(&rest[0]))), uint64(len(rest)),
	}
	b.ioctl(t, uffdCopy, unsafe.Pointer(&arg))
}
