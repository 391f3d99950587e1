package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// linkDown pulls a node's cable: silence both ways, TCP connections live on until somebody gives up.
func (c *cluster) linkDown(node string) {
	c.t.Helper()
	must(c.t, c.net.Down(node))
}

func (c *cluster) linkUp(node string) {
	c.t.Helper()
	must(c.t, c.net.Up(node))
}

// blackhole loses all packets between two nodes, without a word to either.
func (c *cluster) blackhole(a, b string) {
	c.t.Helper()
	c.lose(a, b)
	c.lose(b, a)
}

func (c *cluster) heal(a, b string) {
	c.t.Helper()
	c.find(a, b)
	c.find(b, a)
}

// lose is blackhole one way.
func (c *cluster) lose(from, to string) {
	c.t.Helper()
	must(c.t, c.net.Drop(from, to))
}

// find is heal one way.
func (c *cluster) find(from, to string) {
	c.t.Helper()
	must(c.t, c.net.Pass(from, to))
}

// slow limits what a node sends and what it receives, each, to so many bytes a second; 0: no limit any more.
func (c *cluster) slow(node string, bytesPerSecond int) {
	c.t.Helper()
	must(c.t, c.net.Limit(node, bytesPerSecond))
}

// role names processes of a node for signals.
type role string

const (
	supervisor   role = "supervisor"    // of `slipway mount`
	mountProcess role = "mount process" // the one that answers FUSE
	spooler      role = "spooler"
	daemons      role = "daemons"  // every daemon of the node and what is below it
	sessions     role = "sessions" // every sshd process of the node: its SFTP sessions with their parents
)

// pids returns the live processes of a node in a role, parents first. It does not wait for any to come.
func (c *cluster) pids(node string, r role) []int {
	c.t.Helper()
	var out []int
	if r == sessions {
		return c.hosts[node].srv.Sessions()
	}
	for _, p := range c.daemons[node] {
		pid := p.cmd.Process.Pid
		switch {
		case p.ended():
		case r == daemons:
			out = append(out, tree(pid)...)
		case p.cmd.Args[1] != "mount":
		case r == supervisor:
			out = append(out, pid)
		case r == mountProcess:
			out = append(out, children(pid, "fusefs")...)
		case r == spooler:
			out = append(out, children(pid, "spooler")...)
		}
	}
	return out
}

// sessionsFrom returns the sshd processes of one node that serve another.
func (c *cluster) sessionsFrom(client, host string) []int {
	return c.hosts[host].srv.Sessions(c.net.Node(client).Addr)
}

// signal sends a signal to a node's processes in a role, of which there must be one at least, and returns their ids.
func (c *cluster) signal(node string, r role, sig syscall.Signal) []int {
	c.t.Helper()
	var pids []int
	c.eventually(20*time.Second, fmt.Sprintf("%s of %s", r, node), func() error {
		if pids = c.pids(node, r); len(pids) == 0 {
			return errors.New("no such process")
		}
		return nil
	})
	c.send(sig, pids...)
	return pids
}

// send sends a signal to processes; those that have ended meanwhile are passed over.
func (c *cluster) send(sig syscall.Signal, pids ...int) {
	c.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			c.t.Fatalf("send %v to %d: %v", sig, pid, err)
		}
	}
	if sig == syscall.SIGSTOP {
		c.t.Cleanup(func() { c.send(syscall.SIGCONT, pids...) }) // or they could not be asked to end
	}
}

// stop freezes processes, cont thaws them, kill ends them with SIGKILL.
func (c *cluster) stop(node string, r role) []int {
	c.t.Helper()
	return c.signal(node, r, syscall.SIGSTOP)
}

func (c *cluster) cont(node string, r role) []int {
	c.t.Helper()
	return c.signal(node, r, syscall.SIGCONT)
}

func (c *cluster) kill(node string, r role) []int {
	c.t.Helper()
	return c.signal(node, r, syscall.SIGKILL)
}

// powerOff ends a node at once: nobody hears of it, and nothing of it runs on. Its disk keeps all that was written.
func (c *cluster) powerOff(node string) {
	c.t.Helper()
	c.linkDown(node)
	c.send(syscall.SIGSTOP, c.pids(node, daemons)...) // from now on they start nothing
	pids := c.pids(node, daemons)
	c.send(syscall.SIGKILL, pids...)
	c.hosts[node].down()
	c.eventually(20*time.Second, "the processes of "+node+" to end", func() error {
		if left := c.pids(node, daemons); len(left) > 0 {
			return fmt.Errorf("processes %v are there", left)
		}
		for _, pid := range pids {
			if running(pid) {
				return fmt.Errorf("process %d is there", pid)
			}
		}
		return nil
	})
	c.eventually(20*time.Second, "the mounts of "+node+" to be dead", func() error {
		c.detach(dead)
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err == nil && node == "alpha" && strings.Contains(string(mounts), " "+c.mount+" ") {
			err = errors.New("one lives")
		}
		return err
	})
}

// powerOn gives the node its link and its SSH server back; daemons are the test's to start.
func (c *cluster) powerOn(node string) {
	c.t.Helper()
	c.serve(c.hosts[node])
	c.linkUp(node)
}

// tree returns a process and all below it, parents first.
func tree(root int) []int {
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children(all[i], "")...)
	}
	return all
}

// running tells whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return !strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
}

// dead tells whether the process behind a mount is gone. What stat(2) says may be remembered from before.
func dead(mount string) bool {
	var st syscall.Statfs_t
	return errors.Is(syscall.Statfs(mount, &st), syscall.ENOTCONN)
}
