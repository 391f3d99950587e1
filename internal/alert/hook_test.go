package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/control"
)

// until waits for something that another process does.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, over := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// script writes a real command that appends what it is told to a file, which it writes in one piece.
func script(t *testing.T, more string) (command []string, output string) {
	t.Helper()
	dir := t.TempDir()
	program, output := filepath.Join(dir, "hook"), filepath.Join(dir, "output")
	text := "#!/bin/sh\n" + `echo "$SLIPWAY_EVENT|$SLIPWAY_VOLUME|$SLIPWAY_NODE|$SLIPWAY_STORE|$SLIPWAY_MESSAGE|$NOTIFY_SOCKET|$1|$(cat)" > "$2.part"` + "\n" + more + "\ncat $2.part >> $2\n"
	must(t, os.WriteFile(program, []byte(text), 0o700))
	return []string{program, "an argument", output}, output
}

func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

// TestCommands: for each event the operator's real command is run, with what happened in its environment and on its standard input.
func TestCommands(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("SLIPWAY_STORE", "of the daemon")
	for event, alarm := range map[string]control.Alarm{
		control.BehindRPO:          behind("cache1"),
		control.VerificationFailed: {Event: control.VerificationFailed, Level: control.LevelError, Store: "vault1", Message: "read back batch 3 from vault1: the host's copy is damaged"},
		control.Stalled:            {Event: control.Stalled, Level: control.LevelError, Message: "volume projects has not moved for 1m0s"},
		control.Takeover:           {Message: "bravo sends projects in the place of alpha, term 2: alpha is silent"},
	} {
		t.Run(event, func(t *testing.T) {
			command, output := script(t, "")
			d := well()
			w := watch(t, d, t.TempDir(), config.Hooks{Stalled: command, BehindRPO: command, VerificationFailed: command, Takeover: command}, config.Heartbeat{})
			w.lookOnce(t.Context())
			d.change(func(s *control.Status) {
				if event == control.Takeover {
					s.Sender = control.SenderStatus{Node: "bravo", Term: 2, Reason: "alpha is silent"}
				} else {
					s.Alarms = []control.Alarm{alarm}
				}
			})
			ctx, stop := context.WithCancel(t.Context())
			var g errgroup.Group
			g.Go(func() error { return w.Run(ctx) })
			until(t, "the command", func() bool { return read(output) != "" })
			stop()
			must(t, g.Wait())
			env, in, _ := strings.Cut(strings.TrimSpace(read(output)), "|{")
			if want := strings.Join([]string{event, "projects", "alpha", alarm.Store, alarm.Message, "", "an argument"}, "|"); env != want {
				t.Errorf("told %q, want %q", env, want)
			}
			var n News
			must(t, json.Unmarshal([]byte("{"+in), &n))
			n.Since = time.Time{}
			if diff := cmp.Diff(News{Event: event, Volume: "projects", Node: "alpha", Store: alarm.Store, Message: alarm.Message}, n); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOneAtATime: what comes while a command runs is told by the next run, all of it at once.
func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "go on")
	must(t, unix.Mkfifo(fifo, 0o600))
	command, output := script(t, `cat "`+fifo+`" > /dev/null`)
	d := well()
	w := watch(t, d, dir, config.Hooks{BehindRPO: command}, config.Heartbeat{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx) })
	late := func(store string) {
		d.change(func(s *control.Status) { s.Alarms = append(s.Alarms, behind(store)) })
		w.lookOnce(ctx) // from another goroutine than its own: the daemon's answers may be that close
	}
	late("a")
	until(t, "the first run", func() bool { return read(output+".part") != "" })
	late("b")
	late("c")
	if got := read(output); got != "" {
		t.Errorf("before the first run has ended: %q", got)
	}
	for run := range 2 {
		must(t, os.WriteFile(fifo, nil, 0))
		until(t, "the run to end", func() bool { return strings.Count(read(output), "behind_rpo|") == run+1 })
	}
	if got := read(output); !strings.Contains(got, "|a|behind rpo 30s: a|") || !strings.Contains(got, "|b c|behind rpo 30s: b\nbehind rpo 30s: c|") {
		t.Errorf("told %q", got)
	}
	stop()
	must(t, g.Wait())
}

// TestFails: a command that fails is a warning in status until it succeeds.
func TestFails(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	r := newRunner(control.Stalled, []string{"/bin/sh", "-c", "echo not yet; test -e " + gate}, watch(t, well(), dir, all, config.Heartbeat{}).opt.Log)
	w := watch(t, well(), dir, config.Hooks{}, config.Heartbeat{})
	w.runners[control.Stalled] = r
	warns := func() []string {
		list := []control.Status{{Volume: "projects"}, {Volume: "media"}}
		w.Amend(list)
		if len(list[1].Warnings) > 0 {
			t.Error("every volume says it")
		}
		return list[0].Warnings
	}
	r.put(News{Event: control.Stalled})
	r.runOnce(t.Context())
	if got := warns(); len(got) != 1 || !strings.Contains(got[0], "the hook stalled failed at") || !strings.Contains(got[0], "exit status 1; run /bin/sh by hand") {
		t.Errorf("warnings %q", got)
	}
	silent := watch(t, &daemon{}, dir, config.Hooks{}, config.Heartbeat{})
	silent.runners[control.Stalled] = r
	silent.beatOnce(t.Context()) // nobody's status could say it
	must(t, os.WriteFile(gate, nil, 0o600))
	r.put(News{Event: control.Stalled})
	r.runOnce(t.Context())
	if got := warns(); got != nil {
		t.Errorf("warnings %q", got)
	}
	w.Amend(nil)
}

// TestTriedAgain: what a command failed to tell is told again a few times, with what has begun meanwhile, and then no more.
func TestTriedAgain(t *testing.T) {
	command, output := script(t, "test -e \"$2.gate\" || exit 3")
	r := newRunner(control.Stalled, command, watch(t, well(), t.TempDir(), all, config.Heartbeat{}).opt.Log)
	r.put(News{Event: control.Stalled, Volume: "a"})
	for i, want := range []time.Duration{15 * time.Second, time.Minute, 4 * time.Minute, 0, 0} {
		if again := r.runOnce(t.Context()); again != want {
			t.Errorf("run %d: again in %v, want %v", i+1, again, want)
		}
	}
	if r.failure() == "" || len(r.take()) != 0 || read(output) != "" {
		t.Errorf("given up: %q, told %q", r.failure(), read(output))
	}
	r.put(News{Event: control.Stalled, Volume: "b"})
	if again := r.runOnce(t.Context()); again != 15*time.Second {
		t.Errorf("something new: again in %v", again)
	}
	r.put(News{Event: control.Stalled, Volume: "c"})
	must(t, os.WriteFile(output+".gate", nil, 0o600))
	if again := r.runOnce(t.Context()); again != 0 || r.failure() != "" || !strings.Contains(read(output), "stalled|b c|") {
		t.Errorf("again in %v, failure %q, told %q", again, r.failure(), read(output))
	}
}

// expiring is a context whose time is over when the test says so.
type expiring struct {
	context.Context
	over chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.over }

func (e expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestKilled: a command that does not end is killed with what it has started, and the end of the daemon is one too.
func TestKilled(t *testing.T) {
	over := make(chan struct{})
	daemon, stop := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		ctx  context.Context
		end  func()
		says string
	}{
		"time":   {expiring{t.Context(), over}, func() { close(over) }, "killed after"},
		"daemon": {daemon, stop, "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			pids := filepath.Join(t.TempDir(), "pids")
			r := newRunner(control.Stalled, []string{"/bin/sh", "-c", fmt.Sprintf("sleep 1000 & echo $! > %s.part; mv %s.part %s; wait", pids, pids, pids)}, nil)
			var g errgroup.Group
			g.Go(func() error {
				_, err := r.run(c.ctx, []News{{Event: control.Stalled}})
				if err == nil || !strings.Contains(err.Error(), c.says) {
					return fmt.Errorf("it ended with: %w", err)
				}
				return nil
			})
			until(t, "the child", func() bool { return read(pids) != "" })
			c.end()
			must(t, g.Wait())
			child, err := strconv.Atoi(strings.TrimSpace(read(pids)))
			must(t, err)
			until(t, "the child to be gone", func() bool {
				state := read(fmt.Sprintf("/proc/%d/stat", child))
				return state == "" || strings.Contains(state, ") Z ")
			})
		})
	}
}

// TestEndedByTheDaemon: a command that the daemon's end kills has not failed.
func TestEndedByTheDaemon(t *testing.T) {
	r := newRunner(control.Stalled, []string{"/bin/true"}, watch(t, well(), t.TempDir(), all, config.Heartbeat{}).opt.Log)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	r.put(News{Event: control.Stalled})
	if again := r.runOnce(ctx); again != 0 || r.failure() != "" {
		t.Errorf("again in %v: %s", again, r.failure())
	}
}

// TestLeftBehind: what a command leaves running, with its output open, is not waited for.
func TestLeftBehind(t *testing.T) {
	r := newRunner(control.Stalled, []string{"/bin/sh", "-c", "setsid sleep 1000 & echo $!"}, nil)
	out, err := r.run(t.Context(), []News{{Event: control.Stalled}})
	if err != nil {
		t.Error(err)
	}
	child, err := strconv.Atoi(out)
	must(t, err)
	must(t, unix.Kill(child, unix.SIGKILL))
}

// TestEnvironment: each word once.
func TestEnvironment(t *testing.T) {
	env := environment([]News{{Volume: "a", Message: "m"}, {Volume: "a", Store: "s", Message: "n"}, {Volume: "b", Store: "s"}})
	for _, want := range []string{"SLIPWAY_VOLUME=a b", "SLIPWAY_STORE=s", "SLIPWAY_MESSAGE=m\nn"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %q in %q", want, env[len(env)-5:])
		}
	}
}

// TestMuch: what a command says is cut, not waited for.
func TestMuch(t *testing.T) {
	r := newRunner(control.Stalled, []string{"/bin/sh", "-c", "yes | head -c 1000000"}, nil)
	out, err := r.run(t.Context(), []News{{Event: control.Stalled, Message: strings.Repeat("m", 1<<20)}})
	if err != nil || len(out) > maxOutput || len(out) < maxOutput/2 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
