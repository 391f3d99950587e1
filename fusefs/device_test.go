package fusefs

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
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
			_, _ = unix.Getxattr(f.path("slow"), ownXattrs+"stage", make([]byte, 100))
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
			_, err := unix.Getxattr(f.path("slow"), ownXattrs+"stage", make([]byte, 100))
			if err != unix.ENODATA {
				return err
			}
			return nil
		})
	}
	must(t, g.Wait())
}

// TestRequestsOfTar: a file that is unpacked as tar does it costs nine requests, which is what the protocol allows: LOOKUP, the directory's
// attributes, CREATE, an extended attribute each for the write and the change of owner, three SETATTR, RELEASE.
func TestRequestsOfTar(t *testing.T) {
	const files = 200
	count := func(files int) (requests int) {
		f := mounted(t)
		for i := range files {
			file, err := os.OpenFile(f.path(fmt.Sprint(i)), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NONBLOCK, 0o600)
			must(t, err)
			fd := int(file.Fd())
			_, err = unix.Write(fd, []byte("content"))
			must(t, err)
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1e9}}, 0))
			must(t, unix.Fchown(fd, 0, 0))
			must(t, unix.Fchmod(fd, 0o644))
			must(t, file.Close())
		}
		f.stop()
		said := regexp.MustCompile(`msg=unmounted .*requests=(\d+)`).FindStringSubmatch(f.stderr.String())
		if said == nil {
			t.Fatalf("the log says nothing of requests:\n%s", f.stderr.String())
		}
		requests, err := strconv.Atoi(said[1])
		must(t, err)
		return requests
	}
	if got := count(files) - count(0); got < 9*files || got > 9*files+files/10 {
		t.Errorf("%d files cost %d requests, %.2f each", files, got, float64(got)/files)
	}
}
