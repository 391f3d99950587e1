package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/durable"
	"slipway/internal/state"
)

// run supervises in the background; the function returned asks it to end and returns what it says.
func run(t *testing.T, s *setting) (stop func() error, result func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return Run(ctx, s.Options) })
	t.Cleanup(func() {
		cancel()
		_ = g.Wait()
	})
	return func() error { cancel(); return g.Wait() }, g.Wait
}

// awaitLives waits until n children of each name have started.
func awaitLives(t *testing.T, s *setting, n int) (mounts, spoolers map[int]life) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d starts of each child", n), func() bool {
		mounts, spoolers = lives(t, s.notes, "mount"), lives(t, s.notes, "spooler")
		return len(mounts) >= n && len(spoolers) >= n
	})
	return mounts, spoolers
}

func TestStartAndStop(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := newSetting(t, "serve", "serve")
	ready := make(chan struct{}, 2)
	s.Ready = func() { ready <- struct{}{} }
	stop, _ := run(t, s)
	<-ready
	awaitLives(t, s, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mount", "spooler"} {
		for pid, l := range lives(t, s.notes, name) {
			if !l.Ended || l.Dir != "/" || fmt.Sprint(l.Source) != "[main.go]" || isRunning(pid) {
				t.Errorf("%s: %+v", name, l)
			}
		}
	}
	if lock, err := durable.Lock(state.Dir(s.StateDir).Lock()); err != nil {
		t.Error(err)
	} else if err := lock.Close(); err != nil {
		t.Error(err)
	}
}

// TestKilledChildren: each child that is killed is started again within a second, with the source, and the other one stays. How long it waits
// before it starts one it says itself; what starting takes is the machine's.
func TestKilledChildren(t *testing.T) {
	s := newSetting(t, "serve", "serve")
	var said lockedBuffer
	s.Logger = slog.New(slog.NewTextHandler(&said, nil))
	var ready atomic.Int32
	s.Ready = func() { ready.Add(1) }
	stop, _ := run(t, s)
	awaitLives(t, s, 1)
	for shot := range 4 {
		name := []string{"mount", "spooler"}[shot%2]
		other := []string{"mount", "spooler"}[1-shot%2]
		before := lives(t, s.notes, other)
		known := lives(t, s.notes, name)
		killAll(t, known)
		took := eventually(t, name+" is there again", func() bool {
			return len(lives(t, s.notes, name)) > len(known)
		})
		t.Logf("%s again after %v", name, took)
		if after := lives(t, s.notes, other); len(after) != len(before) {
			t.Errorf("%s was started again, too", other)
		}
	}
	for _, name := range []string{"mount", "spooler"} {
		for _, l := range lives(t, s.notes, name) {
			if fmt.Sprint(l.Source) != "[main.go]" {
				t.Errorf("%s sees %q in the source", name, l.Source)
			}
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := ready.Load(); n != 1 {
		t.Errorf("said to be ready %d times", n)
	}
	pauses := regexp.MustCompile(`msg="child died" .* again_in=(\S+)`).FindAllStringSubmatch(said.String(), -1)
	if len(pauses) != 4 {
		t.Errorf("the log tells of %d deaths:\n%s", len(pauses), said.String())
	}
	for _, p := range pauses {
		if d, err := time.ParseDuration(p[1]); err != nil || d > time.Second/2 {
			t.Errorf("a child is started again after %v, %v", d, err)
		}
	}
}

// lockedBuffer keeps a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func killAll(t *testing.T, all map[int]life) {
	t.Helper()
	for pid := range all {
		if isRunning(pid) {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestKilledSupervisor: both children end with a supervisor that is killed, and another one can begin at once.
func TestKilledSupervisor(t *testing.T) {
	s := newSetting(t, "deaf", "deaf")
	text, err := json.Marshal(plan{s.StateDir, s.SourceDir, s.MountPoint, s.MountArgs, s.SpoolerArgs})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "supervise", string(text))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mounts, spoolers := awaitLives(t, s, 1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "both children end", func() bool {
		for _, all := range []map[int]life{mounts, spoolers} {
			for pid := range all {
				if isRunning(pid) {
					return false
				}
			}
		}
		return true
	})
	s.MountArgs[4], s.SpoolerArgs[4] = "serve", "serve"
	stop, _ := run(t, s)
	awaitLives(t, s, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestUnmountedFromOutside: the spooler is asked to end, and that was all.
func TestUnmountedFromOutside(t *testing.T) {
	s := newSetting(t, "exit 0", "serve")
	_, result := run(t, s)
	awaitLives(t, s, 1)
	let(t, s)
	if err := result(); err != nil {
		t.Fatal(err)
	}
	if all := lives(t, s.notes, "mount"); len(all) != 1 {
		t.Errorf("%d starts of the mount process", len(all))
	}
	for _, l := range lives(t, s.notes, "spooler") {
		if !l.Ended {
			t.Error("the spooler was not asked to end")
		}
	}
}

// let lets the children that wait for it exit.
func let(t *testing.T, s *setting) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.notes, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationRefused(t *testing.T) {
	s := newSetting(t, "exit 2", "serve")
	_, result := run(t, s)
	awaitLives(t, s, 1)
	let(t, s)
	if err := result(); !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	if all := lives(t, s.notes, "mount"); len(all) != 1 {
		t.Errorf("%d starts of the mount process", len(all))
	}
}

// TestSpoolerEnds: whatever it says, the spooler is started again, and the mount process left alone.
func TestSpoolerEnds(t *testing.T) {
	for _, how := range []string{"exit 0", "exit 1", "exit 2"} {
		s := newSetting(t, "serve", how)
		stop, _ := run(t, s)
		awaitLives(t, s, 1)
		let(t, s)
		eventually(t, "the spooler is started again twice", func() bool {
			return len(lives(t, s.notes, "spooler")) >= 3
		})
		if err := os.Remove(filepath.Join(s.notes, "go")); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if all := lives(t, s.notes, "mount"); len(all) != 1 {
			t.Errorf("%s: %d starts of the mount process", how, len(all))
		}
	}
}

// TestDeafChildren: who does not end when asked is killed in the end, and that is an error.
func TestDeafChildren(t *testing.T) {
	s := newSetting(t, "deaf", "serve")
	s.StopTimeout = 300 * time.Millisecond
	stop, _ := run(t, s)
	awaitLives(t, s, 1)
	err := stop()
	if err == nil || !strings.Contains(err.Error(), "end mount process: signal: killed") {
		t.Errorf("%v", err)
	}
	for pid := range lives(t, s.notes, "mount") {
		if isRunning(pid) {
			t.Error("the mount process still runs")
		}
	}
}

// TestSpoolerEndsLast: what the mount process journals while it unmounts is for the spooler of the same run.
func TestSpoolerEndsLast(t *testing.T) {
	s := newSetting(t, "deaf", "serve")
	s.StopTimeout = 500 * time.Millisecond
	stop, _ := run(t, s)
	_, spoolers := awaitLives(t, s, 1)
	began := time.Now()
	_ = stop()
	for pid := range spoolers {
		info, err := os.Stat(filepath.Join(s.notes, fmt.Sprintf("spooler.%d", pid)))
		if err != nil {
			t.Fatal(err)
		}
		if d := info.ModTime().Sub(began); d < 400*time.Millisecond {
			t.Errorf("the spooler ended after %v, before the mount process", d)
		}
	}
}

// TestAfterCrash: where a dead mount lies over the source the children get the directory beneath, at each start; and as the fake
// ones do not replace the dead mount, it is taken away when they are asked to end.
func TestAfterCrash(t *testing.T) {
	s := newSetting(t, "serve", "serve")
	m := newFakeMount(t, s.SourceDir)
	m.die(t)
	stop, _ := run(t, s)
	mounts, _ := awaitLives(t, s, 1)
	killAll(t, mounts)
	mounts, spoolers := awaitLives(t, s, 1)
	eventually(t, "the mount process is there again", func() bool {
		mounts = lives(t, s.notes, "mount")
		return len(mounts) == 2
	})
	for _, all := range []map[int]life{mounts, spoolers} {
		for pid, l := range all {
			if fmt.Sprint(l.Source) != "[main.go]" {
				t.Errorf("%d sees %q in the source", pid, l.Source)
			}
		}
	}
	if c, err := inspect(s.SourceDir); c != dead || err != nil {
		t.Errorf("while it runs: %v, %v", c, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.SourceDir, "main.go")); err != nil {
		t.Error(err)
	}
}

func TestBusy(t *testing.T) {
	s := newSetting(t, "serve", "serve")
	stop, _ := run(t, s)
	awaitLives(t, s, 1)
	began := time.Now()
	if err := Run(t.Context(), s.Options); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if d := time.Since(began); d < s.times.lock {
		t.Errorf("gave up after %v", d)
	}
	s.times.lock = time.Minute
	s.Ready = func() {}
	var g errgroup.Group
	ctx, cancel := context.WithCancel(t.Context())
	g.Go(func() error { return Run(ctx, s.Options) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	awaitLives(t, s, 2)
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestPauses(t *testing.T) {
	p := newPauses()
	var got []time.Duration
	for range 8 {
		got = append(got, p.next())
	}
	const want = "[0s 250ms 500ms 1s 2s 4s 5s 5s]"
	if fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	p.reset()
	if a, b := p.next(), p.next(); a != 0 || b != 250*time.Millisecond {
		t.Errorf("after a long life: %v, %v", a, b)
	}
}
