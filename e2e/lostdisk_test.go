//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// losingDisk mounts an image. From when it loses what it holds, a read that the page cache cannot answer gives zeros, or EIO where the
// loop device goes past the page cache of the image (losetup(8), --direct-io).
func losingDisk(t *testing.T, directIO bool) (dir string, lose func()) {
	t.Helper()
	dir, image := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "image")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("mkfs.ext4", "-q", image)
	device := run("losetup", "--find", "--show", fmt.Sprintf("--direct-io=%s", map[bool]string{true: "on", false: "off"}[directIO]), image)
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
		must(t, os.Truncate(image, 4096))
		for _, f := range files {
			must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
	}
}

// TestLostDisk: the disk under the owner's own store loses what it holds in the middle of a big batch. Delivery goes on at once, from the
// peers' copies, and whoever asks is told.
func TestLostDisk(t *testing.T) {
	for _, row := range []struct {
		name     string
		directIO bool
		says     string
	}{
		{"reads as zeros", false, "shard is corrupt"},
		{"answers EIO", true, "input/output error"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			goesOnWithoutItsDisk(t, row.directIO, row.says)
		})
	}
}

func goesOnWithoutItsDisk(t *testing.T, directIO bool, says string) {
	t.Helper()
	disk, lose := losingDisk(t, directIO)
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
