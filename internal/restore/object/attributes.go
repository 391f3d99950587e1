package object

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
)

// Object is an open file, or one that cannot be opened but held by O_PATH (links, devices, sockets): then the calls that want
// a real descriptor go through its name below /proc.
type Object struct {
	FD     int
	ByPath bool
}

func (o Object) proc() string { return "/proc/self/fd/" + strconv.Itoa(o.FD) }

// Chmod sets the permission bits.
func (o Object) Chmod(mode uint32) error {
	if o.ByPath {
		return unix.Fchmodat(unix.AT_FDCWD, o.proc(), mode, 0)
	}
	return unix.Fchmod(o.FD, mode)
}

func (o Object) setxattr(name string, value []byte) error {
	if o.ByPath {
		return unix.Setxattr(o.proc(), name, value, 0)
	}
	return unix.Fsetxattr(o.FD, name, value, 0)
}

// RemoveXattr removes an extended attribute.
func (o Object) RemoveXattr(name string) error {
	if o.ByPath {
		return unix.Removexattr(o.proc(), name)
	}
	return unix.Fremovexattr(o.FD, name)
}

const (
	suidBits   = unix.S_ISUID | unix.S_ISGID
	capability = "security.capability"
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// Mode returns the permission bits to set on a file that belongs to uid and gid: without the set-id bits where it is not the
// right owner's, because they would lend another one's rights.
func (m *Maker) Mode(in *batch.Inode, uid, gid uint32) uint32 {
	mode := in.Mode & 0o7777
	if !isDir(in) && (m.NoSUID || uid != in.UID || gid != in.GID) || m.NoSUID {
		mode &^= suidBits
	}
	return mode
}

// SetAttributes gives an object everything but its content and name: owner first, which clears set-id bits and capabilities;
// then attributes while the owner may still write; mode, capabilities; times last.
func (m *Maker) SetAttributes(o Object, in *batch.Inode, path string) error {
	uid, gid, err := m.chown(o, in, path)
	if err != nil {
		return err
	}
	if err := m.setXattrs(o, in, path); err != nil {
		return err
	}
	if in.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := o.Chmod(m.Mode(in, uid, gid)); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if value, ok := in.Xattrs[capability]; ok && !m.NoSUID {
		if err := m.setXattr(o, capability, value, path); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(in.Mtime)}
	if err := unix.UtimesNanoAt(o.FD, "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// chown sets the owner where that may be done, and returns whose the object is.
func (m *Maker) chown(o Object, in *batch.Inode, path string) (uid, gid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(o.FD, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return 0, 0, fmt.Errorf("look at the new file: %w", err)
	}
	if st.Uid == in.UID && st.Gid == in.GID {
		return in.UID, in.GID, nil
	}
	err = unix.Fchownat(o.FD, "", int(in.UID), int(in.GID), unix.AT_EMPTY_PATH)
	switch {
	case err == nil:
		return in.UID, in.GID, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL): // not root, or an owner that the user namespace does not have
		m.Skip("owner", path, err)
		if st.Gid != in.GID && unix.Fchownat(o.FD, "", -1, int(in.GID), unix.AT_EMPTY_PATH) == nil {
			return st.Uid, in.GID, nil
		}
		return st.Uid, st.Gid, nil
	}
	return 0, 0, fmt.Errorf("set owner: %w", err)
}

// setXattrs sets all extended attributes but capabilities. An ACL that the object got from its directory and should not have
// is taken away.
func (m *Maker) setXattrs(o Object, in *batch.Inode, path string) error {
	inherited := []string{accessACL}
	if isDir(in) {
		inherited = append(inherited, defaultACL)
	}
	for _, name := range inherited {
		if _, wanted := in.Xattrs[name]; !wanted && in.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := o.RemoveXattr(name); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.Xattrs)) {
		if name == capability {
			continue
		}
		if err := m.setXattr(o, name, in.Xattrs[name], path); err != nil {
			return err
		}
	}
	return nil
}

var errXattr = errors.New("not an extended attribute that is restored")

func (m *Maker) setXattr(o Object, name string, value []byte, path string) error {
	namespace, _, ok := strings.Cut(name, ".")
	if !ok || namespace == "system" && name != accessACL && name != defaultACL || strings.Contains(name, "\x00") {
		return fmt.Errorf("set %q: %w", name, errXattr)
	}
	err := o.setxattr(name, value)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		kind := namespace + ".* attributes"
		if namespace == "system" {
			kind = "ACLs"
		}
		m.Skip(kind, path, err)
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		// The attribute does not fit beside the inode, which is no sign of a full disk.
		return fmt.Errorf("set %s: no room for %d bytes", name, len(value))
	}
	return fmt.Errorf("set %s: %w", name, err)
}
