package fusefs

import (
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// TestSlowAnswer: while one answer takes long (the stage of a file, 50 ms), others are given.
func TestSlowAnswer(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.path("slow"), nil, 0o644))
	var waiting atomic.Bool
	var g errgroup.Group
	done := 0
	for round := 0; round < 40 && done < 5; round++ { // a busy machine may make nothing in 50 ms
		waiting.Store(true)
		g.Go(func() error {
			_, _ = unix.Getxattr(f.path("slow"), stageXattr, make([]byte, 100))
			waiting.Store(false)
			return nil
		})
		for waiting.Load() {
			must(t, os.Mkdir(f.path("dir"), 0o755))
			must(t, os.Remove(f.path("dir")))
			if waiting.Load() {
				done++
			}
		}
		must(t, g.Wait())
	}
	if done < 5 {
		t.Errorf("%d directories were made and removed while answers took 50 ms", done)
	}
}

// TestManySlowAnswers: as many answers as people wait for take long at once.
func TestManySlowAnswers(t *testing.T) {
	f := mounted(t)
	must(t, os.WriteFile(f.path("slow"), nil, 0o644))
	var g errgroup.Group
	for range 20 {
		g.Go(func() error {
			_, err := unix.Getxattr(f.path("slow"), stageXattr, make([]byte, 100))
			if err != unix.ENODATA {
				return err
			}
			return nil
		})
	}
	must(t, g.Wait())
}
