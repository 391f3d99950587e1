package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/journal"
)

func mountLine(t *testing.T, point string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	found := ""
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+point+" ") {
			found = line
		}
	}
	return found
}

// TestMountOptions: the mount shows whose it is, and allows what its source allows.
func TestMountOptions(t *testing.T) {
	f := mounted(t)
	line := mountLine(t, f.mnt)
	if !strings.Contains(line, " - fuse.slipway projects ") || strings.Contains(line, "nosuid") || strings.Contains(line, "nodev") {
		t.Errorf("mountinfo says %q", line)
	}
	must(t, unix.Mknod(f.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	if err := os.WriteFile(f.path("null"), []byte("gone"), 0); err != nil {
		t.Errorf("write to a device node: %v", err)
	}
}

// TestInPlace mounts over the source itself. The data are reached under the same path before, during and after.
func TestInPlace(t *testing.T) {
	f := newFixture(t, inPlace)
	must(t, os.WriteFile(f.path("before"), []byte("old"), 0o644))
	f.serve()
	if got, err := os.ReadFile(f.path("before")); err != nil || string(got) != "old" {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, os.WriteFile(f.path("during"), []byte("new"), 0o644))
	must(t, os.Mkdir(f.path("dir"), 0o755))
	f.stop()
	if got, err := os.ReadFile(f.path("during")); err != nil || string(got) != "new" {
		t.Errorf("after the unmount: read %q, %v", got, err)
	}
	f.checkJournalNames("before", "during", "dir")
}

// checkJournalNames: of the names given, those but the first are in the journal, which does not know what was there before.
func (f *fixture) checkJournalNames(before string, made ...string) {
	f.t.Helper()
	names := map[string]bool{}
	for _, r := range f.records() {
		names[r.Name] = true
	}
	for _, name := range made {
		if !names[name] {
			f.t.Errorf("the journal does not name %s", name)
		}
	}
	if names[before] {
		f.t.Errorf("the journal names %s, which nobody touched", before)
	}
}

// TestUnmountFromOutside: umount(8) is a wish; Serve returns nil, and says of every handle that it is closed.
func TestUnmountFromOutside(t *testing.T) {
	f := mounted(t)
	for i := range 20 {
		must(t, os.WriteFile(f.path(fmt.Sprint(i)), []byte("x"), 0o644))
	}
	if out, err := exec.Command("umount", f.mnt).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
	f.wait()
	if n := f.openForWrite(); n != 0 {
		t.Errorf("%d opens for writing without a release after a clean unmount", n)
	}
	if line := mountLine(t, f.mnt); line != "" {
		t.Errorf("still mounted: %s", line)
	}
}

// TestUnmountRightAfterClose: the kernel drops releases that are still on their way when the mount goes. The journal has them
// all the same, because a mount that goes without force has no open files.
func TestUnmountRightAfterClose(t *testing.T) {
	f := newFixture(t)
	for range 8 {
		f.serve()
		var fds []int
		for i := range 30 {
			fd, err := unix.Open(f.path(fmt.Sprint(i)), unix.O_CREAT|unix.O_WRONLY, 0o644)
			must(t, err)
			fds = append(fds, fd)
		}
		for _, fd := range fds {
			must(t, unix.Close(fd))
		}
		must(t, unix.Unmount(f.mnt, 0))
		f.wait()
		if n := f.openForWrite(); n != 0 {
			t.Fatalf("%d opens for writing without a release", n)
		}
	}
}

// TestUnmountWaits: at SIGTERM with a file open, the mount goes when the file is closed.
func TestUnmountWaits(t *testing.T) {
	f := mounted(t)
	file, err := os.Create(f.path("open"))
	must(t, err)
	must(t, f.cmd.Process.Signal(unix.SIGTERM))
	poll(t, "some attempts to unmount", func() bool { // meanwhile the file can be used
		_, err := file.WriteString("x")
		must(t, err)
		info, err := file.Stat()
		must(t, err)
		return info.Size() > 50
	})
	must(t, file.Close())
	f.wait()
}

// TestUnmountDetaches: those who do not go lose the mount.
func TestUnmountDetaches(t *testing.T) {
	m := &mount{point: t.TempDir(), tree: -1}
	must(t, unix.Mount("none", m.point, "tmpfs", 0, ""))
	var err error
	m.id, err = mountIDAt(m.point)
	must(t, err)
	file, err := os.Create(filepath.Join(m.point, "open"))
	must(t, err)
	defer closing(file)
	must(t, m.unmount(context.Background(), 120*time.Millisecond))
	if !m.forced || m.attached() {
		t.Errorf("forced %v, attached %v", m.forced, m.attached())
	}
}

// TestUnmountLeavesOthers: what somebody mounted over ours is not ours to take away.
func TestUnmountLeavesOthers(t *testing.T) {
	m := &mount{point: t.TempDir(), tree: -1, id: 1}
	must(t, unix.Mount("none", m.point, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(m.point, 0)) }()
	if err := m.unmountOnce(0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmounted another's mount: %v", err)
	}
	if err := m.unmount(context.Background(), time.Millisecond); !errors.Is(err, errStays) {
		t.Errorf("gave up with %v", err)
	}
}

// TestDeadMountIsReplacedBeneath kills the serving process, again and again, and starts the next. At no moment does the path
// lead to the bare directory: someone who writes there would write beside the volume.
func TestDeadMountIsReplacedBeneath(t *testing.T) {
	f := newFixture(t)
	must(t, os.WriteFile(filepath.Join(f.mnt, "bare"), nil, 0o644)) // the directory below shows itself by this
	must(t, os.WriteFile(f.below("volume"), nil, 0o644))
	f.serve()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	looks := 0
	g.Go(func() error {
		for ctx.Err() == nil {
			looks++
			_, err := os.Lstat(f.path("bare"))
			if err == nil {
				return errors.New("the bare directory showed")
			}
		}
		return nil
	})
	for range 5 {
		f.kill()
		if _, err := os.ReadDir(f.mnt); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("a dead mount says %v", err)
		}
		f.serve()
		if _, err := os.Lstat(f.path("volume")); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
	stop()
	must(t, g.Wait())
	if looks < 100 {
		t.Errorf("looked only %d times", looks)
	}
	f.stop()
	if line := mountLine(t, f.mnt); line != "" {
		t.Errorf("a mount is left behind: %s", line)
	}
	starts := 0
	for _, r := range f.records() {
		if r.Op == journal.OpStart {
			starts++
		}
	}
	if starts != 6 {
		t.Errorf("%d starts in the journal, want 6", starts)
	}
}

// TestGhostWriter: an application goes on through a kill and a restart; what it wrote is there, and the journal of the first
// life says that it had the file open (V2).
func TestGhostWriter(t *testing.T) {
	f := mounted(t)
	file, err := os.Create(f.path("ghost"))
	must(t, err)
	_, err = file.WriteString("once ") // the first write asks for capabilities, and a dead mount has no answer
	must(t, err)
	f.kill()
	if _, err := file.WriteString("written to a dead mount"); err != nil {
		t.Fatalf("passthrough does not outlive the process: %v", err)
	}
	f.serve()
	if got, err := os.ReadFile(f.path("ghost")); err != nil || string(got) != "once written to a dead mount" {
		t.Errorf("read %q, %v", got, err)
	}
	if f.openForWrite() != 1 {
		t.Error("the journal does not tell of the ghost")
	}
	_ = file.Close() // of a mount that is gone: it may say so
}

// TestOldKernel mounts by mount(2), also over a dead mount, which the unmount takes away as well.
func TestOldKernel(t *testing.T) {
	f := mounted(t, func(o *childOptions) { o.Old = true })
	must(t, os.WriteFile(f.path("file"), []byte("x"), 0o644))
	f.kill()
	f.serve()
	if got, err := os.ReadFile(f.path("file")); err != nil || string(got) != "x" {
		t.Errorf("read %q, %v", got, err)
	}
	f.stop()
	if line := mountLine(t, f.mnt); line != "" {
		t.Errorf("a mount is left behind: %s", line)
	}
}

// TestMountRefused: what cannot be a mount point is said to be none.
func TestMountRefused(t *testing.T) {
	f := mounted(t)
	source, err := os.Open(f.source)
	must(t, err)
	defer closing(source)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for point, want := range map[string]error{f.mnt: ErrMounted, file: unix.ENOTDIR, file + "-none": unix.ENOENT} {
		err := Serve(context.Background(), Options{Source: source, MountPoint: point, Volume: "projects"})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), point) {
			t.Errorf("mount at %s: %v, want %v", point, err, want)
		}
	}
}

// TestAbortedConnection: a connection aborted through fusectl is a fault, and the dead mount stays.
func TestAbortedConnection(t *testing.T) {
	f := mounted(t)
	var st unix.Stat_t
	must(t, unix.Stat(f.mnt, &st))
	ctl := t.TempDir()
	must(t, unix.Mount("none", ctl, "fusectl", 0, ""))
	defer func() { must(t, unix.Unmount(ctl, 0)) }()
	must(t, os.WriteFile(filepath.Join(ctl, fmt.Sprint(unix.Minor(st.Dev)), "abort"), []byte("1"), 0))
	f.stopped = true
	if err := f.cmd.Wait(); err == nil || !strings.Contains(f.stderr.String(), "aborted") {
		t.Errorf("child: %v, %s", err, f.stderr.String())
	}
	if dead, err := inspect(f.mnt); !dead.there || err != nil {
		t.Errorf("the mount point is dead: %v, %v", dead, err)
	}
	must(t, unix.Unmount(f.mnt, unix.MNT_DETACH))
}

// TestTopmost reads mount points with blanks and others in them.
func TestTopmost(t *testing.T) {
	table := "22 27 0:21 / /a\\040b rw shared:1 - ext4 /dev/x rw\n23 27 0:22 / /a\\040b rw - fuse.slipway projects rw\n24 27 0:6 / /c rw - tmpfs none rw\nnonsense\n"
	for point, want := range map[string]string{"/a b": "fuse.slipway", "/c": "tmpfs", "/a": ""} {
		if got, _ := topmost(table, point); got != want {
			t.Errorf("topmost(%q) = %q, want %q", point, got, want)
		}
	}
}

// TestManyFiles walks more files than the process may have open: it makes the kernel forget some (a node is a descriptor).
func TestManyFiles(t *testing.T) {
	f := newFixture(t, func(o *childOptions) { o.Files = 250 })
	for i := range 4000 {
		dir := f.below(fmt.Sprint(i % 40))
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644))
	}
	f.serve()
	var g errgroup.Group
	for range 4 { // together faster than the kernel forgets
		g.Go(func() error {
			n := 0
			err := filepath.Walk(f.mnt, func(_ string, info os.FileInfo, err error) error {
				if err == nil && !info.IsDir() {
					n++
				}
				return err
			})
			if err == nil && n != 4000 {
				err = fmt.Errorf("saw %d files of 4000", n)
			}
			return err
		})
	}
	must(t, g.Wait())
}
