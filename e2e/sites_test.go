package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTwoSites: two sites back each other up. Each one's backup host is a receiver at the other. One site is lost with all it had; what it
// had written is restored from the other, which goes on meanwhile.
func TestTwoSites(t *testing.T) {
	r := random(t)
	north, south := newBackedUp(t, r), newBackedUp(t, r)
	north.start()
	south.start()
	for _, s := range []*backedUp{north, south} {
		awkward(t, filepath.Join(s.mount, "awkward"), s.r)
		must(t, os.WriteFile(filepath.Join(s.mount, "big"), noise(s.r, 12<<20), 0o644))
		s.wait("stored")
		s.accepted()
	}
	want := snapshot(t, north.mount)
	north.stopPrimary()
	north.shipper.stop(t)
	for _, gone := range []string{north.source, filepath.Join(north.dir, "state"), north.hosts["cache1"].data} {
		must(t, os.RemoveAll(gone))
	}
	must(t, os.WriteFile(filepath.Join(south.mount, "later"), noise(r, 100_000), 0o644))
	if out, code := north.try("received", "verify", "-c", north.receiver); code != 0 {
		t.Errorf("received verify: exit code %d\n%s", code, out)
	}
	equal(t, "north, restored from south", want, snapshot(t, north.restore("vault1")))
	south.wait("stored")
	south.accepted()
	equal(t, "south, restored from what north still has", snapshot(t, south.mount), snapshot(t, south.restore("vault1")))
	south.stopPrimary()
	south.shipper.stop(t)
}

// backedUp is a site whose backup host, vault1, is a receiver at another.
type backedUp struct {
	*site
	r        *rand.Rand
	receiver string // its configuration
}

func newBackedUp(t *testing.T, r *rand.Rand) *backedUp {
	t.Helper()
	s := &backedUp{site: newSite(t, siteOptions{vaults: []string{"vault1"}, ship: "  when: [{age: 0s}]\n  copies: 1\n"}), r: r}
	key, err := os.ReadFile(filepath.Join(s.dir, "state", "node.key.pub"))
	must(t, err)
	s.receiver = filepath.Join(s.dir, "receive.yml")
	text := fmt.Sprintf("node: vault1\nstore: %s\nstate: %s\nowners:\n  projects: [%q]\nreceive: {quota: 1GiB}\n",
		s.hosts["vault1"].data, filepath.Join(s.dir, "receive-state"), strings.TrimSpace(string(key)))
	must(t, os.WriteFile(s.receiver, []byte(text), 0o600))
	p := s.spawn("vault1", "receive", "receive", "-c", s.receiver)
	t.Cleanup(func() { p.end(20 * time.Second) })
	return s
}

// accepted waits until the receiver has accepted what the site's shipper has sent.
func (s *backedUp) accepted() {
	s.t.Helper()
	head := fmt.Sprint(s.batches("vault1"))
	s.eventually(20*time.Second, "the receiver to accept batch "+head, func() error {
		rows := s.jsonLines("received", "ls", "-c", s.receiver)
		if len(rows) != 1 {
			return fmt.Errorf("%d volumes", len(rows))
		}
		for _, key := range []string{"volume", "node", "epoch", "batch", "sealed_at", "bytes", "quota", "refused", "state"} {
			if _, ok := rows[0][key]; !ok {
				s.t.Fatalf("no %q in %v", key, rows[0])
			}
		}
		if rows[0]["state"] != "ok" || jsonNumber(rows[0]["batch"]) != head || rows[0]["node"] != "alpha" {
			return fmt.Errorf("it says %v", rows[0])
		}
		return nil
	})
}

// batches returns how many batches lie in a host's store.
func (s *site) batches(host string) int {
	files, _ := filepath.Glob(filepath.Join(s.hosts[host].data, "projects", "batches", "00000001", "*", "*.batch"))
	return len(files)
}
