package config

import "reflect"

// Fixed names the keys that differ between the configuration of a running daemon and the next one, and that it cannot change while it
// runs: who it is, and the places that it holds. The mount process reads durability once.
func (c *Config) Fixed(next *Config) []string {
	if c.Role() != next.Role() {
		return []string{"the role: this is the file of a " + next.Role() + " now"}
	}
	type key struct {
		name     string
		was, now any
	}
	var keys []key
	switch {
	case c.Primary != nil:
		a, b := c.Primary, next.Primary
		keys = []key{
			{"volume", a.Volume, b.Volume}, {"node", a.Node, b.Node}, {"source", a.Source, b.Source}, {"mount", a.Mount, b.Mount},
			{"state", a.State, b.State}, {"spool.dir", a.Spool.Dir, b.Spool.Dir}, {"allow_other", a.Allow, b.Allow},
			{"durability", a.Durability, b.Durability}, {"durability_timeout", a.DurabilityTimeout, b.DurabilityTimeout}, {"peer_config", a.PeerConfig, b.PeerConfig},
		}
	case c.Cache != nil:
		keys = []key{{"node", c.Cache.Node, next.Cache.Node}, {"store", c.Cache.Store, next.Cache.Store}, {"state", c.Cache.State, next.Cache.State}}
	case c.Peer != nil:
		keys = []key{{"node", c.Peer.Node, next.Peer.Node}, {"store", c.Peer.Store, next.Peer.Store}, {"state", c.Peer.State, next.Peer.State}}
	default:
		keys = []key{{"node", c.Receive.Node, next.Receive.Node}, {"store", c.Receive.Store, next.Receive.Store}, {"state", c.Receive.State, next.Receive.State}}
	}
	var fixed []string
	for _, k := range keys {
		if !reflect.DeepEqual(k.was, k.now) {
			fixed = append(fixed, k.name)
		}
	}
	return fixed
}
