package config

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"slipway/internal/shard"
)

// Peer is the configuration of a replica peer (its file has `store:` and `peer:`).
type Peer struct {
	Node, Store, State string
	Name               string // the store's name in acks; default: node
	Cache              Store
	Replicas           []Store // the other nodes' stores: progress is written there, and a rotten shard read from there
	StaleAfter         time.Duration
	StallAfter         time.Duration
	Step               time.Duration
	PreferAfter        time.Duration
	Cap                int64               // default: nine tenths of the store's disk
	Owners             map[string][]string // volume → authorized_keys lines
	SSH                SSH
	HTTP               HTTP
	Hooks              Hooks
	Heartbeat          Heartbeat
	Warm               string // a directory that holds a warm tree of each volume, DIR/<volume>; "": none
	Identity           string // the file that opens the batches for it
}

// peer reads the configuration of a replica peer.
func (d *document) peer(root ast.Node) *Peer {
	p := &Peer{StaleAfter: 5 * time.Second, StallAfter: 5 * time.Second, Step: time.Second, PreferAfter: time.Minute}
	object(
		field{"node", text(&p.Node, checkName), "node: NAME, this machine's name, as the owners call it"},
		field{"store", text(&p.Store, checkPath), "store: DIR, where the volumes' accounts write"},
		field{"state", text(&p.State, checkPath), ""},
		field{"name", text(&p.Name, checkName), ""},
		field{"peer", peerBlock(p), "peer: {cache: {name: cache1, url: \"sftp://…\"}}"},
		field{"owners", owners(&p.Owners), ""},
		field{"ssh", sshBlock(&p.SSH), ""},
		field{"http", httpBlock(&p.HTTP), ""},
		field{"hooks", hooksBlock(&p.Hooks), ""},
		field{"heartbeat", heartbeatBlock(&p.Heartbeat), ""},
	)(d, root, "")
	d.completePeer(p)
	d.checkPeer(p)
	return p
}

func peerBlock(p *Peer) reader {
	return object(
		field{"cache", destination(&p.Cache), "cache: {name: cache1, url: \"sftp://…\"}, the volumes' cache host"},
		field{"replicas", list(&p.Replicas, destination), ""},
		field{"stale_after", duration(&p.StaleAfter, time.Second, 10*time.Minute), ""},
		field{"stall_after", duration(&p.StallAfter, time.Second, 10*time.Minute), ""},
		field{"step", duration(&p.Step, 100*time.Millisecond, time.Minute), ""},
		field{"prefer_after", duration(&p.PreferAfter, time.Second, 24*time.Hour), ""},
		field{"cap", bytes(&p.Cap, shard.MaxSize), ""},
		field{"warm", text(&p.Warm, checkPath), ""},
		field{"identity", text(&p.Identity, checkPath), ""},
	)
}

func (d *document) completePeer(p *Peer) {
	if d.at["state"] == nil && p.Node != "" {
		p.State = "/var/lib/slipway/" + p.Node
	}
	name(&p.Cache, "cache")
	if p.Name == "" {
		p.Name = p.Node
	}
	for i := range p.Replicas {
		name(&p.Replicas[i], fmt.Sprintf("replica%d", i+1))
	}
	if p.Cap == 0 && p.Store != "" {
		p.Cap = max(diskSize(p.Store)/10*9, shard.MaxSize)
	}
}

// checkPeer finds what cannot be together.
func (d *document) checkPeer(p *Peer) {
	if below(p.State, p.Store) || below(p.Store, p.State) {
		d.fault(d.either("state", "store"), "choose places apart: the accounts that write the store must not reach the state",
			"state %s and store %s lie one below the other", p.State, p.Store)
	}
	named := map[string]string{p.Name: "this store", "at " + p.Store: "this store"}
	d.distinct(named, "peer.cache", p.Cache)
	for i, s := range p.Replicas {
		d.distinct(named, fmt.Sprintf("peer.replicas[%d]", i), s)
	}
	d.needsSSH(append([]Store{p.Cache}, p.Replicas...))
	d.checkWarm(p)
}

// checkWarm finds what a warm tree cannot be together with: who may write one of the places must not reach another.
func (d *document) checkWarm(p *Peer) {
	at := d.at["peer.warm"]
	switch {
	case p.Identity != "" && at == nil:
		d.fault(d.at["peer.identity"], "add warm: DIR, or remove it: a peer needs no identity to hold and send", "peer.identity: there is no warm tree that it would open the batches for")
	case p.Warm != "" && d.at["peer.identity"] == nil:
		d.fault(at, "add identity: FILE, one that the volumes' recipients belong to", "peer.warm: there is no identity to open the batches with")
	}
	for _, other := range []struct{ key, path string }{{"store", p.Store}, {"state", p.State}} {
		if below(p.Warm, other.path) || below(other.path, p.Warm) {
			d.fault(at, "choose places apart", "peer.warm %s and %s %s lie one below the other", p.Warm, other.key, other.path)
		}
	}
	if below(p.Identity, p.Store) || below(p.Identity, p.Warm) {
		d.fault(d.at["peer.identity"], "keep it where only root reads", "peer.identity %s lies in the store or the warm tree", p.Identity)
	}
}
