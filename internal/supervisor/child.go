package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// self is the program that runs, even when its file has been replaced or removed.
const self = "/proc/self/exe"

// child is one of the processes.
type child struct {
	name        string
	args        []string
	place       *place                                 // nil: the child needs no source
	verdict     func(code int) (final bool, err error) // on an end that nobody asked for
	ready       func()                                 // nil: the child is not asked to say when it is ready
	log         *slog.Logger
	stopTimeout time.Duration
	quick       time.Duration

	mu      sync.Mutex
	running *os.Process // guarded by mu; nil: none
}

// signal sends a signal to the child, if it runs.
func (c *child) signal(sig os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		_ = c.running.Signal(sig) // it may have ended just now
	}
}

func (c *child) runs(p *os.Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = p
}

// mountVerdict: exit code 0 is an unmount from outside, a wish and not a fault.
func mountVerdict(code int) (bool, error) {
	switch code {
	case 0:
		return true, nil
	case ExitConfig:
		return true, ErrConfig
	}
	return false, nil
}

// spoolerVerdict: whatever ends the spooler, the mount stays, and it is started again as long as the volume is this node's.
func spoolerVerdict(code int) (bool, error) {
	if code == ExitSuperseded {
		return true, ErrSuperseded
	}
	return false, nil
}

// peerVerdict: the peer is started again, unless that would not help; what comes of it is nothing to the other two.
func peerVerdict(code int) (bool, error) {
	if code == ExitConfig {
		return true, ErrPeerConfig
	}
	return false, nil
}

// keep starts the child, and again whenever it dies, until the verdict is final or ctx ends and the child with it.
//
// The kernel sends the parent-death signal when the *thread* ends that started the child, so this goroutine keeps its thread
// as long as it has a child.
func (c *child) keep(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pauses := newPauses()
	for {
		began := time.Now()
		ended, err := c.runOnce(ctx)
		if ctx.Err() != nil {
			return c.checkStop(ended)
		}
		if err == nil {
			if final, why := c.verdict(ended.ExitCode()); final {
				c.log.Info("child ended", "child", c.name, "how", ended.String())
				if why != nil {
					c.log.Error("child is not started again", "child", c.name, "error", why)
				}
				return why
			}
			err = fmt.Errorf("%s: %s", c.name, ended)
		}
		lived := time.Since(began)
		if lived >= c.quick {
			pauses.reset()
		}
		pause := pauses.next()
		c.log.Warn("child died", "child", c.name, "error", err, "lived", lived, "again_in", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// runOnce starts the child and returns when it has ended; an error says that it did not start. When ctx ends the child is
// asked to end, and killed if it takes too long.
func (c *child) runOnce(ctx context.Context) (*os.ProcessState, error) {
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = c.args
	cmd.Dir, cmd.Env = "/", environment()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = c.stopTimeout
	// A process group of its own: an interrupt from the terminal comes to the supervisor alone, which ends them in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.place != nil {
		source, err := c.place.reopenSource()
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = []*os.File{source}
		if c.ready != nil {
			pipe, w, err := os.Pipe()
			if err != nil {
				return nil, errors.Join(fmt.Errorf("make ready pipe: %w", err), source.Close())
			}
			cmd.ExtraFiles = append(cmd.ExtraFiles, w)
			defer c.awaitReady(pipe)()
		}
	}
	err := cmd.Start()
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // ours; the child has its own
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	c.log.Info("child started", "child", c.name, "pid", cmd.Process.Pid)
	c.runs(cmd.Process)
	_ = cmd.Wait() // what it says is in ProcessState
	c.runs(nil)
	return cmd.ProcessState, nil
}

// environment is this process's, without what would make a child speak for it to systemd.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "NOTIFY_SOCKET=") || strings.HasPrefix(e, "WATCHDOG_")
	})
}

// checkStop tells how an end went that was asked for; ended is nil where nothing ran. A child that dies of SIGTERM was asked before it could
// listen, which is as good as ending by itself.
func (c *child) checkStop(ended *os.ProcessState) error {
	if ended == nil || ended.ExitCode() == 0 {
		return nil
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	return fmt.Errorf("end %s: %s", c.name, ended)
}

// awaitReady calls ready when a line comes through the pipe. The function returned ends that.
func (c *child) awaitReady(pipe *os.File) (stop func()) {
	var g errgroup.Group
	g.Go(func() error {
		if _, err := bufio.NewReader(pipe).ReadString('\n'); err == nil {
			c.log.Info("child is ready", "child", c.name)
			c.ready()
		}
		return nil
	})
	return func() {
		_ = pipe.Close()
		_ = g.Wait()
	}
}

// pauses before a child is started again: none after a long life, then longer and longer.
type pauses struct {
	first  bool
	growth backoff.ExponentialBackOff
}

func newPauses() *pauses {
	p := &pauses{growth: backoff.ExponentialBackOff{
		InitialInterval: 250 * time.Millisecond,
		Multiplier:      2,
		MaxInterval:     5 * time.Second,
	}}
	p.reset()
	return p
}

func (p *pauses) reset() {
	p.first = true
	p.growth.Reset()
}

func (p *pauses) next() time.Duration {
	if p.first {
		p.first = false
		return 0
	}
	return p.growth.NextBackOff()
}
