package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestClusterRig does the main job over a network of nodes and tries every fault of the rig on it. That nothing is left
// afterwards, newCluster sees to itself.
func TestClusterRig(t *testing.T) {
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}, primary: "batch_interval: 50ms"}, minReplicas: 2})
	c.start()
	c.delivers(r)
	c.waitsForCable(r)
	c.isSlow(r)
	c.outlivesHole(r)
	c.outlivesSignals(r)
	c.wait("stored")
	want := snapshot(t, c.mount)
	equal(t, "restored on the desk", want, snapshot(t, c.restore("vault1")))
	c.powerOff("alpha")
	if left := c.pids("alpha", daemons); len(left) > 0 {
		t.Errorf("after the power has gone: %v", left)
	}
	c.powerOn("alpha")
	c.startPrimary()
	c.write(r, "after", 1000)
	c.wait("cached")
}

// write writes a file of random bytes through the mount, which must not take long whatever the network does.
func (c *cluster) write(r *rand.Rand, name string, size int) {
	c.t.Helper()
	began := time.Now()
	must(c.t, os.WriteFile(filepath.Join(c.mount, name), noise(r, size), 0o644))
	if took := time.Since(began); took > 2*time.Second*busy {
		c.t.Errorf("writing %s took %v", name, took)
	}
}

// delivers: a file goes from alpha to its replica peers and to cache1, once each, and from there to vault1.
func (c *cluster) delivers(r *rand.Rand) {
	c.t.Helper()
	const size = 1 << 20
	c.write(r, "first", size)
	c.wait("stored")
	for _, way := range [][2]string{{"alpha", "bravo"}, {"alpha", "charlie"}, {"alpha", "cache1"}, {"cache1", "vault1"}} {
		if sent := c.traffic(way[0], way[1]); sent.In < size || sent.In > size+size/2 || sent.Connections == 0 {
			c.t.Errorf("%s sent %s %+v for a file of %d bytes", way[0], way[1], sent, size)
		}
	}
	if sent := c.traffic("cache1", "alpha"); sent.Connections != 0 {
		c.t.Errorf("cache1 sent alpha %+v", sent)
	}
}

// waitsForCable: without its link alpha serves and seals, and delivers later.
func (c *cluster) waitsForCable(r *rand.Rand) {
	c.t.Helper()
	c.linkDown("alpha")
	before, head := c.traffic("alpha", "cache1"), c.head()
	c.write(r, "second", 1<<20)
	c.eventually(10*time.Second, "alpha to seal", func() error {
		if c.head() == head {
			return errors.New("no new batch")
		}
		return nil
	})
	c.wait("sealed")
	if out, code := c.tryOn("alpha", "wait", c.mount, "--stage", "cached", "--timeout", "300ms", "-c", c.config); code != 124 {
		c.t.Errorf("cached without a link: exit code %d\n%s", code, out)
	}
	if after := c.traffic("alpha", "cache1"); after.In != before.In {
		c.t.Errorf("cache1 got %d bytes without a link", after.In-before.In)
	}
	c.linkUp("alpha")
	c.wait("cached")
}

// isSlow: three destinations share alpha's link.
func (c *cluster) isSlow(r *rand.Rand) {
	c.t.Helper()
	const size, rate = 512 << 10, 1 << 20
	c.slow("alpha", rate)
	began := time.Now()
	c.write(r, "third", size)
	c.wait("cached")
	if took := time.Since(began); took < 3*size*time.Second/rate*8/10 {
		c.t.Errorf("three times %d bytes at %d a second took %v", size, rate, took)
	}
	c.slow("alpha", 0)
}

// outlivesHole: what is lost for a while ends no connection.
func (c *cluster) outlivesHole(r *rand.Rand) {
	c.t.Helper()
	before := c.sessionsFrom("alpha", "cache1")
	c.blackhole("alpha", "cache1")
	c.write(r, "into the hole", 100<<10)
	c.wait("replicated")
	if out, code := c.tryOn(desk, "wait", c.mount, "--stage", "cached", "--timeout", "300ms", "-c", c.config); code != 124 {
		c.t.Errorf("cached through a hole: exit code %d\n%s", code, out)
	}
	c.heal("alpha", "cache1")
	c.wait("cached")
	if after := c.sessionsFrom("alpha", "cache1"); len(before) == 0 || !slices.Equal(before, after) {
		c.t.Errorf("sessions %v before, %v after", before, after)
	}
}

// outlivesSignals: each role has its processes; frozen ones do nothing, killed ones come back.
func (c *cluster) outlivesSignals(r *rand.Rand) {
	c.t.Helper()
	frozen := c.stop("cache1", sessions)
	c.write(r, "fourth", 1000)
	c.wait("replicated")
	if out, code := c.tryOn("alpha", "wait", c.mount, "--stage", "cached", "--timeout", "300ms", "-c", c.config); code != 124 {
		c.t.Errorf("cached by frozen sessions %v: exit code %d\n%s", frozen, code, out)
	}
	c.cont("cache1", sessions)
	c.wait("cached")

	for _, role := range []role{spooler, mountProcess} {
		killed := c.kill("alpha", role)
		c.eventually(10*time.Second, "another "+string(role), func() error {
			if now := c.pids("alpha", role); len(now) != 1 || now[0] == killed[0] {
				return fmt.Errorf("processes %v, killed %v", now, killed)
			}
			return nil
		})
	}
	c.waitMounted()
	c.write(r, "fifth", 1000)
	c.wait("cached")
	if all := c.pids("alpha", daemons); len(all) != 3 {
		c.t.Errorf("daemons of alpha: %v", all)
	}
}
