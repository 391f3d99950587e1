// Package config reads slipway's configuration files: one for each role or volume, strict, every fault told at once with
// its place, the line and the fix. The keys and their defaults are the contract of docs/commands.md.
//
// It writes nothing: after a crash the file is what the operator made it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/sys/unix"
)

// DefaultPath is the configuration that commands read without -c.
const DefaultPath = "/etc/slipway/slipway.yml"

// Store names a store and where it lies.
type Store struct {
	Name        string
	URL         string
	Key         string // replicas: the peer's public key
	Limit       string // rate, "50MiB/s" or a timetable; see ParseLimit
	Connections int    // at most so many at once; 0: the store's default
}

// SSH says how SFTP stores are reached.
type SSH struct {
	Key        string
	KnownHosts string
}

// Spool is the node's own store.
type Spool struct {
	Dir string // default: <state>/spool
	Cap int64  // bytes; default: a tenth of its disk
}

// Durability says up to which stage the fsync of what a pattern matches waits.
type Durability struct {
	Path  string // a pattern as in Exclude
	Stage string // "local", "replicated", "cached", "stored"
}

// Primary is the configuration of a primary node (its file has `volume:`).
type Primary struct {
	Volume, Node, Source, Mount, State string
	Spool                              Spool
	Recipients                         []string
	Replicas                           []Store
	Cache                              Store
	Backups                            []Store
	SSH                                SSH
	Exclude                            []string      // gitignore patterns relative to the volume
	ExcludeLines                       []int         // the line of the file that each pattern stands on
	Copies                             int           // 0: the cache's
	Settle                             time.Duration // 200ms
	MaxAge                             time.Duration // 5s
	OpenInterval                       time.Duration // 30s
	BatchInterval                      time.Duration // 1s: the shortest time between two batches
	MinReplicas                        int
	RPO                                RPO
	Durability                         []Durability  // fsync by path pattern; the last that matches decides
	DurabilityTimeout                  time.Duration // 10s
	StaleAfter, StallAfter             time.Duration // 5s each: when another sender is taken for dead, or for stalled
	Step, PreferAfter                  time.Duration // 1s, 1m
	Allow                              bool          // allow_other; default true as root
	HTTP                               HTTP
	Hooks                              Hooks
	Heartbeat                          Heartbeat
	PeerConfig                         string // of the replica peer that this node is for other nodes' volumes, run beside the mount; "": none
}

// Condition is one item of ship.when; all that is set in it must hold.
type Condition struct {
	Age       *time.Duration
	Bytes     int64
	Batches   int
	Window    string // see ParseWindow
	Idle      *time.Duration
	CacheUsed string // see ParseCacheUsed
	Manual    bool
}

// Ship is the cache host's shipping.
type Ship struct {
	When        []Condition
	Copies      int           // default 1, at most len(To)
	Keep        time.Duration // default 24h
	Cap         int64         // default: nine tenths of the store's disk
	VerifyAfter time.Duration // default 1h
	To          []Store
}

// Cache is the configuration of a cache host (its file has `store:` and `ship:`).
type Cache struct {
	Node, Store, State string
	Name               string // the store's name in acks; default: node
	Ship               Ship
	Owners             map[string][]string // volume → authorized_keys lines
	SSH                SSH
	HTTP               HTTP
	Hooks              Hooks
	Heartbeat          Heartbeat
}

// Config is one of the four.
type Config struct {
	Path     string
	Primary  *Primary
	Cache    *Cache
	Peer     *Peer
	Receive  *Receive
	Warnings []string // what is allowed but should not stay so

	doc *document // for faults found later, by Check
}

// Role names the kind of node that the configuration is for.
func (c *Config) Role() string {
	switch {
	case c.Primary != nil:
		return "primary"
	case c.Peer != nil:
		return "replica peer"
	case c.Receive != nil:
		return "receiver"
	}
	return "cache host"
}

// State returns the state directory of whichever role it is.
func (c *Config) State() string {
	switch {
	case c.Primary != nil:
		return c.Primary.State
	case c.Peer != nil:
		return c.Peer.State
	case c.Receive != nil:
		return c.Receive.State
	}
	return c.Cache.State
}

// HTTP returns the http block of whichever role it is.
func (c *Config) HTTP() HTTP {
	switch {
	case c.Primary != nil:
		return c.Primary.HTTP
	case c.Peer != nil:
		return c.Peer.HTTP
	case c.Receive != nil:
		return c.Receive.HTTP
	}
	return c.Cache.HTTP
}

// SSH returns the ssh block of whichever role it is.
func (c *Config) SSH() SSH {
	switch {
	case c.Primary != nil:
		return c.Primary.SSH
	case c.Peer != nil:
		return c.Peer.SSH
	case c.Receive != nil:
		return SSH{} // it reaches nobody
	}
	return c.Cache.SSH
}

// Load reads, checks and completes a configuration. All faults at once, each with file:line:column, the line, and the fix
// (unknown keys with "did you mean"). The error is *Faults.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		fix := "name the file with -c, or run `slipway init`"
		if !errors.Is(err, fs.ErrNotExist) {
			fix = "see its owner and mode"
		}
		return nil, &Faults{Path: path, Found: []Fault{{Message: fmt.Sprintf("read configuration: %v", err), Fix: fix}}}
	}
	return Parse(path, data)
}

// Parse is Load without the file.
func Parse(path string, data []byte) (*Config, error) {
	d, root := open(path, data)
	c := &Config{Path: path, doc: d}
	if root == nil {
		return nil, d.err()
	}
	switch role(root) {
	case "volume":
		c.Primary = d.primary(root)
	case "store":
		c.Cache = d.cache(root)
	case "peer":
		c.Peer = d.peer(root)
	case "receive":
		c.Receive = d.receive(root)
	case "both":
		d.fault(place(root), "give each role a file of its own", "both `volume:` (a primary) and `store:` (a cache host, a replica peer or a receiver) in one file")
	case "several":
		d.fault(place(root), "give each role a file of its own", "more than one of `ship:` (a cache host), `peer:` (a replica peer) and `receive:` (a receiver) in one file")
	default:
		d.fault(place(root), "a primary's file has `volume:`, a cache host's has `store:` and `ship:`, a replica peer's `store:` and `peer:`, a receiver's `store:` and `receive:`", "the role is not to be seen")
	}
	if err := d.err(); err != nil {
		if c.Primary != nil || c.Cache != nil || c.Peer != nil || c.Receive != nil {
			d.faults.State = c.State()
		}
		return nil, err
	}
	c.Warnings = d.warnings
	return c, nil
}

// role tells by its keys whose configuration this is.
func role(root ast.Node) string {
	m, ok := root.(*ast.MappingNode)
	if !ok {
		return ""
	}
	found := map[string]bool{}
	for _, v := range m.Values {
		found[v.Key.GetToken().Value] = true
	}
	primary := found["volume"] || found["source"] || found["mount"]
	var roles []string
	for _, key := range []string{"ship", "peer", "receive"} {
		if found[key] {
			roles = append(roles, key)
		}
	}
	cache := found["store"] || len(roles) > 0
	switch {
	case primary && cache:
		return "both"
	case len(roles) > 1:
		return "several"
	case found["peer"] || found["receive"]:
		return roles[0]
	case primary:
		return "volume"
	case cache:
		return "store"
	}
	return ""
}

// diskSize returns the size of the disk that path lies on, or will lie on.
func diskSize(path string) int64 {
	for dir := path; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil {
			return int64(st.Blocks) * st.Bsize
		}
		if dir == filepath.Dir(dir) {
			return 0
		}
	}
}
