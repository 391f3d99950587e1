package journal

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/loopdisk"
)

// The ioctls of linux/fs.h that stop a file system: a write to it hangs until it goes on.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// hangingDisk is an ext4 of its own that can be stopped.
func hangingDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	dir = loopdisk.New(t, "ext4", 16<<20, "")
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	frozen := false
	set := func(ioctl uint) {
		if err := unix.IoctlSetInt(int(f.Fd()), ioctl, 0); err != nil {
			t.Fatal(err)
		}
		frozen = ioctl == fiFreeze
	}
	t.Cleanup(func() {
		if frozen {
			set(fiThaw)
		}
		_ = f.Close()
	})
	return dir, func() { set(fiFreeze) }, func() { set(fiThaw) }
}

// TestHungDisk: while the disk hangs the first operation waits a second and the others not at all; when it goes on, nothing
// that fitted in the queue is lost, a gap is told, and operations wait for their records again.
func TestHungDisk(t *testing.T) {
	disk, freeze, thaw := hangingDisk(t)
	dir := filepath.Join(disk, "journal")
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	start(t, w)
	w.Append(&Record{Op: OpCreate, Name: "before"})
	freeze()
	began := time.Now()
	w.Append(&Record{Op: OpCreate, Name: "hung"})
	first, longest := time.Since(began), time.Duration(0)
	for range 100 {
		again := time.Now()
		w.Append(&Record{Op: OpCreate, Name: "hung"})
		longest = max(longest, time.Since(again))
		if time.Since(began) > 20*appendWait {
			thaw() // else this process cannot even end
			t.Fatal("the disk hangs, and every append waits")
		}
	}
	if first < appendWait || longest >= appendWait {
		t.Errorf("the first append waited %v, of the next hundred one %v", first, longest)
	}
	if n, _ := w.Gaps(); n != 1 {
		t.Errorf("%d gaps", n)
	}
	thaw()
	w.Append(&Record{Op: OpCreate, Name: "after"})
	r := open(t, dir, Position{})
	gaps, names := 0, map[string]int{}
	for deadline := time.After(time.Minute); names["after"] == 0; {
		name, _ := next(t, r)
		if name == "wait" {
			select {
			case <-time.After(10 * time.Millisecond): // who is answered at once is written a little later
				continue
			case <-deadline:
				t.Fatalf("read %v", names)
			}
		}
		if name[0] == '(' {
			gaps++
		}
		names[name]++
	}
	if names["before"] != 1 || names["hung"] != 101 || gaps > 1 {
		t.Errorf("read %v", names)
	}
	w.Append(&Record{Op: OpCreate, Name: "later"})
	more, _ := rest(t, r)
	if gaps += len(more) - 1; gaps != 1 || more[len(more)-1] != "later" {
		t.Errorf("%d gaps, then %q", gaps, more)
	}
}
