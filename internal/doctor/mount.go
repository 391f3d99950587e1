package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Mount returns the command of a mount process: it mounts the volume of a configuration over its mount point, gets the source directory, and writes a line
// to ready when the mount can be used. SIGTERM ends it.
type Mount func(ctx context.Context, config string, source, ready *os.File) *exec.Cmd

// passedWithin is how long a write may take that the kernel passes through.
const passedWithin = time.Second

// tryMount mounts the tree of the round trip, writes a file there, and looks whether the kernel passes data through to the source's file system.
func (t *trip) tryMount(ctx context.Context, mount Mount, source *os.File) {
	passed, err := t.mounted(ctx, mount, source)
	switch {
	case err != nil:
		t.fault("mount", "see kernel and privileges above, and /dev/fuse in a container", "a mount was tried: %v", err)
	case !passed:
		t.warn("mount", "Linux 6.9 or newer, root, and a file system that is not stacked on another",
			"mounted, written and read; every read and write goes through the daemon: there is no passthrough to the file system of %s", t.where)
	default:
		t.ok("mount", "mounted, written and read; the kernel passes data through to the file system of %s", t.where)
	}
}

// mounted runs the mount process, and tells whether data went by the kernel's way alone.
func (t *trip) mounted(ctx context.Context, mount Mount, source *os.File) (passed bool, err error) {
	runtime.LockOSThread() // the parent-death signal is about the thread
	defer runtime.UnlockOSThread()
	ready, says, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer func() { _ = ready.Close() }()
	cmd := mount(ctx, filepath.Join(t.work, "volume.yml"), source, says)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return false, errors.Join(err, says.Close())
	}
	_ = says.Close()
	if _, err = bufio.NewReader(ready).ReadString('\n'); err == nil {
		passed, err = tryFile(ctx, cmd.Process, filepath.Join(t.work, "mnt", "written through the mount"))
	}
	_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended by itself
	if ended := cmd.Wait(); ended != nil {
		lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
		return false, fmt.Errorf("%w: %s", ended, lines[len(lines)-1])
	}
	return passed, err
}

// tryFile writes through the mount and reads back; then once more while the mount process is stopped, which only passthrough survives.
func tryFile(ctx context.Context, process *os.Process, path string) (passed bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := writeAndRead(f, []byte("the daemon runs")); err != nil {
		return false, err
	}
	if err := stopWhole(process); err != nil {
		return false, err
	}
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		return writeAndRead(f, []byte("the daemon stands"))
	})
	late := time.NewTimer(passedWithin)
	defer late.Stop()
	select {
	case <-done:
		passed = true
	case <-late.C:
	case <-ctx.Done():
	}
	return passed, errors.Join(process.Signal(unix.SIGCONT), g.Wait())
}

// stopWhole stops a child and returns when all of its threads stand: until then one of them might still answer.
func stopWhole(process *os.Process) error {
	if err := process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, process.Pid, &unix.Siginfo{}, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func writeAndRead(f *os.File, data []byte) error {
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("read %q where %q was written", got, data)
	}
	return nil
}
