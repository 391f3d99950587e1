package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/mountopt"
)

// fstype is what /proc/self/mountinfo says of our mounts.
const fstype = "fuse.slipway"

// moveMountBeneath is MOVE_MOUNT_BENEATH, Linux 6.5.
const moveMountBeneath = 0x200

// ErrMounted says that a living slipway mount lies at the mount point.
var ErrMounted = errors.New("a slipway mount is there already")

// errStays says that our mount is where it was and cannot be taken away.
var errStays = errors.New("the mount stays")

// mount is the kernel's side of the file system: made first, attached to the mount point when it is served, so that nobody
// ever waits at a mount that no one answers.
type mount struct {
	point  string
	device int // /dev/fuse; owned by the request loop from connect on
	tree   int // the mount not yet attached, -1 afterwards
	flags  int // MOUNT_ATTR_*, taken over from the source
	dead   bool
	id     uint64 // mount id, so that only our own mount is taken away
	forced bool   // detached while in use: files are still open
	opts   []mountOption
}

type mountOption struct{ key, value string }

// newMount makes the file system in the kernel. It does not show anywhere yet, except with a kernel that has only mount(2).
func newMount(opt *Options) (*mount, error) {
	dead, err := inspect(opt.MountPoint)
	if err != nil {
		return nil, err
	}
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	m := &mount{point: opt.MountPoint, device: device, tree: -1, dead: dead.there, flags: sourceFlags(opt.Source) | opt.Attrs}
	if dead.there {
		m.flags |= int(mountopt.Restrict(dead.options).Set) // as it was, and as somebody remounted it since
	}
	m.opts = []mountOption{
		{"fd", strconv.Itoa(device)},
		{"rootmode", strconv.FormatUint(unix.S_IFDIR, 8)},
		{"user_id", "0"},
		{"group_id", "0"},
		{"max_read", strconv.Itoa(maxWrite)},
		{"default_permissions", ""},
	}
	if opt.AllowOther {
		m.opts = append(m.opts, mountOption{"allow_other", ""})
	}
	err = m.create(opt.Volume)
	if errors.Is(err, unix.ENOSYS) {
		err = m.mountOld(opt.Volume)
	}
	if err != nil {
		_ = unix.Close(device)
		return nil, err
	}
	return m, nil
}

// fsopen is replaced by tests that play an old kernel.
var fsopen = unix.Fsopen

// create makes the file system and a mount of it that is attached to nothing.
func (m *mount) create(volume string) error {
	ctx, err := fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open a new file system: %w", err)
	}
	defer func() { _ = unix.Close(ctx) }()
	for _, o := range append([]mountOption{{"source", volume}, {"subtype", "slipway"}}, m.opts...) {
		if o.value == "" {
			err = unix.FsconfigSetFlag(ctx, o.key)
		} else {
			err = unix.FsconfigSetString(ctx, o.key, o.value)
		}
		if err != nil {
			return fmt.Errorf("set mount option %s=%s: %w", o.key, o.value, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return fmt.Errorf("create the file system: %w", err)
	}
	m.tree, err = unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, m.flags)
	if err != nil {
		return fmt.Errorf("create the mount: %w", err)
	}
	m.id, err = mountID(m.tree)
	return err
}

// mountOld is for kernels without fsopen(2), before 5.2: the mount shows before it is served, and users wait that long.
func (m *mount) mountOld(volume string) error {
	var data []string
	for _, o := range m.opts {
		if o.value == "" {
			data = append(data, o.key)
		} else {
			data = append(data, o.key+"="+o.value)
		}
	}
	var flags uintptr
	for attr, ms := range map[int]uintptr{
		unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY, unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID,
		unix.MOUNT_ATTR_NODEV: unix.MS_NODEV, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC,
		unix.MOUNT_ATTR_NOATIME: unix.MS_NOATIME, unix.MOUNT_ATTR_NODIRATIME: unix.MS_NODIRATIME,
	} {
		if m.flags&attr != 0 {
			flags |= ms
		}
	}
	if err := unix.Mount(volume, m.point, fstype, flags, strings.Join(data, ",")); err != nil {
		return fmt.Errorf("mount(2): %w", err)
	}
	id, err := mountIDAt(m.point)
	m.id = id
	return err
}

// attach shows the mount at its mount point. A dead mount there is replaced from beneath: the path leads into the dead mount
// until it leads into the new one, never to the bare directory. If we die in between, the dead mount is still on top.
func (m *mount) attach() error {
	if m.tree < 0 {
		return nil
	}
	const to = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS
	if m.dead {
		err := unix.MoveMount(m.tree, "", unix.AT_FDCWD, m.point, to|moveMountBeneath)
		if err == nil {
			m.close()
			if err := unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("%w: detach the dead one on top: %w", errStays, err)
			}
			return nil
		}
		// A kernel before 6.5, or propagation forbids it: over the dead one is as good, and sweep takes that away in the end.
	}
	if err := unix.MoveMount(m.tree, "", unix.AT_FDCWD, m.point, to); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	m.close()
	return nil
}

// unmount takes the mount away as soon as nobody uses it, and after patience from under those who do. It returns early when
// served ends, because then the mount is gone.
func (m *mount) unmount(served context.Context, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if m.unmountOnce(0) == nil {
			return nil
		}
		select {
		case <-served.Done():
			return nil
		case <-deadline.C:
			// MNT_FORCE ends the connection: whoever still has files open sees ENOTCONN, as after a crash.
			if err := m.unmountOnce(unix.MNT_DETACH | unix.MNT_FORCE); err != nil {
				return fmt.Errorf("%w at %s: %w", errStays, m.point, err)
			}
			m.forced = true
			return nil
		case <-again.C:
		}
	}
}

// unmountOnce tries umount2(2) once, on our own mount only; EBUSY when another one lies over it.
func (m *mount) unmountOnce(flags int) error {
	id, err := mountIDAt(m.point)
	if err != nil {
		return err
	}
	if id != m.id {
		return unix.EBUSY
	}
	return unix.Unmount(m.point, flags|unix.UMOUNT_NOFOLLOW)
}

// attached tells whether our mount is still at its mount point.
func (m *mount) attached() bool {
	id, err := mountIDAt(m.point)
	return err == nil && id == m.id
}

// sweep detaches dead mounts of ours that came to light when the mount over them went.
func (m *mount) sweep() {
	for range 16 {
		if dead, err := inspect(m.point); err != nil || !dead.there {
			return
		}
		if unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return
		}
	}
}

// close drops the mount that is attached to nothing.
func (m *mount) close() {
	if m.tree >= 0 {
		_ = unix.Close(m.tree)
		m.tree = -1
	}
}

// deadMount is a mount of ours that nobody answers for any more.
type deadMount struct {
	there   bool
	options string // as mountinfo shows them
}

// inspect tells whether a dead mount of ours lies at point. Another dead mount, or a living one of ours, is an error. A dead
// mount goes on answering stat(2) from the kernel's cache for as long as the attributes hold: it has to be made to ask.
func inspect(point string) (dead deadMount, err error) {
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, point, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	if err != nil && !errors.Is(err, unix.ENOTCONN) {
		return dead, fmt.Errorf("stat the mount point: %w", err)
	}
	dead.there = err != nil
	if !dead.there && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return dead, fmt.Errorf("the mount point: %w", unix.ENOTDIR)
	}
	table, rerr := os.ReadFile("/proc/self/mountinfo")
	if rerr != nil {
		return deadMount{}, rerr
	}
	top, options := topmost(string(table), point)
	dead.options = options
	if dead.there && top != fstype {
		return dead, fmt.Errorf("a dead mount of type %q lies there: %w", top, unix.ENOTCONN)
	}
	if !dead.there && top == fstype {
		return dead, ErrMounted
	}
	return dead, nil
}

// topmost returns the file system type and the options of the last mount at point, "" if there is none.
func topmost(mountinfo, point string) (kind, options string) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 6 || unescape.Replace(fields[4]) != point {
			continue
		}
		kind, _, _ = strings.Cut(after, " ")
		options = fields[5]
	}
	return kind, options
}

// sourceFlags makes the mount as strict as the mount the source lies on; suid and device files work where they work there.
func sourceFlags(source *os.File) int {
	var st unix.Statfs_t
	if unix.Fstatfs(int(source.Fd()), &st) != nil {
		return 0
	}
	attrs := 0
	for flag, attr := range map[int64]int{
		unix.ST_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.ST_NOSUID: unix.MOUNT_ATTR_NOSUID,
		unix.ST_NODEV: unix.MOUNT_ATTR_NODEV, unix.ST_NOEXEC: unix.MOUNT_ATTR_NOEXEC,
	} {
		if int64(st.Flags)&flag != 0 {
			attrs |= attr
		}
	}
	return attrs
}

// mountIDAt returns the id of the mount on top at path, without asking the file system there anything.
func mountIDAt(path string) (uint64, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	return mountID(fd)
}

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("read the mount id: %w", err)
	}
	return st.Mnt_id, nil
}
