package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const threadEnv = "FUSEFS_TEST_THREAD"

func init() {
	if os.Getenv(threadEnv) != "" {
		runtime.LockOSThread() // the main goroutine stays on the first thread
	}
}

// checkFirstThread runs as a process of its own. It does on the first thread what costs a thread its parent-death signal.
func checkFirstThread() error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("not on the first thread")
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	creds, err := processCredentials()
	if err != nil {
		return err
	}
	ran := 0
	elsewhere := func() error {
		ran++
		if unix.Gettid() == unix.Getpid() {
			return errors.New("credentials changed on the first thread")
		}
		return nil
	}
	err = errors.Join(creds.asCaller(fuse.Owner{Uid: 1000, Gid: 1000}, elsewhere), creds.withoutFsetid(fuse.Caller{}, elsewhere))
	if err != nil || ran != 2 {
		return fmt.Errorf("ran %d times: %w", ran, err)
	}
	var signal uintptr
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0, 0, 0); err != nil {
		return err
	}
	if signal != uintptr(unix.SIGTERM) {
		return fmt.Errorf("the parent-death signal is %d now", signal)
	}
	return nil
}

// TestParentDeathSignalSurvives: a mount process must end with its supervisor, whoever creates files meanwhile.
func TestParentDeathSignalSurvives(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), threadEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCredentialsAreRestored: a call as somebody else leaves no trace on its thread, and what it creates is somebody's.
func TestCredentialsAreRestored(t *testing.T) {
	creds, err := processCredentials()
	must(t, err)
	path := filepath.Join(t.TempDir(), "file")
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := creds.asCaller(fuse.Owner{Uid: 1000, Gid: 1001}, func() error {
			return unix.Mknod(path, unix.S_IFREG|0o600, 0)
		})
		if err != nil {
			return err
		}
		if err := creds.withoutFsetid(fuse.Caller{Owner: fuse.Owner{Gid: 1001}, Pid: uint32(os.Getpid())}, func() error { return nil }); err != nil {
			return err
		}
		if err := creds.asProcess(fuse.Caller{Owner: fuse.Owner{Uid: 1000, Gid: 1001}, Pid: 0}, func() error { // a process that is gone has no capabilities
			return unix.Mknod(filepath.Join(filepath.Dir(path), "refused"), unix.S_IFREG|0o600, 0)
		}); !errors.Is(err, unix.EACCES) {
			return errors.Join(errors.New("not refused: a user made a file in root's directory"), err)
		}
		now, err := processCredentials()
		if err != nil {
			return err
		}
		uid, _ := unix.SetfsuidRetUid(-1)
		gid, _ := unix.SetfsgidRetGid(-1)
		if !reflect.DeepEqual(now, creds) || uid != 0 || gid != 0 {
			return fmt.Errorf("left behind: %+v, fsuid %d, fsgid %d", now, uid, gid)
		}
		return nil
	})
	must(t, g.Wait())
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("created for %d:%d", st.Uid, st.Gid)
	}
}

// TestPrivilegesOf looks at a process that may keep suid and at one that may not.
func TestPrivilegesOf(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !privilegesOf(uint32(unix.Gettid())).has(unix.CAP_FSETID) {
		t.Error("root may not")
	}
	if privilegesOf(0).has(unix.CAP_FSETID) || privilegesOf(1<<31-1).has(unix.CAP_FSETID) {
		t.Error("nobody may")
	}
	asUser(t, 1000, 1000, []int{7, 8}, func() {
		if p := privilegesOf(uint32(unix.Gettid())); p.has(unix.CAP_FSETID) || !slices.Equal(p.groups, []uint32{7, 8}) {
			t.Errorf("a user has %+v", p)
		}
	})
}
