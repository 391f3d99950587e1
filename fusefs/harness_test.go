package fusefs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/durability"
	"slipway/internal/journal"
)

// A process must not use a mount that it serves itself: the mounts of these tests are served by the test binary, run again.

const childEnv = "FUSEFS_TEST_CHILD"

// childOptions is what a serving child is told.
type childOptions struct {
	Source, Mount, Journal string
	Passthrough            bool
	Old                    bool // mount(2)
	Files                  uint64
	SyncTimeout            time.Duration // fsyncs below db wait for childDurable; 0: none
}

func TestMain(m *testing.M) {
	if os.Getenv(threadEnv) != "" {
		if err := checkFirstThread(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(syncEnv); path != "" {
		if err := syncChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if text := os.Getenv(childEnv); text != "" {
		if err := serveChild(text); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

// journals is where the journals are, in memory: a disk that others keep busy for a second makes gaps in them.
var journals string

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "slipway-journals-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = unix.Mount("slipway-test", dir, "tmpfs", 0, "")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // a test that failed may leave a child
	journals = dir
	return m.Run()
}

// serveChild mounts and serves until SIGTERM.
func serveChild(text string) error {
	var o childOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	if o.Files > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: o.Files, Max: o.Files}); err != nil {
			return err
		}
	}
	source, err := os.Open(o.Source)
	if err != nil {
		return err
	}
	w, err := journal.Create(o.Journal)
	if err != nil {
		return err
	}
	rules, err := durability.New(&config.Primary{Durability: []config.Durability{{Path: "db/**", Stage: "cached"}}})
	if err != nil {
		return err
	}
	if o.SyncTimeout == 0 {
		rules = nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var orphan errgroup.Group // not waited for: it ends with the parent, or with this process
	orphan.Go(func() error {
		defer stop()
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
	logging, stopLogging := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return w.Run(logging) })
	before := openFiles()
	if o.Old {
		fsopen = func(string, int) (int, error) { return -1, unix.ENOSYS }
	}
	err = Serve(ctx, Options{
		Source: source, MountPoint: o.Mount, Journal: w, Volume: "projects", AllowOther: true, Passthrough: o.Passthrough,
		Ready:   func() { fmt.Println("ready") },
		Explain: childExplain, Durability: rules, DurabilityTimeout: o.SyncTimeout,
		Durable: func(ctx context.Context, q control.Durable, within time.Duration) error {
			return childDurable(ctx, o.Journal, q, within)
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	stopLogging()
	if err := errors.Join(err, g.Wait(), w.Close()); err != nil {
		return err
	}
	if left := openFiles(); len(left) > len(before) {
		return fmt.Errorf("descriptors left open after the unmount: %q, before: %q", left, before)
	}
	return nil
}

// childExplain answers with the path it was asked for; some paths are special.
func childExplain(ctx context.Context, path string) (map[string]string, error) {
	switch {
	case strings.HasSuffix(path, "slow"):
		<-ctx.Done()
		return nil, ctx.Err()
	case strings.HasSuffix(path, "panic"):
		panic("asked for the stage of " + path)
	}
	return map[string]string{"stage": "stage of " + path, "copies": "cache1,vault1", "eta": ""}, nil
}

// openFiles lists the descriptors, leaving out what the runtime, go-fuse's pipe pool (/dev/null too) and the journal keep.
func openFiles() []string {
	runtime.GC() // closes what only finalizers close
	links, _ := filepath.Glob("/proc/self/fd/*")
	var open []string
	for _, l := range links {
		to, err := os.Readlink(l)
		kept := to == "/dev/null" || strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "pipe:") || strings.Contains(to, "/journal/")
		if err == nil && !kept {
			open = append(open, to)
		}
	}
	return open
}

// fixture is a mounted volume.
type fixture struct {
	t       *testing.T
	opts    childOptions
	source  string
	mnt     string
	cmd     *exec.Cmd
	stderr  strings.Builder
	stopped bool
}

// newFixture makes the places; serve mounts.
func newFixture(t *testing.T, change ...func(*childOptions)) *fixture {
	t.Helper()
	dir := t.TempDir()
	// Other users have to get in.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.MkdirTemp(journals, "")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(log)) })
	o := childOptions{
		Source: filepath.Join(dir, "source"), Mount: filepath.Join(dir, "mnt"), Journal: filepath.Join(log, "journal"),
		Passthrough: true,
	}
	for _, c := range change {
		c(&o)
	}
	for _, d := range []string{o.Source, o.Mount} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &fixture{t: t, opts: o, source: o.Source, mnt: o.Mount}
}

func served(o *childOptions) { o.Passthrough = false }

func inPlace(o *childOptions) { o.Mount = o.Source }

// mounted is a fixture that serves.
func mounted(t *testing.T, change ...func(*childOptions)) *fixture {
	t.Helper()
	f := newFixture(t, change...)
	f.serve()
	return f
}

// serve starts a child and waits until it has mounted. The cleanup unmounts, and checks that the child ended well.
func (f *fixture) serve() {
	f.t.Helper()
	text, err := json.Marshal(f.opts)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = &f.stderr
	// Never written to: it closes with this process, however that ends, and the child unmounts then.
	if _, err := cmd.StdinPipe(); err != nil {
		f.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.cmd, f.stopped = cmd, false
	f.t.Cleanup(func() { f.stop() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		f.stopped = true
		f.t.Fatalf("child said %q, %v; its log:\n%s", line, err, f.stderr.String())
	}
}

// stop unmounts by SIGTERM.
func (f *fixture) stop() {
	f.t.Helper()
	if f.stopped {
		return
	}
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	f.wait()
}

// wait waits for the child's end.
func (f *fixture) wait() {
	f.t.Helper()
	f.stopped = true
	if err := f.cmd.Wait(); err != nil {
		f.t.Errorf("child: %v; its log:\n%s", err, f.stderr.String())
	} else if f.t.Failed() {
		f.t.Logf("log of the child:\n%s", f.stderr.String())
	}
}

// kill ends the child as a crash does.
func (f *fixture) kill() {
	f.t.Helper()
	f.stopped = true
	if err := f.cmd.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	_ = f.cmd.Wait()
	f.t.Cleanup(func() { _ = unix.Unmount(f.mnt, unix.MNT_DETACH) })
}

// path is below the mount, below is the same place in the source.
func (f *fixture) path(name string) string  { return filepath.Join(f.mnt, name) }
func (f *fixture) below(name string) string { return filepath.Join(f.source, name) }

// records reads the journal so far.
func (f *fixture) records() []journal.Record {
	f.t.Helper()
	r, err := journal.OpenReader(f.opts.Journal, journal.Position{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer closing(r)
	var all []journal.Record
	for {
		rec, _, err := r.Next()
		if errors.Is(err, journal.ErrWait) {
			return all
		}
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, rec)
	}
}

// since returns the records that do appends.
func (f *fixture) since(do func()) []journal.Record {
	f.t.Helper()
	n := len(f.records())
	do()
	return f.records()[n:]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// asUser runs do on a thread with another user's credentials; the thread is thrown away.
func asUser(t *testing.T, uid, gid int, groups []int, do func()) {
	t.Helper()
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		list := make([]uint32, max(len(groups), 1))
		for i, id := range groups {
			list[i] = uint32(id)
		}
		if err := setCredentials(uid, gid, list[:len(groups)]); err != nil {
			return err
		}
		do()
		return nil
	})
	must(t, g.Wait())
}

// poll calls ok until it is true, for at most a minute.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}

// openForWrite counts the opens for writing that the journal has no release of.
func (f *fixture) openForWrite() int {
	f.t.Helper()
	n := 0
	for _, r := range f.records() {
		switch r.Op {
		case journal.OpOpen:
			n++
		case journal.OpRelease:
			n--
		}
	}
	return n
}

// closing and closingFd are for defer where the test has seen all it wants.
func closing(c io.Closer) { _ = c.Close() }
func closingFd(fd int)    { _ = unix.Close(fd) }
