package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const replicaYAML = `node: bravo
store: /srv/replicas
state: /var/lib/slipway/peer
name: bravo2
peer:
  cache: {name: cache1, url: "sftp://slipway-projects@cache1/data", limit: 50MiB/s}
  replicas:
    - {name: charlie, url: "sftp://slipway-projects@charlie/data"}
  stale_after: 7s
  stall_after: 1m
  step: 500ms
  prefer_after: 5m
  cap: 500GiB
owners:
  projects: ["` + publicKey + `"]
ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}
`

func TestReplica(t *testing.T) {
	c, err := Parse("p.yml", []byte(replicaYAML))
	if err != nil {
		t.Fatal(err)
	}
	want := &Peer{
		Node: "bravo", Store: "/srv/replicas", State: "/var/lib/slipway/peer", Name: "bravo2",
		Cache:      Store{Name: "cache1", URL: "sftp://slipway-projects@cache1/data", Limit: "50MiB/s"},
		Replicas:   []Store{{Name: "charlie", URL: "sftp://slipway-projects@charlie/data"}},
		StaleAfter: 7 * time.Second, StallAfter: time.Minute, Step: 500 * time.Millisecond, PreferAfter: 5 * time.Minute, Cap: 500 << 30,
		Owners: map[string][]string{"projects": {publicKey}},
		SSH:    SSH{Key: "/etc/slipway/keys/ssh", KnownHosts: "/etc/slipway/known_hosts"},
	}
	if d := cmp.Diff(want, c.Peer); d != "" {
		t.Error(d)
	}
	if c.Primary != nil || c.Cache != nil || c.State() != want.State || c.SSH() != want.SSH {
		t.Errorf("primary %v, cache %v, state %q, ssh %v", c.Primary, c.Cache, c.State(), c.SSH())
	}
}

func TestPeerDefaults(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("p.yml", []byte("node: bravo\nstore: "+dir+"\npeer: {cache: {url: "+dir+"-c}, replicas: [{url: "+dir+"-r}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Peer
	if p.State != "/var/lib/slipway/bravo" || p.Name != "bravo" || p.Cache.Name != "cache" || p.Replicas[0].Name != "replica1" || p.Cap <= 0 {
		t.Errorf("%+v", p)
	}
	if p.StaleAfter != 5*time.Second || p.StallAfter != 5*time.Second || p.Step != time.Second || p.PreferAfter != time.Minute {
		t.Errorf("%+v", p)
	}
}

// TestPeerFaults spoils one thing each and wants exactly that fault, with its place and the fix.
func TestPeerFaults(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want, fix string }{
		{"misspelt key", "stale_after", "stale_afer", `9:3: unknown key "peer.stale_afer"`, `did you mean "stale_after"?`},
		{"key of a cache host", "  cap: 500GiB\n", "  cap: 500GiB\n  copies: 2\n", `14:3: unknown key "peer.copies"`, ""},
		{"no node", "node: bravo\n", "", `"node" is missing`, "node: NAME"},
		{"no store", "store: /srv/replicas\n", "", `"store" is missing`, "store: DIR"},
		{"no cache", "  cache: {name: cache1, url: \"sftp://slipway-projects@cache1/data\", limit: 50MiB/s}\n", "", `"peer.cache" is missing`, "cache: {name: cache1"},
		{"bad URL", `"sftp://slipway-projects@cache1/data"`, `"sftp://cache1:data"`, `6:30: peer.cache.url: `, "sftp://user@host"},
		{"bad limit", "limit: 50MiB/s", "limit: fast", `6:76: peer.cache.limit: rate "fast"`, "50MiB/s"},
		{"no unit", "stale_after: 7s", "stale_after: 7", `9:16: peer.stale_after: duration "7" has no unit`, ""},
		{"too soon", "stale_after: 7s", "stale_after: 1ms", `9:16: peer.stale_after: 1ms is out of range`, "1s to 10m"},
		{"too late", "stall_after: 1m", "stall_after: 1h", `10:16: peer.stall_after: 1h is out of range`, "1s to 10m"},
		{"no step", "step: 500ms", "step: 0s", `11:9: peer.step: 0s is out of range`, "100ms to 1m"},
		{"never back", "prefer_after: 5m", "prefer_after: 2d", `12:17: peer.prefer_after: 2d is out of range`, "1s to 1d"},
		{"cap below a shard", "cap: 500GiB", "cap: 1MiB", `13:8: peer.cap: 1MiB is too small`, "8.0 MiB"},
		{"state below store", "state: /var/lib/slipway/peer", "state: /srv/replicas/state", `3:8: state /srv/replicas/state and store /srv/replicas lie one below the other`, "apart"},
		{"store below state", "state: /var/lib/slipway/peer", "state: /srv", `3:8: state /srv and store /srv/replicas lie one below the other`, "apart"},
		{"one name twice", "name: charlie", "name: cache1", `8:14: peer.replicas[0]: the name "cache1" is also that of peer.cache`, ""},
		{"its own name", "name: charlie", "name: bravo2", `8:14: peer.replicas[0]: the name "bravo2" is also that of this store`, ""},
		{"its own place", `"sftp://slipway-projects@charlie/data"`, "/srv/replicas", `8:28: peer.replicas[0] lies where this store lies`, "another place"},
		{"owner's key", `"` + publicKey + `"`, `"ssh-rsa AAAA"`, `15:14: owners.projects[0]: not an Ed25519 public key`, ""},
		{"no ssh block", "ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}\n", "", `store "cache1" is reached over SFTP, and there is no ssh: block`, "ssh:"},
		{"a cache host too", "owners:", "ship: {to: [{url: /b}]}\nowners:", "1:1: more than one of `ship:` (a cache host), `peer:` (a replica peer) and `receive:` (a receiver) in one file", "file of its own"},
		{"a primary too", "owners:", "volume: projects\nowners:", "1:1: both `volume:`", "file of its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(replicaYAML, tt.from) != 1 {
				t.Fatalf("%q stands %d times in the configuration", tt.from, strings.Count(replicaYAML, tt.from))
			}
			_, err := Parse("x.yml", []byte(strings.Replace(replicaYAML, tt.from, tt.to, 1)))
			var faults *Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error is %v", err)
			}
			if len(faults.Found) != 1 || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.fix) || !strings.Contains(err.Error(), "fix: ") {
				t.Errorf("want %q and the fix %q in:\n%v", tt.want, tt.fix, err)
			}
		})
	}
}
