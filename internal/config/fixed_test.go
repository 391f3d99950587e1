package config

import (
	"strings"
	"testing"
	"time"
)

func TestFixed(t *testing.T) {
	primary := func(change func(*Primary)) *Config {
		p := &Primary{Volume: "projects", Node: "alpha", Source: "/srv/projects", Mount: "/srv/projects", Durability: []Durability{{Path: "db/", Stage: "cached"}}}
		if change != nil {
			change(p)
		}
		return &Config{Primary: p}
	}
	for want, next := range map[string]*Config{
		"":                                primary(func(p *Primary) { p.Settle, p.Exclude, p.Copies = time.Second, []string{"*.tmp"}, 3 }),
		"volume, node":                    primary(func(p *Primary) { p.Volume, p.Node = "papers", "bravo" }),
		"source, mount, state, spool.dir": primary(func(p *Primary) { p.Source, p.Mount, p.State, p.Spool.Dir = "/a", "/b", "/c", "/d" }),
		"durability":                      primary(func(p *Primary) { p.Durability = nil }),
		"the role: this is the file of a cache host now":   {Cache: &Cache{}},
		"the role: this is the file of a replica peer now": {Peer: &Peer{}}, "the role: this is the file of a receiver now": {Receive: &Receive{}},
	} {
		if got := strings.Join(primary(nil).Fixed(next), ", "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range []*Config{{Cache: &Cache{Node: "n"}}, {Peer: &Peer{Node: "n"}}, {Receive: &Receive{Node: "n"}}} {
		if got := c.Fixed(c); len(got) > 0 {
			t.Errorf("%s: %v", c.Role(), got)
		}
	}
	was, now := &Config{Peer: &Peer{Store: "/a", State: "/b"}}, &Config{Peer: &Peer{Store: "/c", State: "/d"}}
	if got := strings.Join(was.Fixed(now), ", "); got != "store, state" {
		t.Error(got)
	}
}
