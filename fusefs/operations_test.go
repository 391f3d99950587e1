package fusefs

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// everyAction is what the short sequences are made of.
func everyAction() []action {
	put := func(name string, flags int) func(w *world) string {
		return func(w *world) string {
			fd, err := unix.Openat(w.root, name, flags|unix.O_CLOEXEC, 0o644)
			if err != nil {
				return err.Error()
			}
			defer closingFd(fd)
			n, err := unix.Write(fd, []byte("more"))
			return fmt.Sprint(n, err)
		}
	}
	at := func(call func(root int) error) func(w *world) string {
		return func(w *world) string { return fmt.Sprint(call(w.root)) }
	}
	rename := func(from, to string, flags uint) func(w *world) string {
		return at(func(root int) error { return unix.Renameat2(root, from, root, to, flags) })
	}
	return []action{
		{name: "write a", run: put("a", unix.O_WRONLY)},
		{name: "truncating open of a", run: put("a", unix.O_WRONLY|unix.O_TRUNC)},
		{name: "unlink a", run: at(func(root int) error { return unix.Unlinkat(root, "a", 0) })},
		{name: "rmdir d", run: at(func(root int) error { return unix.Unlinkat(root, "d", unix.AT_REMOVEDIR) })},
		{name: "mkdir b", run: at(func(root int) error { return unix.Mkdirat(root, "b", 0o700) })},
		{name: "rename a b", run: rename("a", "b", 0)},
		{name: "rename a d/a", run: rename("a", "d/a", 0)},
		{name: "exchange a d", run: rename("a", "d", unix.RENAME_EXCHANGE)},
		{name: "whiteout a b", run: rename("a", "b", unix.RENAME_WHITEOUT)},
		{name: "link a b", run: at(func(root int) error { return unix.Linkat(root, "a", root, "b", 0) })},
		{name: "link a d/a", run: at(func(root int) error { return unix.Linkat(root, "a", root, "d/a", 0) })},
		{name: "symlink b", run: at(func(root int) error { return unix.Symlinkat("a", root, "b") })},
		{name: "chmod a 4755", run: at(func(root int) error { return unix.Fchmodat(root, "a", 0o4755, 0) })},
		{name: "xattr of a", run: onFile("a", func(fd int) error { return unix.Fsetxattr(fd, "user.x", []byte("value"), 0) })},
		{name: "nameless file as b", run: nameless("b")},
		{name: "copy a to b", run: func(w *world) string { return copyRange(w, "a", "b", 0, 0, 10) }},
	}
}

// open never waits for the other end of a FIFO.
func (w *world) open(path string, flags int, mode uint32) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(w.root, path, &st, 0); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		flags |= unix.O_NONBLOCK
	}
	return unix.Openat(w.root, path, flags|unix.O_CLOEXEC, mode)
}

// isRegular: writing to a FIFO moves its times natively, and not through FUSE (docs/limits.md).
func isRegular(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// onFile opens path for writing and runs call.
func onFile(path string, call func(fd int) error) func(w *world) string {
	return func(w *world) string {
		fd, err := w.open(path, unix.O_WRONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return "open: " + err.Error()
		}
		defer closingFd(fd)
		return fmt.Sprint(call(fd))
	}
}

// nameless makes a file without a name and gives it one.
func nameless(name string) func(w *world) string {
	return func(w *world) string {
		fd, err := unix.Openat(w.root, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return err.Error()
		}
		defer closingFd(fd)
		if _, err := unix.Write(fd, []byte("nameless")); err != nil {
			return err.Error()
		}
		return fmt.Sprint(unix.Linkat(unix.AT_FDCWD, procPath(fd), w.root, name, unix.AT_SYMLINK_FOLLOW))
	}
}

func copyRange(w *world, from, to string, offIn, offOut int64, size int) string {
	in, err := w.open(from, unix.O_RDONLY, 0)
	if err != nil {
		return "from: " + err.Error()
	}
	defer closingFd(in)
	out, err := w.open(to, unix.O_WRONLY|unix.O_CREAT, 0o644)
	if err != nil {
		return "to: " + err.Error()
	}
	defer closingFd(out)
	n, err := unix.CopyFileRange(in, &offIn, out, &offOut, size, 0)
	return fmt.Sprint(n, err)
}

// allPaths are the names of the random operations.
var allPaths = []string{".", "a", "b", "c", "d", "d/a", "d/b", "d/d", "d/d/a", "e", "e/a", "e/b"}

// generator makes random operations.
type generator struct {
	rng    *rand.Rand
	last   string
	opener *user // who opens files and uses the handles: with several of them, docs/limits.md tells of a difference
}

func (g *generator) path() string {
	if g.last != "" && g.rng.IntN(3) == 0 {
		return g.last // something happens to one object more often
	}
	g.last = allPaths[1+g.rng.IntN(len(allPaths)-1)]
	return g.last
}

// leaf is a name for something that is not a directory, as a rule: or most operations would fail.
func (g *generator) leaf() string {
	if g.rng.IntN(12) == 0 {
		return g.path()
	}
	g.last = pick(g.rng, "a", "b", "c", "d/a", "d/b", "d/d/a", "e/a", "e/b")
	return g.last
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func (g *generator) mode() uint32 {
	return pick[uint32](g.rng, 0o644, 0o600, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o6777, 0o1777, 0o2644, 0o400, 0)
}

func (g *generator) offset() int64 {
	return pick[int64](g.rng, 0, 1, 10, 4095, 4096, 5000, 8192, 12288, 65536, 1<<20)
}

// owners are the ids that files are given to.
func (g *generator) owner() int { return pick(g.rng, -1, 0, 1000, 1001, 1002) }

// next returns an operation and the paths that it names.
func (g *generator) next() (action, []string) {
	makers := []func() (action, []string){
		g.open, g.open, g.open, g.closeOne, g.write, g.write, g.append, g.read, g.truncateHandle, g.allocate, g.seek, g.sync, g.mapping, g.mapping,
		g.make, g.make, g.makeDir, g.makeDir, g.special, g.symlink, g.nameless, g.unlink, g.unlink, g.rmdir, g.rename, g.rename, g.link,
		g.truncate, g.chmod, g.chown, g.times, g.setXattr, g.removeXattr, g.acl, g.copy, g.list, g.access, g.handleAttr, g.flags, g.chattr,
	}
	a, paths := makers[g.rng.IntN(len(makers))]()
	if a.byHandle {
		a.who = g.opener
	} else {
		a.who = g.anybody()
	}
	if a.who != nil {
		a.name += fmt.Sprintf(" as %d", a.who.uid)
	}
	umask := pick(g.rng, 0o22, 0o22, 0, 0o77)
	run := a.run
	a.run = func(w *world) string {
		unix.Umask(umask)
		defer unix.Umask(0o22)
		return run(w)
	}
	return a, paths
}

// anybody is root mostly.
func (g *generator) anybody() *user {
	return pick(g.rng, nil, nil, nil, nil, nil, nil, somebody, &user{uid: 1001, gid: 1001, groups: []int{1000}})
}

// named is an action on one path.
func named(path, what string, run func(w *world) string) (action, []string) {
	return action{name: what + " " + path, run: run}, []string{path}
}

func result(err error) string { return fmt.Sprint(err) }

func (g *generator) open() (action, []string) {
	path, slot, mode := g.leaf(), g.rng.IntN(6), g.mode()
	flags := pick(g.rng, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR, unix.O_PATH)
	for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_NOFOLLOW, unix.O_DIRECTORY, unix.O_SYNC, unix.O_DSYNC, unix.O_NOATIME} {
		if g.rng.IntN(6) == 0 {
			flags |= f
		}
	}
	if g.rng.IntN(8) == 0 {
		flags |= unix.O_NONBLOCK
	}
	a, paths := named(path, fmt.Sprintf("open %#x %o as #%d", flags, mode, slot), func(w *world) string {
		if w.fds[slot] >= 0 {
			_ = unix.Close(w.fds[slot])
			w.fds[slot] = -1
		}
		fd, err := w.open(path, flags, mode)
		if err == nil {
			w.fds[slot] = fd
		}
		return result(err)
	})
	a.byHandle = true
	return a, paths
}

// onHandle is an action on an open file, if there is one.
func (g *generator) onHandle(what string, call func(fd int) string) (action, []string) {
	slot := g.rng.IntN(6)
	return action{name: fmt.Sprintf("%s #%d", what, slot), byHandle: true, run: func(w *world) string {
		if w.fds[slot] < 0 {
			return "closed"
		}
		return call(w.fds[slot])
	}}, nil
}

func (g *generator) closeOne() (action, []string) {
	slot := g.rng.IntN(6)
	return action{name: fmt.Sprintf("close #%d", slot), run: func(w *world) string {
		if w.fds[slot] < 0 {
			return "closed"
		}
		err := unix.Close(w.fds[slot])
		w.fds[slot] = -1
		return result(err)
	}}, nil
}

func (g *generator) write() (action, []string) {
	data := []byte(strings.Repeat(string(rune('a'+g.rng.IntN(26))), 1+g.rng.IntN(6000)))
	off := g.offset()
	return g.onHandle(fmt.Sprintf("pwrite %d at %d", len(data), off), func(fd int) string {
		n, err := unix.Pwrite(fd, data, off)
		return fmt.Sprint(n, err)
	})
}

func (g *generator) append() (action, []string) {
	data := []byte(strings.Repeat("+", 1+g.rng.IntN(3000)))
	return g.onHandle(fmt.Sprintf("write %d", len(data)), func(fd int) string {
		if !isRegular(fd) {
			return ""
		}
		n, err := unix.Write(fd, data)
		return fmt.Sprint(n, err)
	})
}

func (g *generator) read() (action, []string) {
	off, size := g.offset(), 1+g.rng.IntN(20000)
	return g.onHandle(fmt.Sprintf("pread %d at %d", size, off), func(fd int) string {
		buf := make([]byte, size)
		n, err := unix.Pread(fd, buf, off)
		return fmt.Sprint(n, err, string(buf[:max(n, 0)]))
	})
}

func (g *generator) truncateHandle() (action, []string) {
	size := g.offset()
	return g.onHandle(fmt.Sprintf("ftruncate %d", size), func(fd int) string { return result(unix.Ftruncate(fd, size)) })
}

func (g *generator) allocate() (action, []string) {
	mode := pick[uint32](g.rng, 0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	off, size := g.offset(), pick[int64](g.rng, 1, 4096, 10000, 0)
	return g.onHandle(fmt.Sprintf("fallocate %#x %d+%d", mode, off, size), func(fd int) string {
		return result(unix.Fallocate(fd, mode, off, size))
	})
}

func (g *generator) seek() (action, []string) {
	off, whence := g.offset(), pick(g.rng, unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END, unix.SEEK_DATA, unix.SEEK_HOLE)
	return g.onHandle(fmt.Sprintf("seek %d %d", off, whence), func(fd int) string {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return "" // positions of a directory are its file system's own
		}
		n, err := unix.Seek(fd, off, whence)
		if whence == unix.SEEK_DATA || whence == unix.SEEK_HOLE {
			n, _ = unix.Seek(fd, 0, unix.SEEK_SET)
			if off < st.Size { // what counts as data in preallocated space, and whether there are any, depends on what happens to be cached
				err = nil
			}
		}
		return fmt.Sprint(n, err)
	})
}

func (g *generator) sync() (action, []string) {
	call := pick(g.rng, unix.Fsync, unix.Fdatasync)
	return g.onHandle("fsync", func(fd int) string {
		if isRegular(fd) {
			return result(call(fd))
		}
		return "" // the disk's time, and nothing to see
	})
}

// mapping maps a file, stores into a mapping that may have outlived its descriptor, or ends it.
func (g *generator) mapping() (action, []string) {
	slot, which, how, off := g.rng.IntN(6), g.rng.IntN(3), g.rng.IntN(4), g.rng.IntN(8192)
	flags := pick(g.rng, unix.MAP_SHARED, unix.MAP_SHARED, unix.MAP_PRIVATE)
	if g.opener != nil && how == 3 {
		how = 1 // a store counts as a write then, and may take suid away: docs/limits.md
	}
	return action{name: fmt.Sprintf("mapping %d of #%d: %d", which, slot, how), run: func(w *world) (out string) {
		debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(false)
			if recover() != nil {
				out = "fault" // beyond the end of the file
			}
		}()
		switch {
		case w.maps[which] == nil:
			if w.fds[slot] < 0 {
				return "closed"
			}
			m, err := unix.Mmap(w.fds[slot], 0, 8192, unix.PROT_READ|unix.PROT_WRITE, flags)
			w.maps[which] = m
			return result(err)
		case how == 0:
			m := w.maps[which]
			w.maps[which] = nil
			return result(unix.Munmap(m))
		case how == 1:
			return string(w.maps[which][off : off+1])
		case how == 2:
			return result(unix.Msync(w.maps[which], unix.MS_SYNC))
		}
		w.maps[which][off] = 'M'
		// Only a store to a page that has been written back moves the times, and of a file that the daemon serves only the writing back.
		return result(unix.Msync(w.maps[which], unix.MS_SYNC))
	}}, nil
}

func (g *generator) make() (action, []string) {
	path, mode := g.leaf(), g.mode()
	return named(path, fmt.Sprintf("create %o", mode), func(w *world) string {
		fd, err := unix.Openat(w.root, path, unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL|unix.O_CLOEXEC, mode)
		if err != nil {
			return result(err)
		}
		defer closingFd(fd)
		n, err := unix.Write(fd, []byte("fresh content of a file"))
		return fmt.Sprint(n, err)
	})
}

func (g *generator) makeDir() (action, []string) {
	path := pick(g.rng, "d", "e", "d/d", "d", "e", "d/d", g.path())
	mode := pick[uint32](g.rng, 0o755, 0o777, 0o1777, 0o2775, g.mode())
	return named(path, fmt.Sprintf("mkdir %o", mode), func(w *world) string { return result(unix.Mkdirat(w.root, path, mode)) })
}

func (g *generator) special() (action, []string) {
	path, kind := g.leaf(), pick[uint32](g.rng, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFREG)
	mode, dev := g.mode(), int(unix.Mkdev(1, 3))
	return named(path, fmt.Sprintf("mknod %o %o", kind, mode), func(w *world) string {
		return result(unix.Mknodat(w.root, path, kind|mode, dev))
	})
}

func (g *generator) symlink() (action, []string) {
	path, target := g.leaf(), pick(g.rng, "a", "d/a", "d/../a", "nowhere", strings.Repeat("t", 250)) // none leads out of the round's directory
	return named(path, "symlink to "+target, func(w *world) string { return result(unix.Symlinkat(target, w.root, path)) })
}

func (g *generator) nameless() (action, []string) {
	path := g.leaf()
	return named(path, "nameless", nameless(path))
}

func (g *generator) unlink() (action, []string) {
	path := g.path()
	return named(path, "unlink", func(w *world) string { return result(unix.Unlinkat(w.root, path, 0)) })
}

func (g *generator) rmdir() (action, []string) {
	path := g.path()
	return named(path, "rmdir", func(w *world) string { return result(unix.Unlinkat(w.root, path, unix.AT_REMOVEDIR)) })
}

func (g *generator) rename() (action, []string) {
	from, to := pick(g.rng, g.leaf(), g.leaf(), g.leaf(), g.path()), pick(g.rng, g.leaf(), g.leaf(), g.leaf(), g.path())
	flags := pick[uint](g.rng, 0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT)
	a, _ := named(from, fmt.Sprintf("rename %d to %s from", flags, to), func(w *world) string {
		return result(unix.Renameat2(w.root, from, w.root, to, flags))
	})
	return a, []string{from, to}
}

func (g *generator) link() (action, []string) {
	from, to, flags := g.leaf(), g.leaf(), pick(g.rng, 0, unix.AT_SYMLINK_FOLLOW)
	a, _ := named(from, fmt.Sprintf("link %d as %s of", flags, to), func(w *world) string {
		return result(unix.Linkat(w.root, from, w.root, to, flags))
	})
	return a, []string{from, to}
}

// chattr does what chattr(1) does, of regular files and directories (docs/limits.md). Flags that refuse all later operations are left out.
func (g *generator) chattr() (action, []string) {
	path, set := g.path(), pick(g.rng, 0, flagNodump, flagNoatime, flagNodump|flagNoatime)
	return named(path, fmt.Sprintf("chattr %#x", set), func(w *world) string {
		fd, err := w.open(path, unix.O_RDONLY, 0)
		if err != nil {
			return result(err)
		}
		defer closingFd(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return ""
		}
		old, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return result(err)
		}
		return fmt.Sprintf("%#x %v", old, unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(old&^(flagNodump|flagNoatime))|set))
	})
}

func (g *generator) truncate() (action, []string) {
	path, size := g.leaf(), g.offset()
	return named(path, fmt.Sprintf("truncate %d", size), func(w *world) string {
		return result(unix.Truncate(fmt.Sprintf("/proc/thread-self/fd/%d/%s", w.root, path), size))
	})
}

func (g *generator) chmod() (action, []string) {
	path, mode := g.path(), g.mode()
	return named(path, fmt.Sprintf("chmod %o", mode), func(w *world) string { return result(unix.Fchmodat(w.root, path, mode, 0)) })
}

func (g *generator) chown() (action, []string) {
	path, uid, gid := g.path(), g.owner(), g.owner()
	if uid < 0 && gid < 0 {
		uid = 1000 // chown(-1, -1): docs/limits.md
	}
	return named(path, fmt.Sprintf("chown %d:%d", uid, gid), func(w *world) string {
		return result(unix.Fchownat(w.root, path, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
	})
}

func (g *generator) times() (action, []string) {
	path := g.path()
	one := func() unix.Timespec {
		return pick(g.rng, unix.Timespec{Sec: 1000, Nsec: 5}, unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: -5, Nsec: 999})
	}
	ts := []unix.Timespec{one(), one()}
	return named(path, fmt.Sprintf("utimens %v", ts), func(w *world) string {
		err := unix.UtimesNanoAt(w.root, path, ts, unix.AT_SYMLINK_NOFOLLOW)
		var st unix.Stat_t
		_ = unix.Fstatat(w.root, path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && ts[0].Nsec < 1000 && ts[1].Nsec < 1000 {
			return fmt.Sprint(st.Atim, st.Mtim)
		}
		return result(err)
	})
}

func xattrName(rng *rand.Rand) string {
	return pick(rng, "user.one", "user.two", "trusted.three", "security.four", "security.capability", "system.posix_acl_default", "nonsense.five", "user.")
}

func (g *generator) setXattr() (action, []string) {
	path, name, flags := g.path(), xattrName(g.rng), pick(g.rng, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE)
	value := pick(g.rng, []byte("value"), []byte{}, []byte(strings.Repeat("v", 300)), fileCapability())
	return named(path, fmt.Sprintf("setxattr %s %d", name, flags), func(w *world) string {
		return result(unix.Lsetxattr(fmt.Sprintf("/proc/thread-self/fd/%d/%s", w.root, path), name, value, flags))
	})
}

func (g *generator) removeXattr() (action, []string) {
	path, name := g.path(), pick(g.rng, xattrName(g.rng), "system.posix_acl_access")
	return named(path, "removexattr "+name, func(w *world) string {
		return result(unix.Lremovexattr(fmt.Sprintf("/proc/thread-self/fd/%d/%s", w.root, path), name))
	})
}

// acl sets a POSIX ACL, in the form of the xattr: version 2, then tag, permissions and id of each entry.
func (g *generator) acl() (action, []string) {
	path, name := g.path(), pick(g.rng, "system.posix_acl_access", "system.posix_acl_default")
	perm := func() byte { return byte(g.rng.IntN(8)) }
	entry := func(tag, perm byte, id uint32) []byte {
		return []byte{tag, 0, perm, 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}
	}
	value := []byte{2, 0, 0, 0}
	value = append(value, entry(0x01, perm(), ^uint32(0))...)
	full := g.rng.IntN(4) != 0
	if full {
		value = append(value, entry(0x02, perm(), 1001)...)
	}
	value = append(value, entry(0x04, perm(), ^uint32(0))...)
	if full {
		value = append(value, entry(0x10, perm(), ^uint32(0))...)
	}
	value = append(value, entry(0x20, perm(), ^uint32(0))...)
	return named(path, fmt.Sprintf("%s %x", name, value), func(w *world) string {
		return result(unix.Setxattr(fmt.Sprintf("/proc/thread-self/fd/%d/%s", w.root, path), name, value, 0))
	})
}

func (g *generator) copy() (action, []string) {
	from, to := g.leaf(), allPaths[1+g.rng.IntN(len(allPaths)-1)]
	offIn, offOut, size := g.offset(), g.offset(), 1+g.rng.IntN(9000)
	a, _ := named(from, fmt.Sprintf("copy %d from %d to %d of %s:", size, offIn, offOut, to), func(w *world) string {
		return copyRange(w, from, to, offIn, offOut, size)
	})
	return a, []string{from, to}
}

func (g *generator) list() (action, []string) {
	path := pick(g.rng, ".", "d", "e", "d/d")
	return named(path, "list", func(w *world) string {
		fd, err := unix.Openat(w.root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return result(err)
		}
		defer closingFd(fd)
		return entries(fd)
	})
}

func (g *generator) access() (action, []string) {
	path, mode := g.path(), uint32(g.rng.IntN(8))
	return named(path, fmt.Sprintf("access %d", mode), func(w *world) string {
		return result(unix.Faccessat2(w.root, path, mode, unix.AT_EACCESS))
	})
}

// handleAttr changes an object by its descriptor, which may be all that is left of it.
func (g *generator) handleAttr() (action, []string) {
	mode, uid, how := g.mode(), pick(g.rng, 0, 1000, 1001), g.rng.IntN(4)
	return g.onHandle(fmt.Sprintf("attribute change %d %o %d", how, mode, uid), func(fd int) string {
		var err error
		switch how {
		case 0:
			err = unix.Fchmod(fd, mode)
		case 1:
			err = unix.Fchown(fd, uid, -1)
		case 2:
			err = unix.Fsetxattr(fd, "user.handle", []byte{byte(uid)}, 0)
		}
		var st unix.Stat_t
		stat := unix.Fstat(fd, &st)
		return fmt.Sprint(err, stat, st.Mode, st.Uid, st.Nlink)
	})
}

// flags sets what fcntl(2) may change of an open file.
func (g *generator) flags() (action, []string) {
	add := pick(g.rng, unix.O_APPEND, unix.O_NONBLOCK)
	return g.onHandle("fcntl", func(fd int) string {
		old, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || old&unix.O_PATH != 0 {
			return result(err)
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, old|add) // never taken away: docs/limits.md
		return fmt.Sprint(old&^unix.O_LARGEFILE, err)
	})
}

// users runs calls with another user's credentials, each on a thread of its own.
type users struct {
	t     *testing.T
	calls map[int]chan func()
	done  chan struct{}
}

func newUsers(t *testing.T) *users {
	return &users{t: t, calls: map[int]chan func(){}, done: make(chan struct{})}
}

func (u *users) as(who *user, call func()) {
	if who == nil {
		call()
		return
	}
	calls := u.calls[who.uid]
	if calls == nil {
		calls = make(chan func())
		u.calls[who.uid] = calls
		began := make(chan error)
		u.t.Context() // the thread ends with stop
		startThread(who, calls, began)
		must(u.t, <-began)
	}
	calls <- func() { call(); u.done <- struct{}{} }
	<-u.done
}

func (u *users) stop() {
	for _, calls := range u.calls {
		close(calls)
	}
}

// startThread runs calls as who until there are no more.
func startThread(who *user, calls <-chan func(), began chan<- error) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		groups := make([]uint32, len(who.groups))
		for i, id := range who.groups {
			groups[i] = uint32(id)
		}
		began <- setCredentials(who.uid, who.gid, groups)
		for call := range calls {
			call()
		}
	}()
}
