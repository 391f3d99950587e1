//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNearestCopy restores from what is left, whoever holds it: replica peers and the cache before anything has reached a backup
// host, then a peer and a backup host of which neither has everything, and at last one peer alone, which has kept a warm tree
// all the time. Each of them is what the mount showed.
func TestNearestCopy(t *testing.T) {
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}, primary: "batch_interval: 50ms"}, minReplicas: 2})
	warm := c.keepWarm("bravo")
	c.powerOff("vault1")
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	must(t, os.Mkdir(filepath.Join(c.mount, "awkward"), 0o755))
	awkward(t, filepath.Join(c.mount, "awkward"), r)
	c.wait("cached")
	want := snapshot(t, c.mount)
	if n := c.holds("vault1"); n > 0 {
		t.Fatalf("vault1, which is off, holds %d batches", n)
	}
	for _, host := range []string{"bravo", "cache1"} {
		c.nearest(desk, 10*time.Second, want, c.from(host)...)
	}

	c.shipper.stop(t)
	c.powerOn("vault1")
	c.startShipper() // its next attempt would be half a minute away
	must(t, os.Rename(filepath.Join(c.mount, "awkward"), filepath.Join(c.mount, "moved")))
	c.write(r, "late", 1<<20)
	c.wait("stored")
	want = snapshot(t, c.mount)
	c.powerOff("alpha")
	c.powerOff("cache1")
	c.divide("charlie", "vault1")
	c.nearest(desk, 10*time.Second, want, c.from("charlie", "vault1")...)
	c.powerOff("charlie")
	c.powerOff("vault1")
	out := c.nearest("bravo", 15*time.Second, want, "-c", c.peerConfig("bravo"))
	for _, host := range []string{"cache1", "charlie"} {
		if !strings.Contains(out, host) {
			t.Errorf("nothing is said of %s, which is off:\n%s", host, out)
		}
	}
	c.isWarm("bravo", warm, want)
}

// from returns the flags that name hosts and how to reach them.
func (c *cluster) from(hosts ...string) []string {
	args := []string{"--ssh-key", c.key, "--known-hosts", c.known}
	for _, h := range hosts {
		args = append(args, "--from", h+"="+c.hosts[h].url())
	}
	return args
}

// nearest restores on a node, wants it to be this within a time, and returns what the command said.
func (c *cluster) nearest(node string, within time.Duration, want map[string]object, args ...string) string {
	c.t.Helper()
	target := filepath.Join(c.t.TempDir(), "restored")
	began := time.Now()
	out, code := c.tryOn(node, append([]string{"restore", "--identity", c.ident, "--target", target}, args...)...)
	if code != 0 {
		c.t.Fatalf("restore %v: exit code %d\n%s", args, code, out)
	}
	took := time.Since(began)
	equal(c.t, fmt.Sprintf("restored on %s in %.2f s", node, took.Seconds()), want, snapshot(c.t, target))
	if took > within {
		c.t.Errorf("restore %v took %v", args, took)
	}
	return out
}

// divide leaves each of two hosts every other shard that they both have, so that neither can restore alone.
func (c *cluster) divide(one, other string) {
	c.t.Helper()
	list := func(host string) []string {
		dir := filepath.Join(c.hosts[host].data, "projects")
		files, err := filepath.Glob(filepath.Join(dir, "shards", "*", "*.shard"))
		must(c.t, err)
		for i := range files {
			files[i] = strings.TrimPrefix(files[i], dir)
		}
		return files
	}
	shards := list(one)
	if len(shards) < 2 || !slices.Equal(shards, list(other)) {
		c.t.Fatalf("%s has the shards %v, %s %v", one, shards, other, list(other))
	}
	for i, s := range shards {
		must(c.t, os.Remove(filepath.Join(c.hosts[[]string{one, other}[i%2]].data, "projects", s)))
	}
	for _, host := range []string{one, other} {
		out, code := c.try(append([]string{"restore", "--identity", c.ident, "--target", filepath.Join(c.t.TempDir(), "part")}, c.from(host)...)...)
		if code == 0 {
			c.t.Errorf("%s restores without half of its shards\n%s", host, out)
		}
	}
}

// keepWarm has a peer keep a warm tree and returns the directory of the volume's.
func (c *cluster) keepWarm(node string) string {
	c.t.Helper()
	dir := filepath.Join(c.dir, node+"-warm")
	must(c.t, os.Mkdir(dir, 0o700))
	text, err := os.ReadFile(c.peerConfig(node))
	must(c.t, err)
	block := fmt.Sprintf("peer:\n  warm: %s\n  identity: %s\n", dir, c.ident)
	must(c.t, os.WriteFile(c.peerConfig(node), []byte(strings.Replace(string(text), "peer:\n", block, 1)), 0o600))
	return filepath.Join(dir, "projects")
}

// isWarm waits until a peer's warm tree is at its head and compares it.
func (c *cluster) isWarm(node, dir string, want map[string]object) {
	c.t.Helper()
	c.eventually(10*time.Second, "the warm tree to be at the head", func() error {
		rows := c.jsonLines("status", "-c", c.peerConfig(node))
		tree, ok := rows[0]["warm"].(map[string]any)
		if !ok || tree["error"] != nil || tree["batch"] != rows[0]["head_batch"] {
			return fmt.Errorf("status %v", rows)
		}
		return nil
	})
	equal(c.t, "warm tree of "+node, want, snapshot(c.t, dir))
}
