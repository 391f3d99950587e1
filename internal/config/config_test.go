package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"
	second    = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio"
)

// primaryYAML is a whole primary's configuration; tests spoil one line of it.
const primaryYAML = `volume: projects
node: alpha
source: /srv/projects
mount: /srv/projects
state: /var/lib/slipway/projects
spool: {dir: /var/spool/slipway/projects, cap: 50GiB}
recipients:
  - ` + recipient + `
  - ` + second + `
replicas:
  - {name: bravo, url: "sftp://slipway-projects@bravo/data", key: "` + publicKey + `"}
cache: {name: cache1, url: "sftp://slipway-projects@cache1/data", limit: "08:00,512K 18:00,off"}
backups:
  - {name: vault1, url: "sftp://slipway-projects@vault1/data", connections: 2}
ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}
exclude:
  - "*.tmp"
  - /scratch/
copies: 2
settle: 300ms
max_age: 10s
open_interval: 1m
min_replicas: 1
allow_other: false
batch_interval: 500ms
`

const cacheYAML = `node: cache1
store: /srv/spool
state: /var/lib/slipway/cache
ship:
  when:
    - {age: 6h, window: "Mon-Fri 22:00-06:00 Europe/Berlin"}
    - {bytes: 10GiB}
    - {cache_used: 80%, idle: 5m, batches: 3}
    - {manual: true}
  copies: 2
  keep: 14d
  cap: 500GiB
  verify_after: 30m
  to:
    - {name: vault1, url: "sftp://slipway-projects@vault1/data", limit: 50MiB/s}
    - {name: vault2, url: "sftp://slipway-projects@vault2/data"}
owners:
  projects: ["` + publicKey + `"]
ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}
`

const peerYAML = `node: bravo
store: /srv/replicas
state: /var/lib/slipway/bravo
peer:
  cache: {name: cache1, url: "sftp://slipway-projects@cache1/data"}
  replicas: [{name: charlie, url: "sftp://slipway-projects@charlie/data"}]
  warm: /srv/warm
  identity: /etc/slipway/keys/identity
  cap: 100GiB
ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}
`

func TestPeer(t *testing.T) {
	c, err := Parse("b.yml", []byte(peerYAML))
	if err != nil {
		t.Fatal(err)
	}
	want := &Peer{
		Node: "bravo", Store: "/srv/replicas", State: "/var/lib/slipway/bravo", Name: "bravo",
		Cache:      Store{Name: "cache1", URL: "sftp://slipway-projects@cache1/data"},
		Replicas:   []Store{{Name: "charlie", URL: "sftp://slipway-projects@charlie/data"}},
		StaleAfter: 5 * time.Second, StallAfter: 5 * time.Second, Step: time.Second, PreferAfter: time.Minute, Cap: 100 << 30,
		SSH:  SSH{Key: "/etc/slipway/keys/ssh", KnownHosts: "/etc/slipway/known_hosts"},
		Warm: "/srv/warm", Identity: "/etc/slipway/keys/identity",
	}
	if d := cmp.Diff(want, c.Peer); d != "" {
		t.Error(d)
	}
}

// TestHTTP: every role may have a status page, at an address that was thought about.
func TestHTTP(t *testing.T) {
	for name, text := range map[string]string{"primary": primaryYAML, "cache": cacheYAML, "peer": peerYAML, "receive": receiveYAML} {
		c, err := Parse("c.yml", []byte(text+"http: {listen: \"127.0.0.1:9847\"}\n"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.HTTP().Listen != "127.0.0.1:9847" || len(c.Warnings) != 0 {
			t.Errorf("%s: listens on %q, warns %q", name, c.HTTP().Listen, c.Warnings)
		}
	}
	c, err := Parse("c.yml", []byte(cacheYAML+"http: {listen: \"localhost:9847\"}\n"))
	if err != nil || len(c.Warnings) != 0 {
		t.Errorf("listening on localhost: %v, %v", c, err)
	}
	c, err = Parse("c.yml", []byte(cacheYAML+"http: {listen: \"0.0.0.0:9847\"}\n"))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "without a password") {
		t.Errorf("listening everywhere: %v, %v", c, err)
	}
	for listen, says := range map[string]string{":9847": "would listen everywhere", "127.0.0.1": "not an address and a port", "127.0.0.1:web": "not a port", "localhost:99999": "not a port"} {
		_, err := Parse("c.yml", []byte(cacheYAML+"http: {listen: \""+listen+"\"}\n"))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "c.yml:20:16: http.listen") {
			t.Errorf("%q: %v", listen, err)
		}
	}
}

func TestPrimary(t *testing.T) {
	c, err := Parse("p.yml", []byte(primaryYAML+"durability: [{path: \"db/**\", stage: cached}]\ndurability_timeout: 20s\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Primary{
		Volume: "projects", Node: "alpha", Source: "/srv/projects", Mount: "/srv/projects", State: "/var/lib/slipway/projects",
		Spool:      Spool{Dir: "/var/spool/slipway/projects", Cap: 50 << 30},
		Recipients: []string{recipient, second},
		Replicas:   []Store{{Name: "bravo", URL: "sftp://slipway-projects@bravo/data", Key: publicKey}},
		Cache:      Store{Name: "cache1", URL: "sftp://slipway-projects@cache1/data", Limit: "08:00,512K 18:00,off"},
		Backups:    []Store{{Name: "vault1", URL: "sftp://slipway-projects@vault1/data", Connections: 2}},
		SSH:        SSH{Key: "/etc/slipway/keys/ssh", KnownHosts: "/etc/slipway/known_hosts"},
		Exclude:    []string{"*.tmp", "/scratch/"}, ExcludeLines: []int{17, 18},
		Copies: 2, Settle: 300 * time.Millisecond, MaxAge: 10 * time.Second, OpenInterval: time.Minute, MinReplicas: 1, BatchInterval: 500 * time.Millisecond,
		Durability: []Durability{{Path: "db/**", Stage: "cached"}}, DurabilityTimeout: 20 * time.Second,
		StaleAfter: 5 * time.Second, StallAfter: 5 * time.Second, Step: time.Second, PreferAfter: time.Minute,
	}
	if d := cmp.Diff(want, c.Primary); d != "" {
		t.Error(d)
	}
	if c.Cache != nil || len(c.Warnings) != 0 || c.State() != want.State {
		t.Errorf("cache %v, warnings %q, state %q", c.Cache, c.Warnings, c.State())
	}
}

func TestPrimaryDefaults(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("p.yml", []byte("volume: projects\nnode: alpha\nsource: /srv/projects\nmount: /mnt/projects\n"+
		"recipients: ["+recipient+"]\ncache: {url: "+dir+"/cache}\nreplicas: [{url: "+dir+"/r}]\nbackups: [{url: "+dir+"/b}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Primary
	if p.State != "/var/lib/slipway/projects" || p.Spool.Dir != p.State+"/spool" || p.Spool.Cap < smallestSpool {
		t.Errorf("state %q, spool %+v", p.State, p.Spool)
	}
	if p.Settle != 200*time.Millisecond || p.MaxAge != 5*time.Second || p.OpenInterval != 30*time.Second || p.BatchInterval != time.Second || p.Allow != (os.Geteuid() == 0) {
		t.Errorf("settle %v, max_age %v, open_interval %v, allow_other %v", p.Settle, p.MaxAge, p.OpenInterval, p.Allow)
	}
	if p.Cache.Name != "cache" || p.Replicas[0].Name != "replica1" || p.Backups[0].Name != "backup1" {
		t.Errorf("names %q %q %q", p.Cache.Name, p.Replicas[0].Name, p.Backups[0].Name)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "one recipient") {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestCache(t *testing.T) {
	c, err := Parse("c.yml", []byte(cacheYAML))
	if err != nil {
		t.Fatal(err)
	}
	six, five := 6*time.Hour, 5*time.Minute
	want := &Cache{
		Node: "cache1", Store: "/srv/spool", State: "/var/lib/slipway/cache", Name: "cache1",
		Ship: Ship{
			When: []Condition{
				{Age: &six, Window: "Mon-Fri 22:00-06:00 Europe/Berlin"}, {Bytes: 10 << 30},
				{CacheUsed: "80%", Idle: &five, Batches: 3}, {Manual: true},
			},
			Copies: 2, Keep: 14 * 24 * time.Hour, Cap: 500 << 30, VerifyAfter: 30 * time.Minute,
			To: []Store{
				{Name: "vault1", URL: "sftp://slipway-projects@vault1/data", Limit: "50MiB/s"},
				{Name: "vault2", URL: "sftp://slipway-projects@vault2/data"},
			},
		},
		Owners: map[string][]string{"projects": {publicKey}},
		SSH:    SSH{Key: "/etc/slipway/keys/ssh", KnownHosts: "/etc/slipway/known_hosts"},
	}
	if d := cmp.Diff(want, c.Cache); d != "" {
		t.Error(d)
	}
}

func TestCacheDefaults(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("c.yml", []byte("node: cache1\nstore: "+dir+"\nship: {to: [{url: "+dir+"-b}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	zero := time.Duration(0)
	s := c.Cache.Ship
	if s.Copies != 1 || s.Keep != 24*time.Hour || s.VerifyAfter != time.Hour || s.Cap <= 0 || !cmp.Equal(s.When, []Condition{{Age: &zero}}) {
		t.Errorf("%+v", s)
	}
	if c.Cache.Name != "cache1" || c.Cache.State != "/var/lib/slipway/cache1" || s.To[0].Name != "backup1" {
		t.Errorf("%+v", c.Cache)
	}
}

// TestFaults spoils one thing each and wants exactly the faults listed, each as "line:column: message".
func TestFaults(t *testing.T) {
	tests := []struct {
		name, from, to string // in the first of primaryYAML, cacheYAML and peerYAML where from is found
		want           []string
		fix            string
	}{
		{"misspelt key", "recipients:", "recpients:", []string{`1:1: "recipients" is missing`, `7:1: unknown key "recpients"`}, `did you mean "recipients"?`},
		{"misspelt nested key", "cap: 50GiB", "capp: 50GiB", []string{`6:43: unknown key "spool.capp"`}, `did you mean "cap"?`},
		{"a receiver's key", "copies: 2\nsettle", "receive: {}\nsettle", []string{`1:1: both`}, "file of its own"},
		{"durability is a list", "copies: 2\nsettle", "durability: {}\nsettle", []string{`19:13: "durability" is a mapping, not a list`}, "write a list"},
		{"durability without a stage", "copies: 2\nsettle", "durability: [{path: \"db/**\"}]\nsettle", []string{`19:14: "durability[0].stage" is missing`}, "cached"},
		{"durability, odd items", "copies: 2\nsettle", "durability: [{path: \"!x\", stage: sealed}, {path: \"a[\", stage: cached}]\nsettle",
			[]string{`19:21: durability[0].path: a pattern of durability: cannot be negated`, `19:34: durability[0].stage: "sealed" is no stage`, `19:50: durability[1].path: `}, "stage: local"},
		{"durability, replicated by nobody", "min_replicas: 1", "durability: [{path: \"db/**\", stage: replicated}]", []string{`23:37: stage replicated: min_replicas is 0`}, "write min_replicas: 1"},
		{"durability, nothing is stored", "backups:\n  - {name: vault1, url: \"sftp://slipway-projects@vault1/data\", connections: 2}\nssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}\nexclude:\n  - \"*.tmp\"\n  - /scratch/\ncopies: 2\n",
			"ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}\ndurability: [{path: \"*\", stage: stored}]\n", []string{`14:33: stage stored: nothing here says`}, "write copies: N"},
		{"durability_timeout for nothing", "copies: 2\nsettle", "durability_timeout: 5s\nsettle", []string{`19:21: durability_timeout without durability`}, "remove it"},
		{"durability_timeout out of range", "copies: 2\nsettle", "durability: [{path: \"*\", stage: local}]\ndurability_timeout: 5ms\nsettle", []string{`20:21: durability_timeout: 5ms is out of range`}, "100ms to"},
		{"durability, patterns of nothing", "copies: 2\nsettle", "durability: [{path: \"\", stage: local}, {path: /, stage: local}, {path: \"#x\", stage: local}]\nsettle",
			[]string{`19:21: durability[0].path: the pattern matches nothing`, `19:47: durability[1].path: the pattern`, `19:72: durability[2].path: the pattern`}, "is everything"},
		{"a peer's key", "copies: 2\nsettle", "peer: {}\nsettle", []string{`1:1: both`}, "file of its own"},
		{"duplicate key", "node: alpha\n", "node: alpha\nnode: bravo\n", []string{`3:1: key "node" stands here a second time, first in line 2`}, "keep one"},
		{"no value", "node: alpha", "node:", []string{`2:1: key "node" has no value`}, "give it a value"},
		{"number for a text", "node: alpha", "node: 17", []string{`2:7: "node" is a number, not a text`}, `write "17"`},
		{"list for a text", "node: alpha", "node: [alpha]", []string{`2:7: "node" is a list, not a text`}, ""},
		{"text for a list", "exclude:\n  - \"*.tmp\"\n  - /scratch/", "exclude: x", []string{`16:10: "exclude" is a text, not a list`}, ""},
		{"list for a number", "copies: 2\nsettle", "copies: [2]\nsettle", []string{`19:9: "copies" is a list, not a whole number`}, ""},
		{"list for a size", "cap: 50GiB", "cap: [50GiB]", []string{`6:48: "spool.cap" is a list, not a size`}, ""},
		{"list for a duration", "max_age: 10s", "max_age: [10s]", []string{`21:10: "max_age" is a list, not a duration`}, ""},
		{"text for the recipients", "recipients:\n  - " + recipient + "\n  - " + second, "recipients: " + recipient, []string{`7:13: "recipients" is a text, not a list`}, ""},
		{"text for a mapping", "spool: {dir: /var/spool/slipway/projects, cap: 50GiB}", "spool: 50GiB", []string{`6:8: "spool" is a text, not a mapping`}, ""},
		{"text for a flag", "allow_other: false", "allow_other: maybe", []string{`24:14: "allow_other" is a text, not true or false`}, ""},
		{"text for a number", "copies: 2\nsettle", "copies: two\nsettle", []string{`19:9: copies: "two" is not a whole number`}, ""},
		{"number out of range", "copies: 2\nsettle", "copies: 0\nsettle", []string{`19:9: copies: 0 is out of range`}, "1 to 16"},
		{"number too large", "copies: 2\nsettle", "copies: 17\nsettle", []string{`19:9: copies: 17 is out of range`}, "1 to 16"},
		{"size without unit", "cap: 50GiB", "cap: 50", []string{`6:48: spool.cap: size "50" has no unit`}, "50GiB"},
		{"cap below a shard", "cap: 50GiB", "cap: 1MiB", []string{`6:48: spool.cap: 1MiB is too small`}, "32 MiB"},
		{"duration without unit", "settle: 300ms", "settle: 300", []string{`20:9: settle: duration "300" has no unit`}, "200ms"},
		{"duration out of range", "max_age: 10s", "max_age: 2d", []string{`21:10: max_age: 2d is out of range`}, "10ms to 1d"},
		{"settle above max_age", "settle: 300ms", "settle: 1m", []string{`20:9: settle 1m is longer than max_age 10s`}, ""},
		{"bad name", "node: alpha", "node: al pha", []string{`2:7: node: "al pha" is not a name`}, "letters"},
		{"relative path", "state: /var/lib/slipway/projects", "state: var", []string{`5:8: state: "var" is not an absolute path`}, ""},
		{"home", "state: /var/lib/slipway/projects", "state: ~/x", []string{`5:8: state: "~/x": ~ means nothing`}, ""},
		{"path with dots", "state: /var/lib/slipway/projects", "state: /var/../x", []string{`5:8: state: "/var/../x" is not the shortest form`}, "write /x"},
		{"mount below source", "mount: /srv/projects", "mount: /srv/projects/m", []string{`4:8: mount /srv/projects/m and source /srv/projects lie one below the other`}, ""},
		{"source below mount", "mount: /srv/projects", "mount: /srv", []string{`4:8: mount /srv and source /srv/projects lie one below the other`}, ""},
		{"state below source", "state: /var/lib/slipway/projects", "state: /srv/projects/.slipway", []string{`5:8: state /srv/projects/.slipway lies in the source`}, "outside"},
		{"source below state", "state: /var/lib/slipway/projects", "state: /srv", []string{`3:9: source /srv/projects lies in the state directory /srv`}, "apart"},
		{"state below mount", "mount: /srv/projects\nstate: /var/lib/slipway/projects", "mount: /mnt/p\nstate: /mnt/p/state", []string{`5:8: state /mnt/p/state lies in the mount /mnt/p`}, ""},
		{"spool below source", "dir: /var/spool/slipway/projects", "dir: /srv/projects/s", []string{`6:14: spool.dir /srv/projects/s lies in the source`}, ""},
		{"key below source", "key: /etc/slipway/keys/ssh", "key: /srv/projects/k", []string{`15:12: ssh.key /srv/projects/k lies in the source`}, ""},
		{"cache below source", `"sftp://slipway-projects@cache1/data", l`, `/srv/projects/c, l`, []string{`12:28: cache.url /srv/projects/c lies in the source`}, ""},
		{"one name twice", "name: vault1, url: \"sftp://slipway-projects@vault1/data\", connections: 2", "name: cache1, url: /b", []string{`14:12: backups[0]: the name "cache1" is also that of cache`}, ""},
		{"one place twice", "@bravo/data", "@cache1/data", []string{`11:24: replicas[0] lies where cache lies`}, ""},
		{"a replica is the node", "name: bravo", "name: alpha", []string{`11:12: replica "alpha" is this node itself`}, ""},
		{"too many replicas asked for", "min_replicas: 1", "min_replicas: 2", []string{`23:15: min_replicas: 2 copies are asked for, and there are 1 replicas`}, ""},
		{"bad URL", `"sftp://slipway-projects@vault1/data", c`, `"sftp://vault1:data", c`, []string{`14:25: backups[0].url: `}, "sftp://user@host"},
		{"missing URL", `{name: vault1, url: "sftp://slipway-projects@vault1/data", connections: 2}`, `{name: vault1}`, []string{`14:5: "backups[0].url" is missing`}, ""},
		{"relative URL", `"sftp://slipway-projects@vault1/data", c`, `backup, c`, []string{`14:25: backups[0].url: "backup" is not an absolute directory`}, ""},
		{"bad recipients", "  - " + recipient + "\n  - " + second, "  - age1nonsense\n  - age1nonsense", []string{`8:5: recipients[0]: `, `9:5: recipients[1]: `}, "keygen"},
		{"empty patterns", `"*.tmp"`, "\"\"\n  - \"!\"", []string{`17:5: exclude[0]: the pattern is empty`, `18:5: exclude[1]: the pattern is empty`}, ""},
		{"bad recipient", "  - " + second, "  - age1nonsense", []string{`9:5: recipients[1]: `}, "keygen"},
		{"one recipient twice", "  - " + second, "  - " + recipient, []string{`9:5: recipients: the same value a second time`}, ""},
		{"bad replica key", publicKey, "ssh-rsa AAAA", []string{`11:67: replicas[0].key: not an Ed25519 public key`}, "node.key.pub"},
		{"bad limit", "08:00,512K 18:00,off", "fast", []string{`12:74: cache.limit: rate "fast"`}, "50MiB/s"},
		{"no ssh block", "ssh: {key: /etc/slipway/keys/ssh, known_hosts: /etc/slipway/known_hosts}\nexclude", "exclude", []string{`store "cache1" is reached over SFTP, and there is no ssh: block`}, "ssh:"},
		{"anchor", "node: alpha", "node: &n alpha", []string{`2:7: anchors, aliases and tags`}, ""},
		{"second document", "allow_other: false\n", "allow_other: false\n---\nx: 1\n", []string{`26:1: a second YAML document`}, ""},
		{"second document, empty", "allow_other: false\n", "allow_other: false\n---\n", []string{`a second YAML document`}, ""},
		{"syntax", "node: alpha", "node: [alpha", []string{`3:1: `}, "mend"},
		{"both roles", "copies: 2\nsettle", "store: /x\nsettle", []string{`1:1: both`}, "file of its own"},

		{"unreachable copies", "  copies: 2\n  keep", "  copies: 3\n  keep", []string{`10:11: ship.copies: 3 copies can never be reached with 2 hosts`}, "at most 2"},
		{"cap smaller than a shard", "cap: 500GiB", "cap: 1MiB", []string{`12:8: ship.cap: 1MiB is too small`}, "8.0 MiB"},
		{"more bytes than the cap", "bytes: 10GiB", "bytes: 600GiB", []string{`7:15: ship.when[1]: the store is full before`}, "less than ship.cap"},
		{"percentage", "cache_used: 80%", "cache_used: 101%", []string{`8:20: ship.when[2].cache_used: "101%" is not a percentage`}, "80%"},
		{"more used than the cap", "cache_used: 80%", "cache_used: 600GiB", []string{`8:20: ship.when[2]: more than the cap`}, "percentage"},
		{"window", "Mon-Fri 22:00-06:00 Europe/Berlin", "Mon-Fry 22:00-06:00", []string{`6:25: ship.when[0].window: "Fry" is not a day`}, "Mon-Fri"},
		{"zone", "Europe/Berlin", "Europe/Berlyn", []string{`6:25: ship.when[0].window: `}, "Berlin"},
		{"empty condition", "{bytes: 10GiB}", "{}", []string{`7:7: ship.when[1]: nothing is asked for`}, "age: 0s"},
		{"no conditions", "    - {age: 6h, window: \"Mon-Fri 22:00-06:00 Europe/Berlin\"}\n    - {bytes: 10GiB}\n    - {cache_used: 80%, idle: 5m, batches: 3}\n    - {manual: true}\n", "      []\n", []string{`6:7: ship.when is empty`}, ""},
		{"text for conditions", "    - {age: 6h, window: \"Mon-Fri 22:00-06:00 Europe/Berlin\"}\n    - {bytes: 10GiB}\n    - {cache_used: 80%, idle: 5m, batches: 3}\n    - {manual: true}\n", "      at once\n", []string{`6:7: "ship.when" is a text, not a list`}, ""},
		{"store below state", "state: /var/lib/slipway/cache", "state: /srv", []string{`3:8: state /srv and store /srv/spool lie one below the other`}, ""},
		{"state below store", "state: /var/lib/slipway/cache", "state: /srv/spool/state", []string{`3:8: state /srv/spool/state and store /srv/spool lie one below the other`}, ""},
		{"ships into itself", `"sftp://slipway-projects@vault2/data"`, "/srv/spool/x", []string{`16:27: ship.to: /srv/spool/x is the cache's own store`}, ""},
		{"ships around itself", `"sftp://slipway-projects@vault2/data"`, "/srv", []string{`16:27: ship.to: /srv is the cache's own store`}, ""},
		{"text for owners", "owners:\n  projects: [\"" + publicKey + "\"]", "owners: all", []string{`17:9: "owners" is a text, not a mapping`}, ""},
		{"text for an owner's keys", `["` + publicKey + `"]`, `"` + publicKey + `"`, []string{`18:13: "owners.projects" is a text, not a list`}, ""},
		{"owner of no volume", "  projects: [", "  pro jects: [", []string{`18:3: owners: volume: "pro jects" is not a name`}, "letters"},
		{"owner's key", `"` + publicKey + `"]`, `"ssh-ed25519 AAAA"]`, []string{`18:14: owners.projects[0]: not an Ed25519 public key`}, ""},
		{"no owner", `["` + publicKey + `"]`, `[]`, []string{`18:13: owners: no key may own volume "projects"`}, ""},

		{"warm without identity", "  identity: /etc/slipway/keys/identity\n", "", []string{`7:9: peer.warm: there is no identity`}, "add identity: FILE"},
		{"identity without warm", "  warm: /srv/warm\n", "", []string{`7:13: peer.identity: there is no warm tree`}, "add warm: DIR"},
		{"bad warm alone", "warm: /srv/warm", "warm: warm", []string{`7:9: peer.warm: "warm" is not an absolute path`}, ""},
		{"bad identity alone", "identity: /etc/slipway/keys/identity", "identity: ~/identity", []string{`8:13: peer.identity: "~/identity"`}, ""},
		{"warm below store", "warm: /srv/warm", "warm: /srv/replicas/warm", []string{`7:9: peer.warm /srv/replicas/warm and store /srv/replicas lie`}, "apart"},
		{"warm is the store", "warm: /srv/warm", "warm: /srv/replicas", []string{`7:9: peer.warm /srv/replicas and store /srv/replicas lie`}, "apart"},
		{"store below warm", "warm: /srv/warm", "warm: /srv", []string{`7:9: peer.warm /srv and store /srv/replicas lie`}, "apart"},
		{"warm below state", "warm: /srv/warm", "warm: /var/lib/slipway/bravo/w", []string{`7:9: peer.warm /var/lib/slipway/bravo/w and state /var/lib/slipway/bravo lie`}, "apart"},
		{"identity below store", "identity: /etc/slipway/keys/identity", "identity: /srv/replicas/i", []string{`8:13: peer.identity /srv/replicas/i lies in the store`}, "only root"},
		{"identity below warm", "identity: /etc/slipway/keys/identity", "identity: /srv/warm/i", []string{`8:13: peer.identity /srv/warm/i lies in the store or the warm tree`}, "only root"},

		{"name of a host", "name: vault2", "name: cache1", []string{`16:14: ship.to[1]: the name "cache1" is also that of this store`}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := primaryYAML
			if !strings.Contains(base, tt.from) {
				base = cacheYAML
			}
			if !strings.Contains(base, tt.from) {
				base = peerYAML
			}
			if strings.Count(base, tt.from) != 1 {
				t.Fatalf("%q stands %d times in the configuration", tt.from, strings.Count(base, tt.from))
			}
			_, err := Parse("x.yml", []byte(strings.Replace(base, tt.from, tt.to, 1)))
			var faults *Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error is %v", err)
			}
			if len(faults.Found) != len(tt.want) {
				t.Fatalf("%d faults, want %d:\n%v", len(faults.Found), len(tt.want), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in:\n%v", want, err)
				}
			}
			if !strings.Contains(err.Error(), tt.fix) || strings.Count(err.Error(), "fix: ") != len(tt.want) {
				t.Errorf("want the fix %q in:\n%v", tt.fix, err)
			}
		})
	}
}

// TestAllAtOnce wants every fault of a thoroughly wrong file, in the file's order, each with its line and a caret.
func TestAllAtOnce(t *testing.T) {
	const bad = "volume: projects\nnode: 5\nsource: srv\nmount: /srv/projects\nrecipients: []\ncache: {url: /c}\n"
	_, err := Parse("bad.yml", []byte(bad+"maxage: 3s\n"))
	want := `bad.yml:2:7: "node" is a number, not a text
    2 | node: 5
      |       ^
      fix: write "5"
bad.yml:3:9: source: "srv" is not an absolute path
    3 | source: srv
      |         ^
      fix: write the whole path, from / on
bad.yml:5:13: recipients is empty: nobody could read what is sealed
    5 | recipients: []
      |             ^
      fix: add a recipient; ` + "`slipway keygen`" + ` makes an identity and prints its recipient
bad.yml:7:1: unknown key "maxage"
    7 | maxage: 3s
      | ^
      fix: did you mean "max_age"?`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

func TestEmptyAndRoleless(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "empty"}, {"# only a comment\n", "empty"}, {"---\n", "empty"}, {"null\n", "role"}, {"- a\n", "role"}, {"a: 1\n", "role"}, {"text\n", "role"},
		{"...\n", "empty"}, {"source: /a\n", `"volume" is missing`}, {"mount: /a\n", `"volume" is missing`},
	} {
		if _, err := Parse("x.yml", []byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.in, err)
		}
	}
}

func TestLoadMissing(t *testing.T) {
	dir := t.TempDir()
	for path, fix := range map[string]string{filepath.Join(dir, "none.yml"): "name the file with -c", dir: "see its owner and mode"} {
		_, err := Load(path)
		var faults *Faults
		if !errors.As(err, &faults) || !strings.HasPrefix(err.Error(), path+": read configuration: ") || !strings.Contains(err.Error(), fix) {
			t.Errorf("want %q in: %v", fix, err)
		}
	}
}

// TestNoFollowUps: what could not be read is not told a second time, as what comes of it.
func TestNoFollowUps(t *testing.T) {
	for _, text := range []string{
		"node: cache1\nstore: spool\nship: {when: [{bytes: 1024PiB}, {cache_used: 1024PiB}]}\n",
		"node: cache1\nstore: /srv/spool\nstate: spool\nship: {}\n",
		"node: bravo\nstore: spool\nstate: state\npeer: {cache: {url: /c}}\n",
	} {
		_, err := Parse("x.yml", []byte(text))
		if want := strings.Count(text, ": spool") + strings.Count(text, ": state"); err == nil || strings.Count(err.Error(), "fix: ") != want {
			t.Errorf("%q: want %d faults:\n%v", text, want, err)
		}
	}
}

// TestFaultsState: a file with faults still tells where its daemon is, unless the fault lies there.
func TestFaultsState(t *testing.T) {
	for text, want := range map[string]string{
		primaryYAML: "/var/lib/slipway/projects", cacheYAML: "/var/lib/slipway/cache", peerYAML: "/var/lib/slipway/bravo", receiveYAML: "/var/lib/slipway/receive",
		"volume: papers\n": "/var/lib/slipway/papers", "node: a\nship: {}\n": "/var/lib/slipway/a", "node: a\npeer: {}\n": "/var/lib/slipway/a", "node: a\nreceive: {}\n": "/var/lib/slipway/a",
		"volume: pa pers\n": "", "ship: {}\n": "", "peer: {}\n": "", "receive: {}\n": "",
		"volume: papers\nstate: var\n": "", "node: a\nstate: var\nship: {}\n": "", "node: a\nstate: var\npeer: {}\n": "", "node: a\nstate: var\nreceive: {}\n": "",
		"unknown: 1\n": "",
	} {
		_, err := Parse("x.yml", []byte(text+"zebra: 1\n"))
		var faults *Faults
		if !errors.As(err, &faults) || faults.State != want {
			t.Errorf("%q: %+v, want %q", text, err, want)
		}
	}
}

// TestDurabilityStages: what this configuration has may be waited for.
func TestDurabilityStages(t *testing.T) {
	const base = "volume: projects\nnode: alpha\nsource: /srv/projects\nmount: /srv/projects\nrecipients: [" + recipient + "]\ncache: {url: /cache}\n"
	for _, text := range []string{
		"durability: [{path: a, stage: local}, {path: b, stage: cached}]\n",
		"replicas: [{url: /r}]\nmin_replicas: 1\ndurability: [{path: a, stage: replicated}]\n",
		"copies: 1\ndurability: [{path: a, stage: stored}]\n",
		"backups: [{url: /b}]\ndurability: [{path: a, stage: stored}]\n",
	} {
		if _, err := Parse("x.yml", []byte(base+text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestLineEnds: lines end where the YAML parser ends them, or a fault would be shown in another one.
func TestLineEnds(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r"} {
		_, err := Parse("x.yml", []byte(strings.ReplaceAll(cacheYAML+"zebra: 1\n", "\n", end)))
		if err == nil || !strings.HasPrefix(err.Error(), "x.yml:20:1: unknown key \"zebra\"\n   20 | zebra: 1\n      | ^\n") {
			t.Errorf("%q: %v", end, err)
		}
	}
}

func TestCheckKey(t *testing.T) {
	blob := strings.Fields(publicKey)[1]
	for key, good := range map[string]bool{
		publicKey: true, publicKey + " alpha": true, "": false, "ssh-ed25519": false, "ssh-rsa " + blob: false, publicKey + "!": false,
		"ssh-ed25519 " + strings.Replace(blob, "AAAAC3NzaC1lZDI1NTE5", "AAAAC3NzaC1lZDI1NTE4", 1): false,
	} {
		if problem, _ := checkKey(key); (problem == "") != good {
			t.Errorf("%q: %q", key, problem)
		}
	}
}

func TestParseStore(t *testing.T) {
	for in, want := range map[string]Store{
		"/a": {URL: "/a"}, "vault=/a": {Name: "vault", URL: "/a"}, "/a=b": {URL: "/a=b"}, "sftp://u@h/a=b": {URL: "sftp://u@h/a=b"},
	} {
		if got := ParseStore(in); got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

func TestStoreOptions(t *testing.T) {
	opt, err := StoreOptions(SSH{Key: "/k", KnownHosts: "/h"}, Store{Name: "cache1", URL: "/c", Connections: 3, Limit: "1MiB/s"})
	if err != nil || opt.KeyFile != "/k" || !cmp.Equal(opt.KnownHosts, []string{"/h"}) || opt.Connections != 3 || opt.Limit == nil {
		t.Errorf("%+v, %v", opt, err)
	}
	if opt, err = StoreOptions(SSH{}, Store{Limit: "off"}); err != nil || opt.Limit != nil {
		t.Errorf("%+v, %v", opt, err)
	}
	if _, err = StoreOptions(SSH{}, Store{Limit: "quick"}); err == nil {
		t.Error("a bad limit is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(primaryYAML))
	f.Add([]byte(cacheYAML))
	f.Add([]byte(peerYAML))
	f.Add([]byte("volume: &a [*a]\n"))
	f.Add([]byte("volume: {<<: {a: 1}, ? [x] : y}\n!!x ship: |\n  a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x.yml", data)
		var faults *Faults
		if err != nil && (!errors.As(err, &faults) || err.Error() == "") {
			t.Fatalf("error %v is not a list of faults", err)
		}
		roles := 0
		for _, has := range []bool{err == nil && c.Primary != nil, err == nil && c.Cache != nil, err == nil && c.Peer != nil} {
			if has {
				roles++
			}
		}
		if err == nil && roles != 1 {
			t.Fatalf("%d roles", roles)
		}
	})
}
