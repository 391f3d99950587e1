package fusefs

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// credentials are those the process started with; single threads deviate from them for the length of one call.
type credentials struct {
	uid  int
	caps [2]unix.CapUserData
}

func processCredentials() (*credentials, error) {
	c := &credentials{uid: unix.Geteuid()}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &c.caps[0]); err != nil {
		return nil, fmt.Errorf("read the capabilities of the process: %w", err)
	}
	return c, nil
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

// withoutFsetid runs call without CAP_FSETID and in group gid, so that the file system below itself takes suid and sgid from
// what is written to, by its own rules, as it does for an unprivileged user. The user's further groups are not known: sgid
// without group execution is taken where one of those would have kept it.
func (c *credentials) withoutFsetid(gid uint32, call func() error) error {
	if c.uid != 0 {
		return call()
	}
	return c.onThread(func() error {
		less := c.caps
		less[0].Effective &^= 1 << unix.CAP_FSETID
		if err := c.capset(less); err != nil {
			return err
		}
		_, _ = unix.SetfsgidRetGid(int(gid))
		defer func() {
			_, _ = unix.SetfsgidRetGid(0)
			_ = c.capset(c.caps)
		}()
		return call()
	})
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

// mayKeepSetID tells whether a process has CAP_FSETID; one that is gone or unknown has not.
func mayKeepSetID(pid uint32) bool {
	if pid == 0 {
		return false
	}
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&(1<<unix.CAP_FSETID) != 0
		}
	}
	return false
}
