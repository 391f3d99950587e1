//go:build cluster

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSchedules is the simulation of spooler/sender once more, with real processes, a real network and real stores: while files are
// written, random faults strike and are put right again. After each schedule everything drains by itself; all stores hold one and the
// same history, nothing was refused, and nothing that was acknowledged is gone. Now and then a restore is compared with the mount.
func TestSchedules(t *testing.T) {
	r := random(t)
	c := newCluster(t, clusterOptions{
		siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"},
			primary: "stale_after: 1s\nstall_after: 2s\nstep: 200ms\nprefer_after: 1s"},
		staleAfter: time.Second, stallAfter: 2 * time.Second, peer: []string{"step: 200ms", "prefer_after: 1s"}, minReplicas: 1,
	})
	c.start()
	for _, node := range c.opt.replicas {
		c.peerOn(node)
	}
	c.write(r, "first", 1000)
	c.wait("stored")
	c.slow("cache1", 2<<20) // about as fast as files are written: something is on its way most of the time
	schedules, struck := count(5, 200), map[string]int{}
	for i := range schedules {
		acked := c.acked("cache1", "vault1")
		for _, name := range c.schedule(rand.New(rand.NewPCG(r.Uint64(), 1))) {
			struck[strings.SplitN(name, ":", 2)[0]]++
			t.Logf("schedule %d: %s", i+1, name)
		}
		c.waitForSpooler()
		c.wait("stored")
		c.oneHistory()
		if now := c.acked("cache1", "vault1"); now < acked {
			t.Fatalf("schedule %d: vault1 had acknowledged batch %d, now %d", i+1, acked, now)
		}
		if (i+1)%25 == 0 || i+1 == schedules {
			equal(t, "restored from vault1", snapshot(t, c.mount), snapshot(t, c.restore("vault1")))
			if out, code := c.try("verify", "--from", c.hosts["vault1"].url(), "--identity", c.ident, "--ssh-key", c.key, "--known-hosts", c.known, "--read-data"); code != 0 {
				t.Fatalf("verify vault1: exit code %d\n%s", code, out)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d schedules, %d takeovers and returns; struck: %v", schedules, len(c.claims()), struck)
	if len(c.claims()) == 0 {
		t.Error("no schedule made anybody take over")
	}
}

// trouble is one fault that has struck.
type trouble struct {
	name string
	undo func()
	till time.Time
}

// schedule lets one to four faults strike while files are written, puts all of them right, and returns what struck.
func (c *cluster) schedule(r *rand.Rand) (struck []string) {
	c.t.Helper()
	load := c.startLoadAt(r.Uint64(), 20*time.Millisecond, 256<<10)
	var open []trouble
	for range 1 + r.IntN(4) {
		pause(c.t, time.Duration(50+r.IntN(600))*time.Millisecond)
		fault := faults[r.IntN(len(faults))]
		if fault.name == "owner off" && load != nil { // nobody writes on a node that is off
			load.stop(c.t)
			load = nil
		}
		what, undo := fault.strike(c, r)
		if undo == nil {
			continue // there was nothing to strike
		}
		struck = append(struck, fault.name+what)
		open = append(open, trouble{fault.name, undo, time.Now().Add(time.Duration(200+r.IntN(3500)) * time.Millisecond)})
	}
	for _, f := range open {
		pause(c.t, time.Until(f.till))
		f.undo()
	}
	if load != nil {
		load.stop(c.t)
	}
	c.waitMounted()
	return struck
}

// faults strike and return what exactly was struck, and how to put it right; nil: nothing was there to be struck.
var faults = []struct {
	name   string
	strike func(c *cluster, r *rand.Rand) (what string, undo func())
}{
	{"spooler killed", func(c *cluster, _ *rand.Rand) (string, func()) { return c.strike("alpha", spooler, syscall.SIGKILL) }},
	{"mount process killed", func(c *cluster, _ *rand.Rand) (string, func()) {
		return c.strike("alpha", mountProcess, syscall.SIGKILL)
	}},
	{"spooler stopped", func(c *cluster, _ *rand.Rand) (string, func()) { return c.strike("alpha", spooler, syscall.SIGSTOP) }},
	{"peer killed", func(c *cluster, r *rand.Rand) (string, func()) {
		node := pick(r, "bravo", "charlie")
		what, undo := c.strike(node, daemons, syscall.SIGKILL)
		if undo == nil {
			return "", nil
		}
		return what, func() { c.gone(node); c.peerOn(node) }
	}},
	{"peer stopped", func(c *cluster, r *rand.Rand) (string, func()) {
		return c.strike(pick(r, "bravo", "charlie"), daemons, syscall.SIGSTOP)
	}},
	{"shipper killed", func(c *cluster, _ *rand.Rand) (string, func()) {
		what, undo := c.strike("cache1", daemons, syscall.SIGKILL)
		if undo == nil {
			return "", nil
		}
		return what, func() { c.gone("cache1"); c.startShipper() }
	}},
	{"sessions killed", func(c *cluster, r *rand.Rand) (string, func()) {
		return c.strike(pick(r, "cache1", "bravo", "charlie", "vault1"), sessions, syscall.SIGKILL)
	}},
	{"sessions stopped", func(c *cluster, r *rand.Rand) (string, func()) {
		return c.strike(pick(r, "cache1", "bravo", "charlie", "vault1"), sessions, syscall.SIGSTOP)
	}},
	{"link down", func(c *cluster, r *rand.Rand) (string, func()) {
		node := pick(r, "alpha", "bravo", "charlie", "cache1", "vault1")
		c.linkDown(node)
		return ": " + node, func() { c.linkUp(node) }
	}},
	{"line swallows", func(c *cluster, r *rand.Rand) (string, func()) {
		from, to := pick(r, "alpha", "bravo", "charlie"), pick(r, "cache1", "cache1", "bravo", "charlie")
		if from == to {
			return "", nil
		}
		c.lose(from, to)
		return ": " + from + " to " + to, func() { c.find(from, to) }
	}},
	{"owner off", func(c *cluster, _ *rand.Rand) (string, func()) {
		if len(c.pids("alpha", supervisor)) == 0 {
			return "", nil
		}
		c.powerOff("alpha")
		return "", func() { c.powerOn("alpha"); c.startPrimary() }
	}},
}

func pick(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

// strike sends a signal to the processes that are there.
func (c *cluster) strike(node string, who role, sig syscall.Signal) (string, func()) {
	c.t.Helper()
	pids := c.pids(node, who)
	if len(pids) == 0 {
		return "", nil
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // it may have ended meanwhile
	}
	return fmt.Sprintf(": %s of %s", who, node), func() {
		if sig == syscall.SIGSTOP {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGCONT) // likewise
			}
		}
	}
}

// waitForSpooler waits until there is somebody to ask.
func (c *cluster) waitForSpooler() {
	c.t.Helper()
	c.eventually(20*time.Second, "the spooler to answer", func() error {
		if is := c.status(c.config)["daemon"]; is != "running" {
			return fmt.Errorf("it is %v", is)
		}
		return nil
	})
}

// gone waits until the daemons of a node have ended.
func (c *cluster) gone(node string) {
	c.t.Helper()
	c.eventually(20*time.Second, "the daemons of "+node+" to end", func() error {
		if left := c.pids(node, daemons); len(left) > 0 {
			return fmt.Errorf("processes %v are there", left)
		}
		return nil
	})
}

// oneHistory waits until every store has the newest batch, and compares all batches that two of them have.
func (c *cluster) oneHistory() {
	c.t.Helper()
	stores := map[string]string{"alpha": filepath.Join(c.dir, "state", "spool", "projects")}
	for _, host := range append([]string{"cache1", "vault1"}, c.opt.replicas...) {
		stores[host] = filepath.Join(c.hosts[host].data, "projects")
	}
	c.eventually(time.Minute, "every store to hold the newest batch", func() error {
		newest := map[string]string{}
		for name, dir := range stores {
			files, _ := filepath.Glob(filepath.Join(dir, "batches", "*", "*", "*.batch"))
			if len(files) == 0 {
				return fmt.Errorf("%s holds none", name)
			}
			newest[name] = strings.TrimPrefix(files[len(files)-1], dir)
		}
		for name, path := range newest {
			if path != newest["alpha"] {
				return fmt.Errorf("%s has %s, alpha %s", name, path, newest["alpha"])
			}
		}
		return nil
	})
	type at struct {
		store string
		sum   [sha256.Size]byte
	}
	seen := map[string]at{}
	for name, dir := range stores {
		must(c.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
				return ignoreGone(err)
			}
			rel := strings.TrimPrefix(path, dir+"/")
			switch {
			case strings.HasPrefix(rel, "refused/"):
				c.t.Errorf("%s has refused %s", name, rel)
				return nil
			case !strings.HasPrefix(rel, "batches/"):
				return nil
			case !strings.HasPrefix(rel, "batches/00000001/"):
				c.t.Errorf("%s holds %s: another epoch", name, rel)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return ignoreGone(err)
			}
			sum := sha256.Sum256(data)
			if other, known := seen[rel]; known && !bytes.Equal(other.sum[:], sum[:]) {
				c.t.Errorf("%s differs between %s and %s", rel, other.store, name)
			}
			seen[rel] = at{name, sum}
			return nil
		}))
	}
}

// ignoreGone passes over what was removed while it was looked at.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
