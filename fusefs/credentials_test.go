package fusefs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setCredentials changes those of the calling thread alone; the wrappers of package syscall change all threads.
func setCredentials(uid, gid int, groups []uint32) error {
	var list unsafe.Pointer
	if len(groups) > 0 {
		list = unsafe.Pointer(&groups[0])
	}
	calls := [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list)},
		{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
		{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
	}
	for _, c := range calls {
		if _, _, errno := unix.RawSyscall(c[0], c[1], c[2], c[3]); errno != 0 {
			return errno
		}
	}
	return nil
}
