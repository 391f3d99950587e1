package fusefs

import (
	"golang.org/x/sys/unix"
)

// The kernel leaves it to this process to take suid and sgid from files that are written to (HANDLE_KILLPRIV_V2; without it
// each write would cost an extra request). This process has CAP_FSETID, and so the file system below would leave them on.
// Three rules put that right, none of which repeats the kernel's own rule of what goes when:
//
//   - a change that the kernel marked as made without CAP_FSETID is made below without it (killing);
//   - where the kernel marks nothing, fallocate and copy_file_range, the caller is looked at (killsFor);
//   - a file that has such bits or capabilities at its first open is not opened in passthrough, and what the kernel writes
//     by itself it writes with the credentials of registerBacking: without CAP_FSETID. So bits that are added while a
//     passthrough writer is open go with its next write. Root's next write through such a descriptor takes them as well,
//     which natively it would not; copying tools set them after their last write.
//
// File capabilities need nothing: the file system below removes them at every write, whoever writes.

// killing runs a change of a file's content, without CAP_FSETID if the one who asked for it, of group gid, has it not.
func (f *filesystem) killing(kill bool, gid uint32, change func() error) error {
	if kill {
		return f.creds.withoutFsetid(gid, change)
	}
	return change()
}

// killsFor tells whether a change of the open file fd by process pid takes suid and sgid.
func killsFor(fd int, pid uint32) bool {
	st, err := statx(fd, "")
	return err == nil && hasSetID(&st) && !mayKeepSetID(pid)
}

func hasSetID(st *unix.Statx_t) bool { return st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 }

// privileged tells whether an open file carries what a write has to take away.
func privileged(fd int, st *unix.Statx_t) bool {
	if hasSetID(st) {
		return true
	}
	n, err := unix.Fgetxattr(fd, "security.capability", nil)
	return err == nil && n > 0
}
