package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/loop"
)

const (
	// hookWithin is how long a command may take; then it is killed with all that it has started.
	hookWithin = 30 * time.Second
	// maxOutput bounds what of a command's output goes to the log.
	maxOutput = 8 << 10
	// retryAfter is the pause before a command that failed is run again; each further one is four times as long.
	retryAfter = 15 * time.Second
	// retries is how often a command that fails is run again.
	retries = 3
	// maxText bounds one variable of a command's environment; the kernel allows 128 KiB.
	maxText = 32 << 10
)

// runner runs the command of one event, never twice at once: what comes meanwhile waits, and the next run is told all of it.
type runner struct {
	event   string
	command []string
	log     *slog.Logger
	wake    chan struct{}

	mu     sync.Mutex // guards what follows
	queue  []News
	tries  int    // that have failed for what waits
	failed string // how the last run ended, in words; "" for well
}

func newRunner(event string, command []string, log *slog.Logger) *runner {
	return &runner{event: event, command: command, log: log, wake: make(chan struct{}, 1)}
}

func (r *runner) put(n News) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, n)
	loop.Nudge(r.wake)
}

func (r *runner) take() []News {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.queue
	r.queue = nil
	return list
}

func (r *runner) failure() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// runOnce is the step: one run for all that waits. It returns the pause until what failed is tried again, with what has come by then; 0 if
// nothing is.
func (r *runner) runOnce(ctx context.Context) time.Duration {
	list := r.take()
	if len(list) == 0 {
		return 0
	}
	began := time.Now()
	output, err := r.run(ctx, list)
	if ctx.Err() != nil {
		return 0 // the daemon ends
	}
	if err == nil {
		r.log.Info("hook was run", "event", r.event, "message", list[0].Message, "told", len(list), "took", time.Since(began), "output", output)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed, r.tries = "", 0
		return 0
	}
	again := r.failedAt(began, list, err)
	r.log.Error("hook failed", "event", r.event, "command", r.command, "error", err, "output", output, "again_in", again)
	return again
}

// failedAt notes that a run failed, and puts what it was to tell back while it is to be tried again.
func (r *runner) failedAt(began time.Time, list []News, err error) (again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = fmt.Sprintf("the hook %s failed at %s: %v; run %s by hand, and see the log", r.event, began.Format(time.DateTime), err, r.command[0])
	if r.tries++; r.tries > retries {
		r.tries = 0
		return 0
	}
	r.queue = append(list, r.queue...)
	return retryAfter << (2 * (r.tries - 1))
}

// run runs the command in a process group of its own, which is killed when the time is over.
func (r *runner) run(ctx context.Context, list []News) (output string, err error) {
	ctx, stop := context.WithTimeout(ctx, hookWithin)
	defer stop()
	cmd := exec.CommandContext(ctx, r.command[0], r.command[1:]...)
	cmd.Dir, cmd.Env = "/", environment(list)
	var in bytes.Buffer
	for _, n := range list {
		if err := json.NewEncoder(&in).Encode(n); err != nil {
			return "", err
		}
	}
	out := &limited{left: maxOutput}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // what has left the group may hold the pipes
	err = cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("killed after %s", hookWithin)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // the command itself ended well
	}
	return strings.TrimSpace(out.kept.String()), err
}

// environment is the daemon's, without what makes a child speak for it to systemd, and with what happened.
func environment(list []News) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		for _, prefix := range []string{"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "SLIPWAY_"} {
			if strings.HasPrefix(e, prefix) {
				return true
			}
		}
		return false
	})
	join := func(of func(News) string, between string) string {
		var words []string
		for _, n := range list {
			if w := of(n); w != "" && !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
		text := strings.Join(words, between)
		return text[:min(len(text), maxText)]
	}
	return append(env,
		"SLIPWAY_EVENT="+list[0].Event,
		"SLIPWAY_VOLUME="+join(func(n News) string { return n.Volume }, " "),
		"SLIPWAY_NODE="+list[0].Node,
		"SLIPWAY_STORE="+join(func(n News) string { return n.Store }, " "),
		"SLIPWAY_MESSAGE="+join(func(n News) string { return n.Message }, "\n"),
	)
}

// limited keeps the beginning of what is written to it. It does not embed the buffer, whose ReadFrom would go past the limit.
type limited struct {
	kept bytes.Buffer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, _ = l.kept.Write(p[:n]) // never fails
	return len(p), nil
}
