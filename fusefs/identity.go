package fusefs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// credentials are those the process started with; single threads deviate from them for the length of one call.
type credentials struct {
	uid    int
	groups []uint32
	caps   [2]unix.CapUserData
}

func processCredentials() (*credentials, error) {
	c := &credentials{uid: unix.Geteuid()}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &c.caps[0]); err != nil {
		return nil, fmt.Errorf("read the capabilities of the process: %w", err)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("read the groups of the process: %w", err)
	}
	for _, g := range groups {
		c.groups = append(c.groups, uint32(g))
	}
	return c, nil
}

// has tells whether the process has a capability, CAP_*.
func (c *credentials) has(capability int) bool {
	return c.caps[capability/32].Effective&(1<<(capability%32)) != 0
}

// asCaller runs call so that what it creates belongs to owner from the first moment: made as root and given away afterwards
// it would for a moment belong to somebody else. The capabilities stay, because the kernel has checked the permissions above
// (default_permissions), with groups that are not known here; so has it taken sgid from the mode where the caller may not
// set it.
func (c *credentials) asCaller(owner fuse.Owner, call func() error) error {
	if c.uid != 0 || (owner.Uid == 0 && owner.Gid == 0) {
		return call()
	}
	return c.onThread(func() error {
		_, _ = unix.SetfsgidRetGid(int(owner.Gid))
		_, _ = unix.SetfsuidRetUid(int(owner.Uid))
		defer func() {
			_, _ = unix.SetfsuidRetUid(0)
			_, _ = unix.SetfsgidRetGid(0)
		}()
		// Leaving uid 0 took the capabilities that concern files.
		if err := c.capset(c.caps); err != nil {
			return err
		}
		return call()
	})
}

// asProcess runs call as who would have: its user, groups and no capabilities beyond its own.
func (c *credentials) asProcess(who fuse.Caller, call func() error) error {
	if c.uid != 0 {
		return call()
	}
	its := privilegesOf(who.Pid)
	return c.onThread(func() error {
		less := c.caps
		less[0].Effective &= uint32(its.caps)
		less[1].Effective &= uint32(its.caps >> 32)
		defer func() {
			_, _ = unix.SetfsuidRetUid(0)
			_, _ = unix.SetfsgidRetGid(0)
			_ = errors.Join(c.capset(c.caps), setgroups(c.groups)) // in this order: changing groups takes a capability
		}()
		if err := setgroups(its.groups); err != nil {
			return err
		}
		_, _ = unix.SetfsgidRetGid(int(who.Gid))
		_, _ = unix.SetfsuidRetUid(int(who.Uid))
		if err := c.capset(less); err != nil {
			return err
		}
		return call()
	})
}

// withoutFsetid runs call without CAP_FSETID and in the groups of who, so that the file system below itself takes suid and sgid from what
// is written to, by its own rules, as it does for an unprivileged user.
func (c *credentials) withoutFsetid(who fuse.Caller, call func() error) error {
	if c.uid != 0 {
		return call()
	}
	groups := privilegesOf(who.Pid).groups
	return c.onThread(func() error {
		less := c.caps
		less[0].Effective &^= 1 << unix.CAP_FSETID
		defer func() {
			_, _ = unix.SetfsgidRetGid(0)
			_ = errors.Join(setgroups(c.groups), c.capset(c.caps))
		}()
		if err := errors.Join(setgroups(groups), c.capset(less)); err != nil {
			return err
		}
		_, _ = unix.SetfsgidRetGid(int(who.Gid))
		return call()
	})
}

// setgroups changes the groups of the calling thread alone; the wrapper of package syscall changes all threads.
func setgroups(groups []uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if errno != 0 {
		return fmt.Errorf("change the groups of a thread: %w", errno)
	}
	return nil
}

func (c *credentials) capset(caps [2]unix.CapUserData) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("change the capabilities of a thread: %w", err)
	}
	return nil
}

// onThread runs call on a thread that runs nothing else meanwhile and is not the process's first one: a change of credentials
// makes the kernel drop a thread's parent-death signal, and that signal is what ends this process with its supervisor.
func (c *credentials) onThread(call func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() != unix.Getpid() {
		return call()
	}
	var elsewhere errgroup.Group // this goroutine keeps the first thread while it waits
	elsewhere.Go(func() error { return c.onThread(call) })
	return elsewhere.Wait()
}

// privileges are what counts of a process beside its user and group.
type privileges struct {
	caps   uint64 // effective, a bit for each CAP_*
	groups []uint32
}

func (p privileges) has(capability int) bool { return p.caps&(1<<capability) != 0 }

// privilegesOf asks for those of a process or thread; one that is gone or unknown has none.
func privilegesOf(pid uint32) (p privileges) {
	if pid == 0 {
		return p
	}
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return p
	}
	for line := range strings.Lines(string(text)) {
		if list, ok := strings.CutPrefix(line, "Groups:"); ok {
			for _, g := range strings.Fields(list) {
				if id, err := strconv.ParseUint(g, 10, 32); err == nil {
					p.groups = append(p.groups, uint32(id))
				}
			}
		}
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			p.caps, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64) // none if it is no number
		}
	}
	return p
}
