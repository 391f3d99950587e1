package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	files "slipway/internal/source"
)

// kernel: FUSE, and what of it the kernel can do.
func kernel(r *report) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		r.fault("kernel", "", "uname: %v", err)
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		r.fault("kernel", "load the module: modprobe fuse; in a container: --device /dev/fuse", "open /dev/fuse: %v", err)
		return
	}
	_ = unix.Close(fd)
	switch {
	case older(release, 5, 12):
		r.warn("kernel", "Linux 6.9 or newer", "Linux %s has neither passthrough nor cheap handling of suid: every read and write goes through the daemon, and each write asks once more", release)
	case older(release, 6, 9):
		r.warn("kernel", "Linux 6.9 or newer", "Linux %s has no FUSE passthrough: every read and write goes through the daemon", release)
	case builtWithout(release, "CONFIG_FUSE_PASSTHROUGH"):
		r.warn("kernel", "a kernel with CONFIG_FUSE_PASSTHROUGH=y", "Linux %s was built without FUSE passthrough: every read and write goes through the daemon", release)
	default:
		r.ok("kernel", "Linux %s, FUSE with passthrough", release)
	}
}

// builtWithout looks for an option in the kernel's configuration, as distributions install it; false where there is none to look at.
func builtWithout(release, option string) bool {
	text, err := os.ReadFile("/boot/config-" + release)
	return err == nil && !strings.Contains(string(text), "\n"+option+"=")
}

// clock: who else keeps the time of this host is the business of what synchronises it; somebody should.
func clock(r *report) {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err != nil || state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		r.warn("clock", "chrony or systemd-timesyncd", "nothing keeps this host's clock right: batches carry its time, and restores ask for it")
		return
	}
	r.ok("clock", "synchronised")
}

// older compares a release like 6.1.0-18-amd64.
func older(release string, major, minor int) bool {
	var a, b int
	_, _ = fmt.Sscanf(release, "%d.%d", &a, &b) // what is no number counts as 0
	return a < major || a == major && b < minor
}

// capabilities that the mount wants, and what goes without.
var capabilities = []struct {
	bit        int
	name, for_ string
	needed     bool
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "mounting and passthrough", true},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "files of all users", true},
	{unix.CAP_CHOWN, "CAP_CHOWN", "files of all users", true},
	{unix.CAP_FOWNER, "CAP_FOWNER", "files of all users", true},
	{unix.CAP_SETUID, "CAP_SETUID", "creating files as their owner", true},
	{unix.CAP_SETGID, "CAP_SETGID", "creating files as their owner", true},
	{unix.CAP_LEASE, "CAP_LEASE", "telling whether a file of somebody else is still written to", true},
	{unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", "remembering more files than the limit of descriptors", false},
	{unix.CAP_SYS_NICE, "CAP_SYS_NICE", "answering on the processor of whoever asks", false},
}

func privileges(r *report) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		r.fault("privileges", "", "read capabilities: %v", err)
		return
	}
	if os.Geteuid() != 0 {
		r.fault("privileges", "run the mount, and this check, as root", "the process is not root: other users cannot use the mount, and their files not be captured")
		return
	}
	lacks := 0
	for _, c := range capabilities {
		if caps[c.bit/32].Effective&(1<<(c.bit%32)) != 0 {
			continue
		}
		lacks++
		if c.needed {
			r.fault("privileges", "add it to CapabilityBoundingSet= of the unit", "%s is missing: %s", c.name, c.for_)
		} else {
			r.warn("privileges", "add it to CapabilityBoundingSet= of the unit", "%s is missing: %s", c.name, c.for_)
		}
	}
	if lacks == 0 {
		r.ok("privileges", "root with every capability that the mount wants")
	}
}

// source tries on files without a name what slipway needs of the file system.
func source(r *report, dir string) {
	file, err := nameless(dir)
	if err != nil {
		r.fault("source", "see the directory's file system and permissions", "make a file without a name in %s: %v", dir, err)
		return
	}
	defer func() { _ = file.Close() }()
	fd := int(file.Fd())
	if _, err := file.WriteString("slipway"); err != nil {
		r.fault("source", "make room", "write in %s: %v", dir, err)
		return
	}
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil && (st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.ECRYPTFS_SUPER_MAGIC) {
		r.warn("source", "put the files on the file system below", "%s is a file system stacked on another, which allows no passthrough: every read and write goes through the daemon", dir)
	}
	lacks := 0
	try := func(err error, what, without string) {
		if err != nil {
			lacks++
			r.warn("source", "another file system: ext4, xfs or btrfs", "%s has no %s (%v): %s", dir, what, err, without)
		}
	}
	try(unix.Fsetxattr(fd, "user.slipway-doctor", []byte("x"), 0), "extended attributes of users", "they cannot be set, nor restored")
	try(unix.Fsetxattr(fd, "system.posix_acl_access", acl(), 0), "POSIX ACLs", "they cannot be set, nor restored")
	_, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
	try(err, "SEEK_HOLE", "sparse files are read whole")
	if id, _, err := files.Stat(fd, ""); err == nil && id.Birth == 0 {
		try(errors.ErrUnsupported, "time of birth", "a file that takes the inode of another may be taken for it until it is looked at")
	}
	read, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil {
		_, err = files.Quiet(read)
		_ = read.Close()
	}
	try(err, "leases", "whether somebody still writes to a file is not known, and attributes are not cached")
	if lacks == 0 {
		r.ok("source", "%s: extended attributes, ACLs, holes, times of birth, leases", dir)
	}
}

func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// acl is one with a named user, as setfacl(1) writes it: less would be the mode alone.
func acl() []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 6, ^uint32(0)}, {2, 4, 1}, {4, 4, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = append(b, byte(e[0]), 0, byte(e[1]), 0, byte(e[2]), byte(e[2]>>8), byte(e[2]>>16), byte(e[2]>>24))
	}
	return b
}

// space: a tenth of each disk should be free.
func space(r *report, dir string) {
	at := dir
	for _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) && at != "/"; _, err = os.Stat(at) {
		at = filepath.Dir(at) // it is not made yet
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		r.fault("space", "", "ask for the space of %s: %v", dir, err)
		return
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	roomy(r, "space", dir, free, total)
	if st.Ffree < st.Files/20 {
		r.warn("space", "remove files, or make the file system with more inodes", "%s: %d of %d inodes are free", dir, st.Ffree, st.Files)
	}
}

func roomy(r *report, check, where string, free, total int64) {
	text := fmt.Sprintf("%s: %s of %s free", where, config.FormatSize(free), config.FormatSize(total))
	switch {
	case free < total/100:
		r.fault(check, "make room", "%s", text)
	case free < total/10:
		r.warn(check, "make room: a tenth should be free", "%s", text)
	default:
		r.ok(check, "%s", strings.TrimSpace(text))
	}
}
