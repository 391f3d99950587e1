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

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
)

// TestFailBack: alpha dies, bravo is promoted and written on, alpha becomes its peer, is promoted again and written on, and bravo is a
// peer as before. No write is lost on the way, what alpha alone had lies beside its files, and what travels to alpha is about what
// changed while it was away. docs/promotion.md has the commands.
func TestFailBack(t *testing.T) {
	t.Parallel()
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}, minReplicas: 2})
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	awkward(t, filepath.Join(c.mount, "awkward"), r)
	const size = 32 << 20
	c.write(r, "big", size)
	must(t, os.WriteFile(filepath.Join(c.mount, "sly"), []byte("as it was"), 0o644))
	c.wait("stored")
	c.named("bravo")
	c.linkDown("alpha")
	must(t, os.WriteFile(filepath.Join(c.mount, "unpushed"), []byte("nobody else has this"), 0o644))
	c.powerOff("alpha")

	// Over.
	source := filepath.Join(c.dir, "promoted")
	c.promoted("bravo", []string{"promote", "projects", "-c", c.peerConfig("bravo"), "--source", source, "--identity", c.ident,
		"--replica", "alpha=" + c.hosts["alpha"].url(), "--yes"})
	conf := filepath.Join(c.peerState("bravo"), "projects.yml")
	onBravo := c.mountOn("bravo", source, conf)
	f, err := os.OpenFile(filepath.Join(source, "big"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(noise(r, 100_000), size/2)
	must(t, err)
	must(t, f.Close())
	sly := filepath.Join(source, "sly")
	var st unix.Stat_t
	must(t, unix.Stat(sly, &st))
	must(t, os.WriteFile(sly, []byte("as it is!"), 0o644)) // neither size nor time tell
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, sly, []unix.Timespec{st.Atim, st.Mtim}, 0))
	must(t, os.RemoveAll(filepath.Join(source, "awkward", "sub")))
	must(t, os.WriteFile(filepath.Join(source, "after"), []byte("on bravo"), 0o644))
	c.waitOn("bravo", source, conf)

	// alpha finds out, and becomes a peer, before its account lets bravo in.
	// What alpha read when it was the owner (a shard that a peer had begun to send as well is compared with its own) is not of the way back.
	others := []string{"bravo", "charlie", "cache1"}
	pushedBefore, readBefore := map[string]int64{}, map[string]int64{}
	for _, other := range others {
		pushedBefore[other], readBefore[other] = c.traffic(other, "alpha").In, c.traffic("alpha", other).Out
	}
	c.linkUp("alpha")
	old := c.spawn("alpha", "old owner", "mount", "-c", c.config)
	c.eventually(60*time.Second, "alpha to find out", func() error {
		_, err := os.Stat(filepath.Join(c.dir, "state", "superseded.json"))
		return err
	})
	old.end(20 * time.Second)
	demote := []string{"demote", "-c", c.config, "--store", c.hosts["alpha"].data, "--yes"}
	if out, code := c.tryOn("alpha", demote...); code != 0 {
		t.Fatalf("demote alpha: exit code %d\n%s", code, out)
	}
	c.serve(c.hosts["alpha"])
	peerConf := filepath.Join(c.dir, "state", "peer.yml")
	c.spawn("alpha", "peer of alpha", "peer", "-c", peerConf)
	c.keyNamed("alpha", "2", filepath.Join(c.dir, "state", "peer", "node.key.pub"), source)
	if out, code := c.tryOn("bravo", "umount", "--drain", "stored", "--timeout", "4m", "-c", conf); code != 0 {
		t.Fatalf("umount on bravo: exit code %d\n%s", code, out)
	}
	<-onBravo.done
	want := snapshot(t, source)
	c.eventually(30*time.Second, "alpha's copy to be whole", func() error {
		if a, v := c.newestBatch("alpha"), c.newestBatch("vault1"); a != v {
			return fmt.Errorf("newest batch %s, on vault1 %s", a, v)
		}
		return nil
	})

	// Back.
	aside := filepath.Join(c.dir, "aside")
	c.promoted("alpha", []string{"promote", "projects", "-c", peerConf, "--source", c.source, "--aside", aside, "--identity", c.ident, "--yes"})
	equal(t, "alpha's directory", want, snapshot(t, c.source))
	moved := int64(0)
	for _, other := range others {
		pushed, read := c.traffic(other, "alpha").In-pushedBefore[other], c.traffic("alpha", other).Out-readBefore[other]
		t.Logf("%s has pushed %d bytes to alpha, and alpha has read %d there", other, pushed, read)
		moved += pushed + read
	}
	t.Logf("%d bytes have travelled to alpha for a difference of 100,000 bytes in a volume of %d", moved, size)
	if moved > size/2 {
		t.Errorf("that is more than half of the volume")
	}
	if data, err := os.ReadFile(filepath.Join(aside, "unpushed")); err != nil || string(data) != "nobody else has this" {
		t.Errorf("what alpha alone had: %q, %v", data, err)
	}
	conf = filepath.Join(c.dir, "state", "peer", "projects.yml")
	c.mountOn("alpha", c.source, conf)
	must(t, os.WriteFile(filepath.Join(c.source, "back"), []byte("on alpha"), 0o644))
	c.waitOn("alpha", c.source, conf)
	equal(t, "restored from vault1", snapshot(t, c.source), snapshot(t, c.restore("vault1")))

	// bravo is a peer as before.
	demote = []string{"demote", "-c", filepath.Join(c.peerState("bravo"), "projects.yml"), "--peer", c.peerConfig("bravo"), "--yes"}
	if out, code := c.tryOn("bravo", demote...); code != 0 {
		t.Fatalf("demote bravo: exit code %d\n%s", code, out)
	}
	c.keyNamed("bravo", "3", filepath.Join(c.peerState("bravo"), "node.key.pub"), c.source)
	c.waitOn("alpha", c.source, conf)
	for _, host := range []string{"bravo", "charlie"} {
		c.eventually(30*time.Second, host+"'s copy to be whole", func() error {
			if a, v := c.newestBatch(host), c.newestBatch("vault1"); a != v {
				return fmt.Errorf("newest batch %s, on vault1 %s", a, v)
			}
			return nil
		})
	}
}

// newestBatch is the path of the newest batch of the newest epoch on a host.
func (c *cluster) newestBatch(host string) string {
	files, _ := filepath.Glob(filepath.Join(c.hosts[host].data, "projects", "batches", "*", "*", "*.batch"))
	if len(files) == 0 {
		return ""
	}
	rel, err := filepath.Rel(c.hosts[host].data, files[len(files)-1]) // Glob sorts
	must(c.t, err)
	return rel
}

// keyNamed writes small files until a batch of an epoch, in a peer's store, names the peer's key.
func (c *cluster) keyNamed(peer, epoch, keyFile, source string) {
	c.t.Helper()
	var last time.Time
	c.eventually(60*time.Second, "a batch of epoch "+epoch+" that names the key of "+peer, func() error {
		if now := time.Now(); now.Sub(last) > time.Second {
			last = now
			must(c.t, os.WriteFile(filepath.Join(source, "after"), []byte(now.String()), 0o644))
		}
		key, err := os.ReadFile(keyFile)
		if err != nil {
			return err
		}
		files, _ := filepath.Glob(filepath.Join(c.hosts[peer].data, "projects", "batches", "0000000"+epoch, "*", "*.batch"))
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			b, err := batch.Parse(data)
			if err == nil && slices.Contains(b.Envelope.NextKeys, strings.Join(strings.Fields(string(key))[:2], " ")) {
				return nil
			}
		}
		return fmt.Errorf("none of %d batches names it", len(files))
	})
}
