package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"slipway/e2e/netns"
	"slipway/internal/sshd"
)

// cluster is a site whose nodes are apart: each has a network namespace, its own address, an SSH server and its own daemons.
//
//	alpha           owner and primary; c.startPrimary()
//	bravo, charlie  replica peers, in this order; c.spawn(node, "peer of "+node, "peer", "-c", c.peerConfig(node))
//	cache1          c.startShipper()
//	vault1, vault2  backup hosts
//	desk            where commands are run that belong to no node (c.slipway, c.restore); no server
//
// All of them share the file system, each with directories of its own.
type cluster struct {
	*site
	opt clusterOptions
}

// clusterOptions may be zero.
type clusterOptions struct {
	siteOptions               // net and hosts are set here; replicas: default bravo and charlie
	minReplicas int           // how many make "replicated"
	staleAfter  time.Duration // of the peers; default 5s
	stallAfter  time.Duration // of the peers; default 5s
	peer        []string      // more lines of the peers' block: "warm: DIR"
}

const desk = "desk"

// newCluster makes nodes, hosts and configurations; nothing of slipway runs yet. When the test ends, nothing of it may be left.
func newCluster(t *testing.T, opt clusterOptions) *cluster {
	t.Helper()
	hosts := []string{"alpha", "bravo", "charlie", "cache1", "vault1", "vault2"}
	network, err := netns.New(append(hosts, desk)...)
	must(t, err)
	t.Cleanup(func() {
		must(t, network.Close())
		eventually(t, 10*time.Second, "all processes of the cluster to end", func() error {
			if left := network.Inside(); len(left) > 0 {
				return fmt.Errorf("processes %v are left", left)
			}
			return nil
		})
	})
	opt.net, opt.hosts = network, hosts
	if opt.replicas == nil {
		opt.replicas = []string{"bravo", "charlie"}
	}
	if opt.minReplicas > 0 {
		opt.primary += fmt.Sprintf("\nmin_replicas: %d", opt.minReplicas)
	}
	if opt.staleAfter == 0 {
		opt.staleAfter = 5 * time.Second
	}
	if opt.stallAfter == 0 {
		opt.stallAfter = 5 * time.Second
	}
	c := &cluster{site: newSite(t, opt.siteOptions), opt: opt}
	for _, node := range opt.replicas {
		c.writePeerConfig(node)
	}
	return c
}

// peerConfig is the path of a replica peer's configuration; peerState of its state directory.
func (c *cluster) peerConfig(node string) string { return filepath.Join(c.dir, node+".yml") }
func (c *cluster) peerState(node string) string  { return filepath.Join(c.dir, node+"-state") }

// writePeerConfig names cache1 and the volume's other replica peers, in order.
func (c *cluster) writePeerConfig(node string) {
	c.t.Helper()
	text := fmt.Sprintf("node: %s\nstore: %s\nstate: %s\npeer:\n  cache: {name: cache1, url: %q}\n  replicas:\n",
		node, c.hosts[node].data, c.peerState(node), c.url("cache1", c.opt.siteOptions))
	for _, other := range slices.DeleteFunc(slices.Clone(c.opt.replicas), func(name string) bool { return name == node }) {
		text += fmt.Sprintf("    - {name: %s, url: %q}\n", other, c.url(other, c.opt.siteOptions))
	}
	if len(c.opt.replicas) == 1 {
		text = text[:len(text)-1] + " []\n"
	}
	text += fmt.Sprintf("  stale_after: %v\n  stall_after: %v\n  cap: 8GiB\n", c.opt.staleAfter, c.opt.stallAfter)
	for _, line := range c.opt.peer {
		text += "  " + line + "\n"
	}
	text += fmt.Sprintf("ssh: {key: %s, known_hosts: %s}\n", c.key, c.known)
	must(c.t, os.WriteFile(c.peerConfig(node), []byte(text), 0o600))
}

// traffic is what one node has sent to another's SSH server and got from it. Bytes count when they have arrived there, each
// once: what TCP sent again is not in it, what a daemon sent again is.
func (c *cluster) traffic(from, to string) sshd.Traffic {
	return c.hosts[to].srv.Traffic(c.net.Node(from).Addr)
}
