//go:build cluster

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPromote: alpha is gone for good, bravo becomes the owner, with everything that was pushed, and goes on. What moves is the
// difference. When alpha comes back it finds that it is not the owner any more, and is not mounted again; what it alone had sealed is
// a branch beside the main line.
func TestPromote(t *testing.T) {
	t.Parallel()
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}, minReplicas: 2})
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	awkward(t, filepath.Join(c.mount, "awkward"), r)
	const size = 4 << 20
	c.write(r, "big", size)
	c.wait("stored")
	want := snapshot(t, c.mount)
	c.named("bravo")

	source := filepath.Join(c.dir, "promoted")
	args := []string{"promote", "projects", "-c", c.peerConfig("bravo"), "--source", source, "--identity", c.ident, "--yes"}
	if out, code := c.tryOn("bravo", append(args, "--no-mount")...); code != 5 {
		t.Errorf("promoted while the owner lives: exit code %d\n%s", code, out)
	}
	c.linkDown("alpha")
	unpushed := filepath.Join(c.mount, "unpushed")
	must(t, os.WriteFile(unpushed, []byte("nobody else has this"), 0o644))
	if out, code := c.tryOn("alpha", "wait", unpushed, "--stage", "sealed", "--timeout", "4m", "-c", c.config); code != 0 {
		t.Fatalf("wait on alpha: exit code %d\n%s", code, out)
	}
	c.powerOff("alpha")
	c.promoted("bravo", args)
	c.mountOn("bravo", source, filepath.Join(c.peerState("bravo"), "projects.yml"))
	equal(t, "the promoted tree", want, snapshot(t, source))

	before := c.traffic("bravo", "cache1").In
	must(t, os.WriteFile(filepath.Join(source, "after"), noise(r, 100_000), 0o644))
	conf := filepath.Join(c.peerState("bravo"), "projects.yml")
	c.waitOn("bravo", source, conf)
	if moved := c.traffic("bravo", "cache1").In - before; moved > size/2 {
		t.Errorf("%d bytes were moved for a file of 100,000", moved)
	}
	now := snapshot(t, source)
	equal(t, "restored from vault1", now, snapshot(t, c.restore("vault1")))

	c.powerOn("alpha")
	old := c.spawn("alpha", "old owner", "mount", "-c", c.config)
	c.eventually(60*time.Second, "alpha to find out", func() error {
		if _, err := os.Stat(filepath.Join(c.dir, "state", "superseded.json")); err != nil {
			return err
		}
		return nil
	})
	old.end(20 * time.Second)
	out, code := c.tryOn("alpha", "mount", "-c", c.config)
	if code == 0 || !strings.Contains(out, "bravo") {
		t.Errorf("the old owner mounts again: exit code %d\n%s", code, out)
	}
	c.waitOn("bravo", source, conf)
	c.branch()
}

// branch looks on alpha for what it had sealed and nobody else had, and brings it back.
func (c *cluster) branch() {
	c.t.Helper()
	out, code := c.tryOn("alpha", "spool", "branches", "-c", c.config)
	if code != 0 || !strings.Contains(out, "restore --epoch 1") {
		c.t.Fatalf("spool branches: exit code %d\n%s", code, out)
	}
	out, code = c.tryOn("alpha", "spool", "branches", "--json", "-c", c.config)
	var row map[string]any
	if code != 0 || json.Unmarshal([]byte(out), &row) != nil {
		c.t.Fatalf("spool branches: exit code %d\n%s", code, out)
	}
	for _, key := range []string{"first", "last", "sealed_at", "files", "bytes", "removals"} {
		if _, ok := row[key]; !ok {
			c.t.Errorf("no %q in %s", key, out)
		}
	}
	if row["epoch"] != 1.0 || row["node"] != "alpha" || !strings.Contains(fmt.Sprint(row["stores"]), "alpha") { // bravo's as well, where alpha reached it before it knew
		c.t.Errorf("the branch: %s", out)
	}
	target := filepath.Join(c.dir, "branch")
	if out, code := c.tryOn("alpha", "restore", "--epoch", "1", "--identity", c.ident, "--target", target, "-c", c.config); code != 0 {
		c.t.Fatalf("restore the branch: exit code %d\n%s", code, out)
	}
	got, err := os.ReadFile(filepath.Join(target, "unpushed"))
	if err != nil || string(got) != "nobody else has this" {
		c.t.Errorf("what alpha had not pushed: %q, %v", got, err)
	}
}

// named waits until the owner has sealed a batch that names a peer's key, and its store has it.
func (c *cluster) named(peer string) {
	c.t.Helper()
	c.eventually(30*time.Second, "a batch that names the key of "+peer, func() error {
		key, err := os.ReadFile(filepath.Join(c.peerState(peer), "node.key.pub"))
		if err != nil {
			return err
		}
		files, _ := filepath.Glob(filepath.Join(c.hosts[peer].data, "projects", "batches", "00000001", "00000000", "*.batch"))
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err == nil && strings.Contains(string(data), strings.Fields(string(key))[1]) {
				return nil
			}
		}
		return fmt.Errorf("none of %d batches names it", len(files))
	})
	c.wait("stored")
}

// promoted runs the promotion as soon as the owner is silent for long enough, and returns what it says.
func (c *cluster) promoted(node string, args []string) (said string) {
	c.t.Helper()
	c.eventually(time.Minute, "the promotion", func() error {
		out, code := c.tryOn(node, append(args, "--no-mount")...)
		if code != 0 {
			return fmt.Errorf("exit code %d\n%s", code, out)
		}
		said = out
		return nil
	})
	return said
}

// mountOn mounts a volume on the node that owns it now.
func (c *cluster) mountOn(node, dir, conf string) *process {
	c.t.Helper()
	p := c.spawn(node, "mount on "+node, "mount", "-c", conf)
	c.eventually(20*time.Second, "the mount on "+node, func() error {
		if c.mounted(dir) {
			return nil
		}
		return p.alive()
	})
	return p
}

func (c *cluster) mounted(dir string) bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(c.t, err)
	return strings.Contains(string(data), " "+dir+" ")
}

// waitOn waits on a node until what was written there is stored.
func (c *cluster) waitOn(node, path, conf string) {
	c.t.Helper()
	if out, code := c.tryOn(node, "wait", path, "--stage", "stored", "--timeout", "4m", "-c", conf); code != 0 {
		c.t.Fatalf("wait on %s: exit code %d\n%s", node, code, out)
	}
}
