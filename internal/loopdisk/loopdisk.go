// Package loopdisk makes file systems for tests, since the host's temporary directory may lie on anything.
package loopdisk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// New makes a file system of a kind (ext4, xfs, btrfs, tmpfs) and some bytes in an image of its own and mounts it until the test ends.
// options are mount(8)'s, or "".
func New(t testing.TB, kind string, bytes int64, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if options == "" {
		options = "rw"
	}
	if kind == "tmpfs" {
		run(t, "mount", "-t", "tmpfs", "-o", options, "slipway-test", dir)
	} else {
		image := filepath.Join(t.TempDir(), kind)
		f, err := os.Create(image)
		if err == nil {
			err = errors.Join(f.Truncate(bytes), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		run(t, "mkfs."+kind, "-q", image)
		run(t, "mount", "-o", "loop,"+options, image, dir)
	}
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s (make deps installs what is missing)", args, err, out)
	}
}
