package config

import (
	"github.com/goccy/go-yaml/ast"

	"slipway/internal/shard"
)

// Receive is the configuration of a node that keeps what other clusters send to it (its file has `store:` and `receive:`).
type Receive struct {
	Node, Store, State string
	Name               string              // the store's name in acks; default: node
	Owners             map[string][]string // volume → authorized_keys lines; no other volume is accepted
	Quota              int64               // bytes of each volume; 0: none
	Quotas             map[string]int64    // volume → bytes, before Quota
	HTTP               HTTP
	Hooks              Hooks
	Heartbeat          Heartbeat
}

// QuotaOf returns how many bytes a volume may have; 0: any number.
func (r *Receive) QuotaOf(volume string) int64 {
	if q, ok := r.Quotas[volume]; ok {
		return q
	}
	return r.Quota
}

// receive reads the configuration of a receiver.
func (d *document) receive(root ast.Node) *Receive {
	r := &Receive{}
	object(
		field{"node", text(&r.Node, checkName), "node: NAME, this machine's name"},
		field{"store", text(&r.Store, checkPath), "store: DIR, where the other clusters' accounts write"},
		field{"state", text(&r.State, checkPath), ""},
		field{"name", text(&r.Name, checkName), ""},
		field{"owners", owners(&r.Owners), "owners: {projects: [\"ssh-ed25519 …\"]}, the node.key.pub of each volume's owner: nothing else is accepted"},
		field{"http", httpBlock(&r.HTTP), ""},
		field{"hooks", hooksBlock(&r.Hooks), ""},
		field{"heartbeat", heartbeatBlock(&r.Heartbeat), ""},
		field{"receive", object(
			field{"quota", bytes(&r.Quota, shard.MaxSize), ""},
			field{"quotas", sizes(&r.Quotas, shard.MaxSize), ""},
		), "receive: {quota: 500GiB}"},
	)(d, root, "")
	if d.at["state"] == nil && r.Node != "" {
		r.State = "/var/lib/slipway/" + r.Node
	}
	if r.Name == "" {
		r.Name = r.Node
	}
	if below(r.State, r.Store) || below(r.Store, r.State) {
		d.fault(d.either("state", "store"), "choose places apart: the accounts that write the store must not reach the state",
			"state %s and store %s lie one below the other", r.State, r.Store)
	}
	for volume := range r.Quotas {
		if len(r.Owners[volume]) == 0 {
			d.fault(d.at[join("receive.quotas", volume)], "add its owner's key to owners:, or remove the line", "receive.quotas: volume %q is not accepted", volume)
		}
	}
	return r
}

// sizes reads a mapping of volumes to sizes.
func sizes(dst *map[string]int64, low int64) reader {
	return func(d *document, n ast.Node, path string) {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			d.wrong(n, path, "a mapping of volumes to sizes")
			return
		}
		*dst = map[string]int64{}
		var fields []field
		each := map[string]*int64{}
		for _, v := range m.Values {
			volume := v.Key.GetToken().Value
			if problem, fix := checkName(volume); problem != "" {
				d.fault(v.Key.GetToken(), fix, "%s: volume: %s", path, problem)
			}
			if each[volume] == nil {
				each[volume] = new(int64)
				fields = append(fields, field{volume, bytes(each[volume], low), ""})
			}
		}
		object(fields...)(d, n, path)
		for volume, size := range each {
			(*dst)[volume] = *size
		}
	}
}
