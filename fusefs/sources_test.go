package fusefs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/loopdisk"
)

// TestDifferentialElsewhere: the differential test, shorter, over other file systems than ext4: also one without extended attributes and ACLs, an
// overlay, and another FUSE, which is a mount of our own.
func TestDifferentialElsewhere(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	// All of them stay until the end: source.Stat remembers file systems by device numbers, and those of mounts that are gone come again.
	at := func(kind, source, options string) string {
		dir := t.TempDir()
		must(t, unix.Mount(source, dir, kind, 0, options))
		t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
		return dir
	}
	// Left out: setting ACLs where there are none (docs/limits.md), and sgid without group execution over two mounts.
	places := []struct {
		name  string
		make  func() string
		ticks bool
		not   string // operations left out
	}{
		{"xfs", func() string { return loopdisk.New(t, "xfs", 1<<30, "") }, false, ""},
		{"btrfs", func() string { return loopdisk.New(t, "btrfs", 1<<30, "") }, false, ""},
		{"tmpfs", func() string { return loopdisk.New(t, "tmpfs", 1<<30, "") }, true, ""},
		{"ramfs", func() string { return at("ramfs", "none", "") }, true, "posix_acl"},
		{"overlay", func() string {
			disk := loopdisk.New(t, "ext4", 1<<30, "data=writeback,commit=600")
			var dirs []string
			for _, d := range []string{"lower", "upper", "work"} {
				must(t, os.Mkdir(filepath.Join(disk, d), 0o755))
				dirs = append(dirs, d+"dir="+filepath.Join(disk, d))
			}
			return at("overlay", "none", strings.Join(dirs, ","))
		}, false, ""},
		{"fuse", func() string { return mounted(t).mnt }, false, " 2644"},
	}
	for i, place := range places {
		t.Run(place.name, func(t *testing.T) {
			disk := place.make()
			must(t, os.Chmod(disk, 0o755))
			p := newPair(t, disk, func(*childOptions) {})
			p.leaveOut = place.not
			p.native.ticks, p.mount.ticks = place.ticks, place.ticks
			p.random(rand.New(rand.NewPCG(seed, uint64(i))), *operations/50)
		})
	}
}
