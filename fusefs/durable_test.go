package fusefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/control"
)

// childDurable plays the spooler. What the path ends with says what it answers; each question is left as a line in a file beside the journal.
func childDurable(ctx context.Context, journal string, q control.Durable, within time.Duration) error {
	log, err := os.OpenFile(journal+".asked", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(log, "%s %v %v\n", q.Path, q.Stage, q.Names); err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, within)
	defer stop()
	switch path := string(q.Path); {
	case strings.HasSuffix(path, "slow"):
		<-ctx.Done()
		return ctx.Err()
	case strings.HasSuffix(path, "released"):
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := os.Stat(journal + ".release"); err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	case strings.HasSuffix(path, "refused"):
		return errors.New("the store is down")
	case strings.HasSuffix(path, "unknown"):
		return fs.ErrNotExist
	}
	return nil
}

// asked returns the questions so far.
func (f *fixture) asked() []string {
	f.t.Helper()
	text, err := os.ReadFile(f.opts.Journal + ".asked")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// syncing is a fixture with rules for db.
func syncing(t *testing.T, within time.Duration) *fixture {
	t.Helper()
	f := mounted(t, func(o *childOptions) { o.SyncTimeout = within })
	must(t, os.MkdirAll(f.path("db/sub"), 0o755))
	must(t, os.MkdirAll(f.path("out"), 0o755))
	return f
}

// fsync makes a file (or opens what is there) and syncs it.
func (f *fixture) fsync(name string) error {
	f.t.Helper()
	file, err := os.OpenFile(f.path(name), os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, unix.EISDIR) {
		file, err = os.Open(f.path(name))
	}
	must(f.t, err)
	defer closing(file)
	return unix.Fsync(int(file.Fd()))
}

// TestFsyncAsks: what lies under a pattern by the name that it has at the fsync is asked about, and nothing else; the answer is the fsync's.
func TestFsyncAsks(t *testing.T) {
	f := syncing(t, 10*time.Second)
	for _, step := range []struct {
		name  string
		want  error
		asked string
	}{
		{"db/file", nil, "db/file cached false"},
		{"db/sub/file", nil, "db/sub/file cached false"},
		{"db", nil, "db cached false"},
		{"db/sub", nil, "db/sub cached false"},
		{"out/refused", nil, ""},
		{"out", nil, ""},
		{".", nil, ""},
		{"db/refused", unix.EIO, "db/refused cached false"},
		{"db/refused", unix.EIO, "db/refused cached false"}, // once more
		{"db/unknown", unix.EIO, "db/unknown cached false"}, // it has a name, so it should be known
	} {
		before := len(f.asked())
		if err := f.fsync(step.name); !errors.Is(err, step.want) {
			t.Errorf("fsync of %s: %v, want %v", step.name, err, step.want)
		}
		all := f.asked()
		if now := all[before:]; step.asked == "" && len(now) > 0 || step.asked != "" && all[len(all)-1] != step.asked {
			t.Errorf("fsync of %s asked %q", step.name, now)
		}
	}
}

// TestFsyncNames: the path counts that the file has at the fsync; of a file with several names the spooler knows them all; one that has none is
// not asked about.
func TestFsyncNames(t *testing.T) {
	f := syncing(t, 10*time.Second)
	last := func(name string, want string) {
		t.Helper()
		all := f.asked()
		if all[len(all)-1] != want {
			t.Errorf("%s: asked %q, want %q", name, all[len(all)-1], want)
		}
	}
	moved, err := os.Create(f.path("out/moved"))
	must(t, err)
	defer closing(moved)
	must(t, unix.Rename(f.path("out/moved"), f.path("db/moved")))
	must(t, unix.Fsync(int(moved.Fd())))
	last("moved in", "db/moved cached false")
	must(t, unix.Rename(f.path("db/moved"), f.path("out/again")))
	n := len(f.asked())
	must(t, unix.Fsync(int(moved.Fd())))
	if len(f.asked()) != n {
		t.Errorf("moved out: asked %q", f.asked()[n:])
	}

	must(t, os.WriteFile(f.path("db/one"), nil, 0o644))
	must(t, os.Link(f.path("db/one"), f.path("out/two")))
	must(t, f.fsync("out/two"))
	last("by another name", "out/two pending true")
	must(t, os.Remove(f.path("out/two"))) // what the mount noted as its name
	one, err := os.OpenFile(f.path("db/one"), os.O_RDWR, 0)
	must(t, err)
	defer closing(one)
	must(t, unix.Fsync(int(one.Fd())))
	last("that name is gone, and the kernel knew the other", "out/two pending true")

	must(t, os.Link(f.path("db/one"), f.path("out/three")))
	must(t, os.WriteFile(f.path("out/over"), nil, 0o644))
	must(t, unix.Rename(f.path("out/over"), f.path("out/three"))) // takes that name away, and nobody looks up the other
	must(t, unix.Fsync(int(one.Fd())))
	last("the other name was replaced", "out/three pending true")

	must(t, os.Remove(f.path("db/one")))
	n = len(f.asked())
	must(t, unix.Fsync(int(one.Fd())))
	if len(f.asked()) != n {
		t.Errorf("without a name: asked %q", f.asked()[n:])
	}
}

// TestFsyncForeign: another file system below a pattern is in no batch, so nothing can be promised of it.
func TestFsyncForeign(t *testing.T) {
	f := newFixture(t, func(o *childOptions) { o.SyncTimeout = 10 * time.Second })
	must(t, os.MkdirAll(f.below("db/other"), 0o755))
	must(t, unix.Mount("none", f.below("db/other"), "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(f.below("db/other"), 0)) })
	f.serve()
	if err := f.fsync("db/other/file"); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	must(t, f.fsync("db/file"))
	f.stop()
}

// TestSyncWrites: O_SYNC and O_DSYNC writes and msync(2) are fsyncs of what lies under a pattern.
func TestSyncWrites(t *testing.T) {
	f := syncing(t, 10*time.Second)
	for name, flag := range map[string]int{"O_SYNC": unix.O_SYNC, "O_DSYNC": unix.O_DSYNC} {
		for path, want := range map[string]error{"db/refused": unix.EIO, "db/file": nil, "out/refused": nil} {
			file, err := os.OpenFile(f.path(path), os.O_RDWR|os.O_CREATE|flag, 0o644)
			must(t, err)
			if _, err := file.Write([]byte("text")); !errors.Is(err, want) {
				t.Errorf("%s write to %s: %v, want %v", name, path, err, want)
			}
			must(t, file.Close())
		}
	}
	file, err := os.OpenFile(f.path("db/refused"), os.O_RDWR, 0)
	must(t, err)
	defer closing(file)
	m, err := unix.Mmap(int(file.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	m[0] = 'T'
	if err := unix.Msync(m, unix.MS_SYNC); err != unix.EIO {
		t.Errorf("msync: %v, want EIO", err)
	}
	must(t, unix.Munmap(m))
	if got, err := os.ReadFile(f.below("db/refused")); err != nil || string(got) != "Text" {
		t.Errorf("the store into the mapping: %q, %v", got, err)
	}
}

// TestFsyncTimeout: nothing hangs for longer than was asked for.
func TestFsyncTimeout(t *testing.T) {
	f := syncing(t, 300*time.Millisecond)
	began := time.Now()
	if err := f.fsync("db/slow"); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	if took := time.Since(began); took < 250*time.Millisecond || took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestManyFsyncsWait: as many fsyncs as may wait keep nobody else waiting; one more is told so.
func TestManyFsyncsWait(t *testing.T) {
	f := syncing(t, 10*time.Minute)
	var g errgroup.Group
	for i := range maxSyncs {
		g.Go(func() error { return f.fsync(fmt.Sprintf("db/%d-released", i)) })
	}
	poll(t, "all of them to wait", func() bool { return len(f.asked()) == maxSyncs })
	began := time.Now()
	for i := range 200 {
		name := f.path(fmt.Sprintf("out/%d", i))
		must(t, os.WriteFile(name, []byte("text"), 0o644))
		if _, err := os.ReadFile(name); err != nil {
			t.Error(err)
		}
	}
	if all, err := os.ReadDir(f.path("out")); err != nil || len(all) != 200 {
		t.Errorf("listed %d, %v", len(all), err)
	}
	if all, err := os.ReadDir(f.path("db")); err != nil || len(all) != maxSyncs+1 {
		t.Errorf("beside those that are synced: listed %d, %v", len(all), err)
	}
	if _, err := os.ReadFile(f.path("db/7-released")); err != nil {
		t.Errorf("read what is being synced: %v", err)
	}
	t.Logf("200 files written and read in %v", time.Since(began))
	if took := time.Since(began); took > 2*time.Minute { // who waited would wait for ten
		t.Errorf("200 files took %v", took)
	}
	if err := f.fsync("db/one-more"); !errors.Is(err, unix.EIO) {
		t.Errorf("one more: %v, want EIO", err)
	}
	must(t, os.WriteFile(f.opts.Journal+".release", nil, 0o644))
	must(t, g.Wait())
	must(t, f.fsync("db/one-more"))
}

const syncEnv = "FUSEFS_TEST_SYNC"

// syncChild is a process that says which thread syncs a file, does it, and says what came of it. A handled signal does not end it.
func syncChild(path string) error {
	runtime.LockOSThread()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Println(unix.Gettid())
	fmt.Println(unix.Fsync(int(file.Fd())))
	return file.Close()
}

// fsyncElsewhere starts a process that syncs a file, and returns when its fsync waits.
func (f *fixture) fsyncElsewhere(name string) (p *exec.Cmd, thread int, out *bufio.Reader) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path(name), nil, 0o644))
	before := len(f.asked())
	p = exec.Command("/proc/self/exe")
	p.Env = append(os.Environ(), syncEnv+"="+f.path(name))
	pipe, err := p.StdoutPipe()
	must(f.t, err)
	must(f.t, p.Start())
	out = bufio.NewReader(pipe)
	_, err = fmt.Fscanln(out, &thread)
	must(f.t, err)
	poll(f.t, "its fsync to wait", func() bool {
		all := f.asked()
		return all[len(all)-1] == filepath.ToSlash(name)+" cached false" && len(all) >= before
	})
	return p, thread, out
}

// TestFsyncKilled: a process that is killed while its fsync waits dies at once.
func TestFsyncKilled(t *testing.T) {
	f := syncing(t, 10*time.Minute)
	for signal, start := range map[unix.Signal]func() *exec.Cmd{
		unix.SIGKILL: func() *exec.Cmd { p, _, _ := f.fsyncElsewhere("db/slow"); return p },
		unix.SIGTERM: func() *exec.Cmd { // a Go program handles it
			must(t, os.WriteFile(f.path("db/sub/slow"), nil, 0o644))
			p := exec.Command("sync", f.path("db/sub/slow"))
			must(t, p.Start())
			poll(t, "its fsync to wait", func() bool { return slices.Contains(f.asked(), "db/sub/slow cached false") })
			return p
		},
	} {
		p := start()
		began := time.Now()
		must(t, p.Process.Signal(signal))
		if err := p.Wait(); err == nil {
			t.Error("it ended well")
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%v: it died after %v", signal, took)
		}
	}
}

// TestFsyncSignalled: a signal that kills nobody does not end an fsync, and one that does so later still does.
func TestFsyncSignalled(t *testing.T) {
	f := syncing(t, 10*time.Minute)
	p, thread, out := f.fsyncElsewhere("db/released")
	for range 3 {
		must(t, unix.Tgkill(p.Process.Pid, thread, unix.SIGURG)) // the Go runtime handles it
	}
	said := make(chan string, 1)
	var g errgroup.Group
	g.Go(func() error {
		line, err := out.ReadString('\n')
		said <- line
		return err
	})
	select {
	case line := <-said:
		t.Fatalf("the signals ended the fsync: %q", line)
	case <-time.After(300 * time.Millisecond):
	}
	must(t, os.WriteFile(f.opts.Journal+".release", nil, 0o644))
	must(t, g.Wait())
	if line := <-said; line != "<nil>\n" {
		t.Errorf("the fsync said %q", line)
	}
	must(t, p.Wait())

	p, thread, _ = f.fsyncElsewhere("db/slow")
	must(t, unix.Tgkill(p.Process.Pid, thread, unix.SIGURG))
	began := time.Now()
	must(t, p.Process.Kill())
	if err := p.Wait(); err == nil {
		t.Error("it ended well")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it died after %v", took)
	}
}
