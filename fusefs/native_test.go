package fusefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

// Each case here runs in the mount and in a plain directory beside it, and must come out the same: result and attributes.

// user is somebody who is not root.
type user struct {
	uid, gid int
	groups   []int
}

// likeNative runs do, first as root to prepare and then as who, in both places and compares what outcome says of the result.
func likeNative(t *testing.T, f *fixture, name string, prepare func(dir string) error, who *user, do func(dir string) error) {
	t.Helper()
	// Each case gets a directory of its own, open to all.
	native := filepath.Join(filepath.Dir(f.mnt), "native", name)
	var results [2]string
	for i, dir := range []string{native, f.path(name)} {
		// Prepared below the mount, where it has not looked yet: a release that is still on its way would keep the file in
		// the mode it was prepared in.
		place := dir
		if i == 1 {
			place = f.below(name)
		}
		must(t, os.MkdirAll(place, 0o755))
		must(t, os.Chmod(place, 0o777))
		if prepare != nil {
			must(t, prepare(place))
		}
		var err error
		if who == nil {
			err = do(dir)
		} else {
			asUser(t, who.uid, who.gid, who.groups, func() { err = do(dir) })
		}
		results[i] = fmt.Sprintf("%v\n%s", errnoOf(err), outcome(t, dir))
	}
	if results[0] != results[1] {
		t.Errorf("%s: natively\n%s\nthrough the mount\n%s", name, results[0], results[1])
	}
}

func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// outcome describes what lies in dir: modes, owners, sizes, link counts, ACLs and capabilities.
func outcome(t *testing.T, dir string) string {
	t.Helper()
	text := ""
	must(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		text += fmt.Sprintf("%s mode %o owner %d:%d links %d rdev %d", rel, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			text += fmt.Sprintf(" size %d", st.Size)
		}
		for _, name := range []string{"security.capability", "system.posix_acl_access", "system.posix_acl_default"} {
			buf := make([]byte, 1024)
			if n, err := unix.Lgetxattr(path, name, buf); err == nil {
				text += fmt.Sprintf(" %s %x", name, buf[:n])
			}
		}
		text += "\n"
		return nil
	}))
	return text
}

var somebody = &user{uid: 1000, gid: 1000}

// touch makes a file of a few bytes with a mode and an owner.
func touch(name string, mode uint32, uid, gid int) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("some content"), 0o600); err != nil {
			return err
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
		return unix.Chmod(path, mode)
	}
}

// withFile opens dir/file and runs do on it.
func withFile(flags int, do func(fd int) error) func(dir string) error {
	return func(dir string) error {
		fd, err := unix.Open(filepath.Join(dir, "file"), flags, 0)
		if err != nil {
			return err
		}
		defer closingFd(fd)
		return do(fd)
	}
}

func write(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err }

// fileCapability is cap_net_raw+ep, as setcap(8) writes it.
func fileCapability() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<13)
	return b
}

// changes are the ways to change a file's content or owner that take privileges from it. Missing is chown(-1, -1), which
// natively takes them as well: the kernel sends nothing by which it could be known.
func changes() map[string]func(dir string) error {
	return map[string]func(dir string) error{
		"write":         withFile(unix.O_WRONLY, write),
		"append":        withFile(unix.O_WRONLY|unix.O_APPEND, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err }),
		"truncate":      func(dir string) error { return unix.Truncate(filepath.Join(dir, "file"), 3) },
		"ftruncate":     withFile(unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 3) }),
		"open-truncate": withFile(unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }),
		"fallocate":     withFile(unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8192) }),
		"punch": withFile(unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}),
		"direct": withFile(unix.O_WRONLY|unix.O_SYNC, write),
		"chgrp":  func(dir string) error { return unix.Chown(filepath.Join(dir, "file"), -1, 1000) },
		"chmod":  func(dir string) error { return unix.Chmod(filepath.Join(dir, "file"), 0o6775) },
		"read":   withFile(unix.O_RDONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 4)); return err }),
		"utimens": func(dir string) error {
			return unix.Utimes(filepath.Join(dir, "file"), []unix.Timeval{{Sec: 1}, {Sec: 2}})
		},
		"copy_file_range": func(dir string) error {
			if err := touch("from", 0o666, 1000, 1000)(dir); err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
			return withFile(unix.O_WRONLY, func(to int) error {
				from, err := unix.Open(filepath.Join(dir, "from"), unix.O_RDONLY, 0)
				if err != nil {
					return err
				}
				defer closingFd(from)
				_, err = unix.CopyFileRange(from, nil, to, nil, 5, 0)
				return err
			})(dir)
		},
	}
}

// TestPrivilegesGo: suid, sgid and file capabilities go at the same changes, for the same people, as on the disk (C10).
func TestPrivilegesGo(t *testing.T) {
	root := &user{}
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			for what, do := range changes() {
				for _, bits := range []uint32{0o6777, 0o4777, 0o2777, 0o2767, 0o6666, 0o777} {
					for whoName, who := range map[string]*user{"root": root, "user": somebody} {
						for _, capable := range []bool{false, true} {
							name := fmt.Sprintf("%s-%o-%s-%v", what, bits, whoName, capable)
							likeNative(t, f, name, func(dir string) error {
								err := touch("file", bits, 1000, 1000)(dir)
								if err == nil && capable {
									err = unix.Setxattr(filepath.Join(dir, "file"), "security.capability", fileCapability(), 0)
								}
								return err
							}, who, do)
						}
					}
				}
			}
		})
	}
}

// TestPrivilegesAddedLater: bits that root sets while a file is open for writing go with the next write of a user who opened it, however
// the file is read and written, stay if that user writes no more, and stay when root writes.
func TestPrivilegesAddedLater(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		t.Run(mode, func(t *testing.T) {
			f := mounted(t, change)
			for whoName, who := range map[string]user{"root": {}, "user": *somebody} {
				for i := range 4 {
					writes, bits := i%2 == 0, []uint32{0o6777, 0o2666}[i/2] // sgid without group execution has a rule of its own
					likeNative(t, f, fmt.Sprintf("later-%s-%v-%o", whoName, writes, bits), touch("file", 0o777, 1000, 1002), nil, func(dir string) error {
						path := filepath.Join(dir, "file")
						var fd int
						var err error
						asUser(t, who.uid, who.gid, nil, func() {
							if fd, err = unix.Open(path, unix.O_RDWR, 0); err != nil {
								return
							}
							if who.uid == 0 {
								err = unix.Chmod(path, bits)
							} else {
								asUser(t, 0, 0, nil, func() { err = unix.Chmod(path, bits) })
							}
							if err == nil && writes {
								err = write(fd)
							}
						})
						closingFd(fd)
						return err
					})
				}
			}
		})
	}
}

// TestPrivilegesAddedLaterThenClosed: once the user who had the file open is gone, what others write takes nothing.
func TestPrivilegesAddedLaterThenClosed(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.below("file"), []byte("content"), 0o666))
	must(t, os.Chmod(f.below("file"), 0o666))
	users, root := 0, 0
	var err error
	asUser(t, 1000, 1000, nil, func() { users, err = unix.Open(f.path("file"), unix.O_RDWR, 0) })
	must(t, err)
	root, err = unix.Open(f.path("file"), unix.O_RDWR, 0)
	must(t, err)
	defer closingFd(root)
	must(t, unix.Chmod(f.path("file"), 0o6777))
	must(t, unix.Close(users))
	for released := false; !released; { // the kernel tells of it by and by
		released = slices.ContainsFunc(f.records(), func(r journal.Record) bool { return r.Op == journal.OpRelease })
	}
	must(t, write(root))
	var st unix.Stat_t
	must(t, unix.Stat(f.path("file"), &st))
	if st.Mode&0o7777 != 0o6777 {
		t.Errorf("mode %o", st.Mode)
	}
}

// TestInstall: the way of cp -p, tar -xp and dpkg, which set the bits on the open descriptor, keeps them.
func TestInstall(t *testing.T) {
	f := mounted(t)
	likeNative(t, f, "install", nil, nil, func(dir string) error {
		fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer closingFd(fd)
		if err := write(fd); err != nil {
			return err
		}
		if err := unix.Fchown(fd, 1000, 1000); err != nil {
			return err
		}
		if err := unix.Fchmod(fd, 0o6755); err != nil {
			return err
		}
		return unix.Fsync(fd)
	})
}

// acl builds a POSIX ACL as the kernel takes it: entries of tag, permissions, id.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

const (
	aclUserObj, aclUser, aclGroupObj, aclMask, aclOther = 1, 2, 4, 16, 32
	noID                                                = 0xffffffff
)

func sampleACL() []byte {
	return acl([3]uint32{aclUserObj, 7, noID}, [3]uint32{aclUser, 6, 1000}, [3]uint32{aclGroupObj, 5, noID},
		[3]uint32{aclMask, 7, noID}, [3]uint32{aclOther, 4, noID})
}

// makers create one thing each.
func makers() map[string]func(dir string) error {
	in := func(dir string) string { return filepath.Join(dir, "new") }
	return map[string]func(dir string) error{
		"file": func(dir string) error {
			fd, err := unix.Open(in(dir), unix.O_CREAT|unix.O_WRONLY, 0o666)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		},
		"sgid-file": func(dir string) error {
			fd, err := unix.Open(in(dir), unix.O_CREAT|unix.O_WRONLY, 0o2775)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		},
		"dir":     func(dir string) error { return unix.Mkdir(in(dir), 0o777) },
		"fifo":    func(dir string) error { return unix.Mkfifo(in(dir), 0o666) },
		"node":    func(dir string) error { return unix.Mknod(in(dir), unix.S_IFREG|0o666, 0) },
		"device":  func(dir string) error { return unix.Mknod(in(dir), unix.S_IFBLK|0o660, int(unix.Mkdev(300, 70000))) },
		"symlink": func(dir string) error { return unix.Symlink("there", in(dir)) },
		"tmpfile": func(dir string) error {
			fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY, 0o666)
			if err != nil {
				return err
			}
			defer closingFd(fd)
			return unix.Linkat(unix.AT_FDCWD, procPath(fd), unix.AT_FDCWD, in(dir), unix.AT_SYMLINK_FOLLOW)
		},
	}
}

// TestCreationIsTheCallers: owner, group, umask, default ACL and sgid directories come out as on the disk.
func TestCreationIsTheCallers(t *testing.T) {
	f := mounted(t)
	users := map[string]*user{
		"root": {}, "user": somebody, "root-other-group": {gid: 1000}, "member": {uid: 1001, gid: 1001, groups: []int{2000}},
	}
	places := map[string]func(dir string) error{
		"plain":   nil,
		"sgid":    func(dir string) error { return errors.Join(os.Chown(dir, 0, 2000), unix.Chmod(dir, 0o2777)) },
		"acl":     func(dir string) error { return unix.Setxattr(dir, "system.posix_acl_default", sampleACL(), 0) },
		"private": func(dir string) error { return unix.Chmod(dir, 0o755) },
	}
	for _, mask := range []int{0o022, 0o077, 0} {
		old := unix.Umask(mask)
		for what, do := range makers() {
			for place, prepare := range places {
				for whoName, who := range users {
					likeNative(t, f, fmt.Sprintf("%s-%s-%s-%o", what, place, whoName, mask), prepare, who, do)
				}
			}
		}
		unix.Umask(old)
	}
}

// TestDefaultACLChanges: what is created follows the directory's default ACL as it is at that moment.
func TestDefaultACLChanges(t *testing.T) {
	f := mounted(t)
	likeNative(t, f, "changes", nil, nil, func(dir string) error {
		for i, change := range []func() error{
			func() error { return nil },
			func() error { return unix.Setxattr(dir, defaultACLXattr, sampleACL(), 0) },
			func() error { return unix.Removexattr(dir, defaultACLXattr) },
		} {
			if err := change(); err != nil {
				return err
			}
			if err := unix.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o777); err != nil {
				return err
			}
		}
		return nil
	})
	var inherited []bool
	for _, r := range f.records() {
		if r.Op == journal.OpCreate {
			inherited = append(inherited, r.Flags&journal.FlagInherited != 0)
		}
	}
	if diff := cmp.Diff([]bool{false, true, false}, inherited); diff != "" {
		t.Errorf("FlagInherited: %s", diff)
	}
}

// TestPermissions: who may not, may not.
func TestPermissions(t *testing.T) {
	f := mounted(t)
	file := func(mode uint32) func(dir string) error { return touch("file", mode, 0, 0) }
	at := func(dir string) string { return filepath.Join(dir, "file") }
	cases := map[string]struct {
		prepare, do func(dir string) error
	}{
		"read":      {file(0o600), withFile(unix.O_RDONLY, func(int) error { return nil })},
		"write":     {file(0o644), withFile(unix.O_WRONLY, func(int) error { return nil })},
		"chmod":     {file(0o666), func(dir string) error { return unix.Chmod(at(dir), 0o777) }},
		"chown":     {file(0o666), func(dir string) error { return unix.Chown(at(dir), 1000, 1000) }},
		"utimes":    {file(0o644), func(dir string) error { return unix.Utimes(at(dir), []unix.Timeval{{}, {}}) }},
		"truncate":  {file(0o444), func(dir string) error { return unix.Truncate(at(dir), 0) }},
		"setxattr":  {file(0o644), func(dir string) error { return unix.Setxattr(at(dir), "user.x", nil, 0) }},
		"trusted":   {file(0o666), func(dir string) error { return unix.Setxattr(at(dir), "trusted.x", nil, 0) }},
		"hard link": {file(0o600), func(dir string) error { return unix.Link(at(dir), at(dir)+"2") }},
		"sticky":    {func(dir string) error { return errors.Join(file(0o666)(dir), unix.Chmod(dir, 0o1777)) }, func(dir string) error { return os.Remove(at(dir)) }},
		"unlink":    {func(dir string) error { return errors.Join(file(0o666)(dir), unix.Chmod(dir, 0o755)) }, func(dir string) error { return os.Remove(at(dir)) }},
		"acl allows": {func(dir string) error {
			return errors.Join(file(0o600)(dir), unix.Setxattr(at(dir), "system.posix_acl_access", sampleACL(), 0))
		}, withFile(unix.O_RDWR, write)},
		"list trusted": {func(dir string) error {
			return errors.Join(file(0o644)(dir), unix.Setxattr(at(dir), "trusted.x", nil, 0))
		}, func(dir string) error {
			if n, err := unix.Listxattr(at(dir), nil); err != nil || n > 0 {
				return fmt.Errorf("listxattr: %d, %w", n, err)
			}
			return nil
		}},
		"foreign acl": {file(0o666), func(dir string) error { return unix.Setxattr(at(dir), "system.posix_acl_access", sampleACL(), 0) }},
		"acl takes sgid": {touch("file", 0o2775, 1000, 2000), func(dir string) error {
			return unix.Setxattr(at(dir), "system.posix_acl_access", sampleACL(), 0)
		}},
	}
	for name, c := range cases {
		likeNative(t, f, name, c.prepare, somebody, c.do)
	}
}
