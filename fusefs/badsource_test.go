package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/loopdisk"
)

// on mounts a volume whose source lies on a disk.
func on(t *testing.T, disk string) *fixture {
	t.Helper()
	must(t, os.Chmod(disk, 0o755))
	return mounted(t, func(o *childOptions) { o.Source, o.Mount = filepath.Join(disk, "source"), filepath.Join(disk, "mnt") })
}

// TestSourceFull: the disk's ENOSPC arrives by every way of writing, what was written is there, and with room everything goes on.
func TestSourceFull(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 16<<20, "")
	f := on(t, disk)
	must(t, os.WriteFile(f.path("kept"), []byte("kept"), 0o644))
	file, err := os.Create(f.path("big"))
	must(t, err)
	defer closing(file)
	block := bytes.Repeat([]byte{'b'}, 64<<10)
	written := 0
	for err == nil {
		var n int
		n, err = file.Write(block)
		written += n
	}
	if !errors.Is(err, unix.ENOSPC) || written < 4<<20 {
		t.Fatalf("%d bytes, then %v", written, err)
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
	}
	full("fallocate", unix.Fallocate(int(file.Fd()), 0, 0, 64<<20))
	full("a new file", func() error {
		for i := range 100_000 { // the inodes last longer than the blocks
			if err := os.Mkdir(f.path(fmt.Sprint("d", i)), 0o755); err != nil {
				return err
			}
		}
		return nil
	}())
	shown, err := file.Stat()
	must(t, err)
	below, err := os.Stat(f.below("big"))
	must(t, err)
	if shown.Size() != below.Size() || shown.Size() < int64(written) { // a failed fallocate(2) may have made it longer
		t.Errorf("%d bytes, %d below, %d written", shown.Size(), below.Size(), written)
	}
	if got, err := os.ReadFile(f.path("kept")); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, os.Truncate(f.path("big"), 0))
	must(t, os.WriteFile(f.path("after"), block, 0o644))
	if got, err := os.ReadFile(f.below("after")); err != nil || !bytes.Equal(got, block) {
		t.Errorf("after: %d bytes, %v", len(got), err)
	}
}

// TestSourceReadOnly: a source that turns read-only while it is mounted, as ext4 does after an error, refuses as by itself and goes on being read.
func TestSourceReadOnly(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 64<<20, "")
	f := on(t, disk)
	must(t, os.WriteFile(f.path("file"), []byte("content"), 0o644))
	for { // the release of the file is on its way
		if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); !errors.Is(err, unix.EBUSY) {
			must(t, err)
			break
		}
	}
	defer func() { must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, "")) }()
	_, err := os.OpenFile(f.path("file"), os.O_WRONLY, 0)
	for what, err := range map[string]error{
		"open": err, "create": os.WriteFile(f.path("new"), nil, 0o644), "mkdir": os.Mkdir(f.path("dir"), 0o755), "remove": os.Remove(f.path("file")),
		"rename": unix.Rename(f.path("file"), f.path("other")), "chmod": os.Chmod(f.path("file"), 0o600), "truncate": os.Truncate(f.path("file"), 0),
		"setxattr": unix.Setxattr(f.path("file"), "user.x", nil, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := os.ReadFile(f.path("file")); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSourceError: a disk that answers EIO is passed on as that, by reads and by fsync, and nothing hangs.
func TestSourceError(t *testing.T) {
	disk := loopdisk.New(t, "ext4", 64<<20, "errors=continue")
	f := on(t, disk)
	block := bytes.Repeat([]byte{'b'}, 1<<20)
	must(t, os.WriteFile(f.path("lost"), block, 0o644))
	must(t, os.WriteFile(f.path("open"), block, 0o644))
	held, err := os.OpenFile(f.path("open"), os.O_RDWR, 0)
	must(t, err)
	defer closing(held)
	unix.Sync()
	cutDevice(t, disk)
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0))
	if _, err := os.ReadFile(f.path("lost")); !errors.Is(err, unix.EIO) {
		t.Errorf("read: %v", err)
	}
	_, err = held.WriteAt(block, 0)
	if err = errors.Join(err, held.Sync()); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS) {
		t.Errorf("write and fsync: %v", err)
	}
	if _, err := os.ReadDir(f.mnt); err != nil && !errors.Is(err, unix.EIO) {
		t.Errorf("list: %v", err)
	}
}

// cutDevice lets the loop device below a file system end after its first blocks: reads and writes beyond are errors.
func cutDevice(t *testing.T, dir string) {
	t.Helper()
	say := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).Output()
		must(t, err)
		return string(bytes.TrimSpace(out))
	}
	device := say("findmnt", "-n", "-o", "SOURCE", dir)
	must(t, os.Truncate(say("losetup", "-n", "-O", "BACK-FILE", device), 64<<10))
	say("losetup", "-c", device)
}

// TestDifferentialSignals: operations come out the same while every thread of the application is hit by signals all the time.
func TestDifferentialSignals(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	defer signal.Stop(got)
	stop := make(chan struct{})
	var sender errgroup.Group
	sent := 0
	sender.Go(func() error {
		for {
			tasks, err := os.ReadDir("/proc/self/task")
			if err != nil {
				return err
			}
			for _, task := range tasks {
				select {
				case <-stop:
					return nil
				default:
				}
				id, err := strconv.Atoi(task.Name())
				if err == nil && unix.Tgkill(os.Getpid(), id, syscall.SIGUSR1) == nil {
					sent++
				}
			}
		}
	})
	disk := loopdisk.New(t, "ext4", 1<<30, "data=writeback,commit=600")
	must(t, os.Chmod(disk, 0o755))
	p := newPair(t, disk, func(*childOptions) {})
	p.random(rand.New(rand.NewPCG(seed, 0)), *operations/50)
	close(stop)
	must(t, sender.Wait())
	if sent < p.done {
		t.Errorf("%d signals for %d operations", sent, p.done)
	}
}
