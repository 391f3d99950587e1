//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWentBack: a replica peer, the cache and a backup host are each put back to an older state, and each emptied. All are filled again
// from the others, somebody says so, and afterwards every store holds the same history.
func TestWentBack(t *testing.T) {
	t.Parallel()
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}, minReplicas: 2})
	c.start()
	for _, node := range c.opt.replicas {
		c.peerOn(node)
	}
	n := 0
	write := func() {
		n++
		c.write(r, fmt.Sprintf("file%d", n), 3<<20)
		c.wait("stored")
		c.oneHistory()
	}
	write()
	old := t.TempDir()
	for _, host := range []string{"bravo", "cache1", "vault1"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(c.hosts[host].data, "projects"), filepath.Join(old, host)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	write()
	write()

	for _, row := range []struct {
		host    string
		restart func() // the daemon on it, which did not run meanwhile; nil: there is none
		tells   []func() *process
		said    string
	}{
		{"bravo", func() { c.peerOn("bravo") }, []func() *process{func() *process { return c.primary }}, "store went back"},
		{"cache1", c.startShipper, []func() *process{func() *process { return c.primary }, func() *process { return c.shipper }}, "went back"},
		{"vault1", nil, []func() *process{func() *process { return c.shipper }}, "has gone back"},
	} {
		for _, to := range []string{"older", "empty"} {
			before := map[*process]int{}
			for _, p := range row.tells {
				before[p()] = len(p().log.String())
			}
			if row.restart != nil {
				c.kill(row.host, daemons)
				c.gone(row.host)
			}
			dir := filepath.Join(c.hosts[row.host].data, "projects")
			must(t, os.RemoveAll(dir))
			if to == "older" {
				if out, err := exec.Command("cp", "-a", filepath.Join(old, row.host), dir).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			if row.restart != nil {
				row.restart()
			} else {
				pause(t, 31*time.Second) // a backup host is asked where it stands when it has said nothing for 30 s
			}
			write()
			var log string
			for _, p := range row.tells {
				log += p().log.String()[before[p()]:]
			}
			if !strings.Contains(log, row.said) && !strings.Contains(log, "the head goes back") {
				t.Errorf("%s, %s: nobody said so\n%s", row.host, to, tail(log, 15))
			}
		}
	}
	equal(t, "restored from vault1", snapshot(t, c.mount), snapshot(t, c.restore("vault1")))
}
