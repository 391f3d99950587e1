//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWarmPromotion: a peer with a warm tree is promoted, and written on within seconds, however many files there are.
func TestWarmPromotion(t *testing.T) {
	r := random(t)
	warm := filepath.Join(t.TempDir(), "warm")
	must(t, os.Mkdir(warm, 0o700))
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}, replicas: []string{"bravo"}}, minReplicas: 1})
	c.opt.peer = []string{"warm: " + warm, "identity: " + c.ident}
	c.writePeerConfig("bravo")
	files := count(2_000, 100_000)
	for i := range files { // before the first mount: it is promotion that is measured
		dir := filepath.Join(c.source, fmt.Sprintf("d%03d", i/500))
		if i%500 == 0 {
			must(t, os.Mkdir(dir, 0o755))
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), noise(r, 20+r.IntN(100)), 0o644))
	}
	c.start()
	c.peerOn("bravo")
	c.wait("stored")
	c.named("bravo")
	tree := filepath.Join(warm, "projects")
	c.eventually(time.Duration(count(30, 300))*time.Second, "the warm tree to be whole", func() error {
		row := c.status(c.peerConfig("bravo"))
		w, _ := row["warm"].(map[string]any)
		if w == nil || w["error"] != nil || w["batch"] != row["head_batch"] {
			return fmt.Errorf("%v, head %v", w, row["head_batch"])
		}
		return nil
	})
	want := snapshot(t, c.mount)
	c.powerOff("alpha")
	pause(t, 12*time.Second) // until alpha counts as silent

	began := time.Now()
	p := c.spawn("bravo", "promotion", "promote", "projects", "-c", c.peerConfig("bravo"), "--identity", c.ident, "--yes")
	c.eventually(2*time.Minute, "the promoted volume to be writable", func() error {
		if !c.mounted(tree) {
			return p.alive()
		}
		return os.WriteFile(filepath.Join(tree, "after"), []byte("on bravo"), 0o644)
	})
	took := time.Since(began)
	t.Logf("%d files: writable after %.2f s", files, took.Seconds())
	if took > 5*time.Second {
		t.Errorf("it took %v, want 5 s", took)
	}
	c.waitOn("bravo", tree, filepath.Join(c.peerState("bravo"), "projects.yml"))
	must(t, os.Remove(filepath.Join(tree, "after")))
	c.waitOn("bravo", tree, filepath.Join(c.peerState("bravo"), "projects.yml"))
	got := snapshot(t, tree)
	delete(want, ".")
	delete(got, ".") // its times have moved
	equal(t, "the promoted volume", want, got)
}
