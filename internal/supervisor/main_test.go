package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is its own child: `supervisor.test child NAME DIR HOW`, and its own supervisor:
// `supervisor.test supervise OPTIONS`.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "child":
		os.Exit(runChild(os.Args[2], os.Args[3], os.Args[4]))
	case len(os.Args) == 3 && os.Args[1] == "supervise":
		var p plan
		if err := json.Unmarshal([]byte(os.Args[2]), &p); err != nil {
			panic(err)
		}
		if err := Run(context.Background(), p.options()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plan is the part of Options that another process can be told.
type plan struct {
	State, Source, Mount string
	MountArgs, Spooler   []string
}

func (p plan) options() Options {
	return Options{
		StateDir: p.State, SourceDir: p.Source, MountPoint: p.Mount, MountArgs: p.MountArgs, SpoolerArgs: p.Spooler,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// life is what one start of a child writes down: a file <name>.<pid> in dir.
type life struct {
	PID    int
	Source []string // what the directory of descriptor 3 holds
	Dir    string   // where it works
	Ended  bool     // it was asked to end, and ended
}

func (l life) write(dir, name string) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s.%d", name, l.PID))
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return unix.Rename(path+".tmp", path)
}

// runChild is a child's whole life. how: "serve" until asked to end; "deaf" when asked; "exit N" as soon as the file go is in dir.
func runChild(name, dir, how string) int {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	l := life{PID: os.Getpid()}
	source := os.NewFile(SourceFD, "source")
	l.Source, _ = source.Readdirnames(-1)
	l.Dir, _ = os.Getwd()
	if err := l.write(dir, name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if name == "mount" {
		if _, err := fmt.Fprintln(os.NewFile(ReadyFD, "ready"), "mounted"); err != nil {
			return 1
		}
	}
	for {
		select {
		case <-asked:
			if how == "deaf" {
				continue
			}
			l.Ended = true
			if err := l.write(dir, name); err != nil {
				return 1
			}
			return 0
		case <-time.After(5 * time.Millisecond):
			if code, ok := strings.CutPrefix(how, "exit "); ok {
				if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
					n, _ := strconv.Atoi(code)
					return n
				}
			}
		}
	}
}

// lives reads what the children of that name wrote, by process id.
func lives(t *testing.T, dir, name string) map[int]life {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, name+".*[0-9]"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]life{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var l life
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
		all[l.PID] = l
	}
	return all
}

// eventually waits until ok says so, for a minute: a busy machine takes its time to start a process.
func eventually(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > time.Minute {
			t.Fatalf("still not: %s", what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// isRunning tells whether a process is there and not merely waiting to be buried.
func isRunning(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, tail, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(tail, "Z") && !strings.HasPrefix(tail, "X")
}

// setting is a volume's directories, and one where the children write.
type setting struct {
	Options
	notes string
}

// newSetting has a source with one file, and is mounted in place.
func newSetting(t *testing.T, mountHow, spoolerHow string) *setting {
	t.Helper()
	root := t.TempDir()
	s := &setting{notes: filepath.Join(root, "notes")}
	s.StateDir, s.SourceDir = filepath.Join(root, "state"), filepath.Join(root, "projects")
	s.MountPoint = s.SourceDir
	for _, dir := range []string{s.notes, s.SourceDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.SourceDir, "main.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.MountArgs = []string{"slipway", "child", "mount", s.notes, mountHow}
	s.SpoolerArgs = []string{"slipway", "child", "spooler", s.notes, spoolerHow}
	s.Logger = slog.New(slog.DiscardHandler)
	s.StopTimeout = 5 * time.Second
	s.times = times{lock: 300 * time.Millisecond, dying: 300 * time.Millisecond, quick: 3 * time.Second}
	return s
}
