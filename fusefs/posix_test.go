package fusefs

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix runs go-fuse's conformance suite, each test in a directory of its own.
func TestPosix(t *testing.T) {
	for mode, change := range map[string]func(*childOptions){"passthrough": func(*childOptions) {}, "served": served} {
		for _, processors := range []string{"1", "2"} {
			t.Run(mode+"-"+processors, func(t *testing.T) {
				t.Setenv("GOMAXPROCS", processors)
				f := mounted(t, change)
				for name, test := range posixtest.All {
					if name == "FcntlFlockLocksFile" {
						// It wants two POSIX locks of one process to conflict, which they do on no Linux file system;
						// only a FUSE server that makes them its own locks passes. Ours leaves locks to the kernel.
						continue
					}
					t.Run(name, func(t *testing.T) {
						dir := f.path(name)
						must(t, os.Mkdir(dir, 0o755))
						test(t, dir)
					})
				}
			})
		}
	}
}
