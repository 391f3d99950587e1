package netns

import "fmt"

// Down pulls a node's cable: nothing goes in or out, and nobody is told. The router would otherwise say "no way" to whoever
// sends to the node, as often as its rate limit for such answers lets it.
func (n *Network) Down(name string) error { return ip(n.router, "link set "+name+" down") }

// Up plugs it in again.
func (n *Network) Up(name string) error { return ip(n.router, "link set "+name+" up") }

// Drop loses every packet that one node sends to another, and tells nobody. It is one way: answers may still arrive.
func (n *Network) Drop(from, to string) error { return n.rule("add", "blackhole", from, to) }

// Pass ends what Drop began.
func (n *Network) Pass(from, to string) error { return n.rule("del", "blackhole", from, to) }

// Refuse refuses every packet that one node sends to another, and says so: connecting fails at once.
func (n *Network) Refuse(from, to string) error { return n.rule("add", "unreachable", from, to) }

// rule has the router decide by both addresses, before it looks where the packet would go.
func (n *Network) rule(verb, action, from, to string) error {
	return ip(n.router, fmt.Sprintf("rule %s from %s to %s %s", verb, n.nodes[from].Addr, n.nodes[to].Addr, action))
}

// A link that is slow has a queue of a quarter of a second (tbf), so that what waits there is soon gone when it is fast again.
const (
	burst = 32 << 10
	parts = 4
)

// Limit lets a node send and receive so many bytes a second each way; 0 takes the limit away.
func (n *Network) Limit(name string, bytesPerSecond int) error {
	for _, end := range []struct {
		ns  namespace
		dev string
	}{{n.nodes[name].ns, "eth0"}, {n.router, name}} {
		line := fmt.Sprintf("qdisc replace dev %s root tbf rate %dbps burst %d limit %d", end.dev, bytesPerSecond, burst, max(bytesPerSecond/parts, burst))
		if bytesPerSecond == 0 {
			line = "qdisc del dev " + end.dev + " root"
		}
		if err := batch(end.ns, "tc", []string{line}); err != nil {
			return fmt.Errorf("limit %s: %w", name, err)
		}
	}
	return nil
}
