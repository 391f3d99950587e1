package e2e

import (
	"path/filepath"
	"testing"
	"time"
)

// TestNearestCopy restores from what is left, whoever holds it: replica peers and the cache before anything has reached a backup
// host, then what remains when primary and cache are gone, and at last one peer alone. Each restore is what the mount showed.
func TestNearestCopy(t *testing.T) {
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}, minReplicas: 2})
	c.powerOff("vault1")
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	c.write(r, "early", 1<<20)
	c.wait("cached")
	want := snapshot(t, c.mount)
	if n := c.holds("vault1"); n > 0 {
		t.Fatalf("vault1, which is off, holds %d batches", n)
	}
	for _, host := range []string{"bravo", "charlie", "cache1"} {
		equal(t, "from "+host+" alone", want, snapshot(t, c.nearest(desk, 5*time.Second, c.from(host)...)))
	}

	c.powerOn("vault1")
	c.write(r, "late", 1<<20)
	c.wait("stored")
	want = snapshot(t, c.mount)
	c.powerOff("alpha")
	c.powerOff("cache1")
	equal(t, "without primary and cache", want, snapshot(t, c.nearest(desk, 5*time.Second, c.from("charlie", "vault1")...)))
	c.powerOff("charlie")
	c.powerOff("vault1")
	equal(t, "on bravo, the last one", want, snapshot(t, c.nearest("bravo", 15*time.Second, "-c", c.peerConfig("bravo"))))
}

// from returns the flags that name hosts and how to reach them.
func (c *cluster) from(hosts ...string) []string {
	args := []string{"--ssh-key", c.key, "--known-hosts", c.known}
	for _, h := range hosts {
		args = append(args, "--from", h+"="+c.hosts[h].url())
	}
	return args
}

// nearest restores on a node and returns the target.
func (c *cluster) nearest(node string, within time.Duration, args ...string) string {
	c.t.Helper()
	target := filepath.Join(c.t.TempDir(), "restored")
	began := time.Now()
	out, code := c.tryOn(node, append([]string{"restore", "--identity", c.ident, "--target", target}, args...)...)
	if code != 0 {
		c.t.Fatalf("restore %v: exit code %d\n%s", args, code, out)
	}
	took := time.Since(began)
	c.t.Logf("restored on %s in %.2f s", node, took.Seconds())
	if took > within {
		c.t.Errorf("the restore took %v", took)
	}
	return target
}
