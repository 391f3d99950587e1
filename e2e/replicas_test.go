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

// TestReplicasWalkThrough runs the commands of docs/replicas.md as they stand there, on a cluster whose cache host has a slow line.
// What stands below a command is what it has to print, sooner or later.
func TestReplicasWalkThrough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/replicas.md")
	must(t, err)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}, minReplicas: 1})
	ran := 0
	for _, block := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ := strings.Cut(block, "```")
		lines := strings.Split(strings.TrimSpace(block), "\n")
		for i := 0; i < len(lines); ran++ {
			node, command, ok := strings.Cut(lines[i], "# ")
			if !ok {
				t.Fatalf("no command: %q", lines[i])
			}
			i++
			from := i
			for i < len(lines) && !strings.Contains(lines[i], "# ") {
				i++
			}
			c.walk(node, command, lines[from:i])
		}
	}
	if ran < 15 {
		t.Errorf("only %d commands were run", ran)
	}
}

// walk runs one command of the document.
func (c *cluster) walk(node, command string, want []string) {
	c.t.Helper()
	c.t.Logf("%s# %s", node, command)
	args := strings.Fields(command)
	switch {
	case command == "slipway mount &":
		c.startPrimary()
	case command == "slipway ship &":
		c.startShipper()
	case command == "slipway peer &":
		c.peerOn(node)
	case args[0] == "head":
		c.slow("cache1", count(4<<20, 20<<20))
		big := filepath.Join(c.mount, "big")
		must(c.t, os.WriteFile(big, noise(random(c.t), count(32<<20, 1<<30)), 0o644))
		c.slipway("wait", big, "--stage", "replicated", "--timeout", "5m", "-c", c.config)
		c.eventually(time.Minute, "the peers to hold what cache1 lacks", func() error {
			bravo, charlie, shards := c.acked("bravo", "bravo"), c.acked("charlie", "charlie"), c.shards("cache1")
			if bravo != charlie || int(bravo) <= c.holds("cache1") || shards == 0 {
				return fmt.Errorf("bravo holds batch %d, charlie %d, cache1 %d and %d shards", bravo, charlie, c.holds("cache1"), shards)
			}
			return nil
		})
	case args[0] == "kill":
		c.powerOff(node)
		c.powerOn(node)
	default:
		c.expect(node, args, want)
	}
}

// expect runs a command until it prints what the document says: each row of it is there, with more columns behind.
func (c *cluster) expect(node string, args []string, want []string) {
	c.t.Helper()
	if args[0] != "slipway" {
		c.t.Fatalf("%v is not a command of the walk-through that this test knows", args)
	}
	conf := map[string]string{"alpha": c.config, "bravo": c.peerConfig("bravo"), "charlie": c.peerConfig("charlie")}[node]
	args = append(slices.Clone(args[1:]), "-c", conf)
	for i, a := range args {
		args[i] = strings.Replace(a, "/srv/projects", c.mount, 1)
	}
	c.eventually(2*time.Minute, strings.Join(args, " ")+" to print what the document says", func() error {
		out, code := c.tryOn(node, args...)
		if code != 0 {
			return fmt.Errorf("exit code %d\n%s", code, out)
		}
		for _, line := range want {
			if !hasRow(out, strings.Fields(line)) {
				return fmt.Errorf("no row %q in\n%s", line, out)
			}
		}
		return nil
	})
}

// hasRow tells whether a line of a table begins with these cells.
func hasRow(table string, cells []string) bool {
	for line := range strings.SplitSeq(table, "\n") {
		if f := strings.Fields(line); len(f) >= len(cells) && slices.Equal(f[:len(cells)], cells) {
			return true
		}
	}
	return false
}
