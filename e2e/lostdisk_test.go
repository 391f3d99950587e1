//go:build cluster

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const imageSize = 512 << 20

// losingDisk mounts an image. From when it loses what it holds, a read that the page cache cannot answer gives what the image gives then.
func losingDisk(t *testing.T, loseImage func(image string) error) (dir string, lose func()) {
	t.Helper()
	dir, image := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "image")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, imageSize))
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("mkfs.ext4", "-q", image)
	device := run("losetup", "--find", "--show", "--direct-io=on", image)
	t.Cleanup(func() { run("losetup", "--detach", device) })
	run("mount", device, dir)
	t.Cleanup(func() { run("umount", dir) })
	return dir, func() {
		shards, err := filepath.Glob(filepath.Join(dir, "spool", "*", "shards", "*", "*.shard"))
		must(t, err)
		var files []*os.File
		for _, path := range shards {
			f, err := os.Open(path)
			must(t, err)
			defer func() { _ = f.Close() }() // only read
			files = append(files, f)
		}
		must(t, loseImage(image))
		for _, f := range files {
			must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
	}
}

// TestLostDisk: the disk under the owner's own store loses what it holds in the middle of a big batch. Delivery goes on at once, from the
// peers' copies, and whoever asks is told.
func TestLostDisk(t *testing.T) {
	for _, row := range []struct {
		name string
		lose func(image string) error
		says string
	}{
		{"reads as zeros", punchAll, "shard is corrupt"},
		{"answers EIO", cutOff, "input/output error"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			goesOnWithoutItsDisk(t, row.lose, row.says)
		})
	}
}

// punchAll leaves a hole in place of all that an image holds.
func punchAll(image string) error {
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, imageSize-4096), f.Close())
}

// cutOff ends an image, and the loop device over it, so early that whatever lies on it is beyond the end.
func cutOff(image string) error {
	if err := os.Truncate(image, 4096); err != nil {
		return err
	}
	devices, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", image).Output()
	if err != nil {
		return err
	}
	return exec.Command("losetup", "--set-capacity", strings.TrimSpace(string(devices))).Run()
}

func goesOnWithoutItsDisk(t *testing.T, loseImage func(image string) error, says string) {
	t.Helper()
	disk, lose := losingDisk(t, loseImage)
	c := takeoverRigWith(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"},
		primary: fmt.Sprintf("spool: {dir: %s, cap: 256MiB}", filepath.Join(disk, "spool"))}})
	want := c.acked("bravo", "bravo")
	lose()
	c.slow("cache1", cacheIn)
	last, longest, had := time.Now(), time.Duration(0), c.shards("cache1")
	c.eventually(60*time.Second, "the batch on cache1", func() error {
		if now := c.shards("cache1"); now != had {
			longest, last, had = max(longest, time.Since(last)), time.Now(), now
		}
		if got := c.acked("cache1", "cache1"); got < want {
			return fmt.Errorf("cache1 acknowledges batch %d", got)
		}
		return nil
	})
	log := c.primary.log.String()
	if !strings.Contains(log, says) {
		t.Fatalf("no shard failed to be read with %q: nothing was shown\n%s", says, tail(log, 20))
	}
	t.Logf("the longest time between two shards was %.2f s, claims: %v", longest.Seconds(), c.claims())
	if limit := 2*time.Second + time.Duration(float64(8<<20)/float64(cacheIn)*float64(time.Second))*inFlight; longest > limit {
		t.Errorf("delivery stood still for %v, want %v at most", longest, limit)
	}
	c.eventually(10*time.Second, "the owner's status to tell of it", func() error {
		row := c.status(c.config)
		if !strings.Contains(fmt.Sprint(row["warnings"]), "damaged") {
			return fmt.Errorf("it says %v", row)
		}
		return nil
	})
}
