//go:build bench

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBenchPeers: what replica peers cost the owner. The first backup of the Go source tree over cache1 to vault1, with 0, 1 and 2 peers that
// take a copy each. All nodes share this machine's processors, so the time is an upper bound; the processor time is the owner's alone.
func TestBenchPeers(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	copyTree(t, runtime.GOROOT(), tree) //nolint:staticcheck // the tests run where they were built
	var took, used [3][]time.Duration
	for range 3 {
		for peers := range took {
			wall, cpu := benchPeers(t, tree, peers)
			took[peers], used[peers] = append(took[peers], wall), append(used[peers], cpu)
		}
	}
	rows := [][]string{{"", "until stored", "all", "ratio", "owner's processor time", "ratio"}}
	for peers, d := range took {
		rows = append(rows, []string{fmt.Sprintf("%d peers", peers),
			seconds(median(d)), fmt.Sprint(d), fmt.Sprintf("%.2f", median(d).Seconds()/median(took[0]).Seconds()),
			seconds(median(used[peers])), fmt.Sprintf("%.2f", median(used[peers]).Seconds()/median(used[0]).Seconds())})
	}
	table(t, "first backup with replica peers (median of 3, interleaved)", rows...)
}

// benchPeers returns the time until every copy was there, and the processor time of the owner's spooler.
func benchPeers(t *testing.T, tree string, peers int) (wall, cpu time.Duration) {
	t.Helper()
	c := newCluster(t, clusterOptions{minReplicas: peers, siteOptions: siteOptions{
		inPlace: true, vaults: []string{"vault1"}, replicas: []string{"bravo", "charlie"}[:peers], ship: "  when: [{age: 0s}]\n  copies: 1\n"}})
	copyTree(t, tree+"/.", c.source)
	must(t, exec.Command("sync", "-f", c.source).Run())
	c.startShipper()
	var running []*process
	for _, name := range c.opt.replicas {
		running = append(running, c.spawn(name, "peer on "+name, "peer", "-c", c.peerConfig(name)))
	}
	began := time.Now()
	c.startPrimary()
	c.wait("stored")
	wall = time.Since(began)
	cpu = processorTime(t, c.child("spooler")[0])
	c.stopPrimary()
	for _, p := range running {
		p.end(20 * time.Second)
	}
	c.shipper.stop(t)
	return wall, cpu
}

// processorTime is what a process has used, in user mode and in the kernel.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, behind, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(behind)
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime and stime of proc(5), in ticks of 10 ms
		n, err := strconv.ParseInt(f, 10, 64)
		must(t, err)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
