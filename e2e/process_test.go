package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one slipway daemon, in a process group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  *lockedBuffer
}

// lockedBuffer keeps a daemon's output for the report of a failed test.
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

// spawn starts a daemon on a node: any command of the binary.
func (s *site) spawn(node, name string, args ...string) *process {
	s.t.Helper()
	p := &process{name: name, cmd: exec.Command(binary, args...), done: make(chan struct{}), log: &lockedBuffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(s.t, s.on(node, p.cmd.Start))
	s.daemons[node] = append(s.daemons[node], p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		p.end(20 * time.Second)
		s.detach(func(string) bool { return true }) // a test that failed may leave mounts
		if s.t.Failed() {
			s.t.Logf("output of %s:\n%s", name, tail(p.log.String(), 60))
		}
	})
	return p
}

// detach takes away those of slipway's mounts below the site's directory that are wanted away.
func (s *site) detach(want func(mount string) bool) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(s.t, err)
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], s.dir+"/") && strings.Contains(line, "fuse.slipway") && want(fields[4]) {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH) // its process may be quicker
		}
	}
}

// alive is an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w\n%s", p.name, p.err, tail(p.log.String(), 20))
	default:
		return fmt.Errorf("%s is not ready yet", p.name)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process with SIGTERM and expects exit code 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if !p.end(30 * time.Second) {
		t.Fatalf("%s did not end within 30 s of SIGTERM\n%s", p.name, tail(p.log.String(), 40))
	}
	if p.err != nil {
		t.Fatalf("%s ended with %v\n%s", p.name, p.err, tail(p.log.String(), 40))
	}
}

// end asks the process to end and kills it with its children when it does not.
func (p *process) end(within time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		p.crash()
		return false
	}
}

// crash kills every process of a daemon at once, and returns when none is there: until the last has died, locks are held and a socket answers.
func (p *process) crash() {
	all := tree(p.cmd.Process.Pid) // the supervisor first, or it would start another child
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have died of another's death
	}
	<-p.done
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(all, running) {
		<-tick.C
	}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
