//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestPeerBesideMount: bravo has a volume of its own mounted, and holds alpha's as well, with one command. Killed, the peer is there
// again, and bravo's own volume does not notice.
func TestPeerBesideMount(t *testing.T) {
	t.Parallel()
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}, replicas: []string{"bravo"}}, minReplicas: 1})
	own := filepath.Join(c.dir, "reports")
	must(t, os.Mkdir(own, 0o755))
	conf := filepath.Join(c.dir, "reports.yml")
	c.slipway("init", "--volume", "reports", "--node", "bravo", "--source", own, "--mount", own, "--state", filepath.Join(c.dir, "reports-state"),
		"--cache", "cache1="+c.hosts["cache1"].url(), "--ssh-key", c.key, "--known-hosts", c.known,
		"--identity", filepath.Join(c.dir, "reports.identity"), "--config", conf)
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = fmt.Fprintf(f, "\npeer_config: %s\n", c.peerConfig("bravo"))
	must(t, err)
	must(t, f.Close())
	c.start()
	p := c.mountOn("bravo", own, conf)
	c.write(r, "file", 100_000)
	must(t, os.WriteFile(filepath.Join(own, "report"), []byte("of bravo"), 0o644))
	c.wait("replicated")
	c.wait("stored")
	c.waitOn("bravo", own, conf)

	peer := children(p.cmd.Process.Pid, "peer")
	if len(peer) != 1 {
		t.Fatalf("peers beside the mount: %v", peer)
	}
	c.send(syscall.SIGKILL, peer...)
	c.write(r, "file", 200_000)
	c.wait("replicated")
	must(t, os.WriteFile(filepath.Join(own, "report"), []byte("of bravo, once more"), 0o644))
	c.waitOn("bravo", own, conf)
	c.eventually(20*time.Second, "bravo's peer to say that it holds everything", func() error {
		row := c.status(c.peerConfig("bravo"))
		if n, ok := row["head_batch"].(float64); !ok || int(n) != c.holds("vault1") {
			return fmt.Errorf("head %v of %d", row["head_batch"], c.holds("vault1"))
		}
		return nil
	})
}
