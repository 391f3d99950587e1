package config

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"slipway/internal/shard"
)

// cache reads the configuration of a cache host.
func (d *document) cache(root ast.Node) *Cache {
	c := &Cache{Ship: Ship{Keep: 24 * time.Hour, VerifyAfter: time.Hour}}
	object(
		field{"node", text(&c.Node, checkName), "node: NAME, this machine's name"},
		field{"store", text(&c.Store, checkPath), "store: DIR, where the volumes' accounts write"},
		field{"state", text(&c.State, checkPath), ""},
		field{"name", text(&c.Name, checkName), ""},
		field{"ship", shipBlock(&c.Ship), "ship: {to: [{name: vault1, url: \"sftp://…\"}]}"},
		field{"owners", owners(&c.Owners), ""},
		field{"ssh", sshBlock(&c.SSH), ""},
		field{"http", httpBlock(&c.HTTP), ""},
		field{"hooks", hooksBlock(&c.Hooks), ""},
		field{"heartbeat", heartbeatBlock(&c.Heartbeat), ""},
	)(d, root, "")
	d.completeCache(c)
	d.checkCache(c)
	return c
}

func shipBlock(s *Ship) reader {
	return object(
		field{"when", list(&s.When, condition), ""},
		field{"copies", number(&s.Copies, 1, 16), ""},
		field{"keep", duration(&s.Keep, 0, forEver), ""},
		field{"cap", bytes(&s.Cap, shard.MaxSize), ""},
		field{"verify_after", duration(&s.VerifyAfter, 0, forEver), ""},
		field{"to", list(&s.To, destination), ""},
	)
}

func condition(c *Condition) reader {
	return object(
		field{"age", optional(&c.Age), ""},
		field{"bytes", bytes(&c.Bytes, 1), ""},
		field{"batches", number(&c.Batches, 1, 1<<30), ""},
		field{"window", text(&c.Window, checkWindow), ""},
		field{"idle", optional(&c.Idle), ""},
		field{"cache_used", text(&c.CacheUsed, checkUsed), ""},
		field{"manual", flag(&c.Manual), ""},
	)
}

// owners reads a mapping of volumes to lists of public keys.
func owners(dst *map[string][]string) reader {
	return func(d *document, n ast.Node, path string) {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			d.wrong(n, path, "a mapping of volumes to lists of public keys")
			return
		}
		*dst = map[string][]string{}
		fields := make([]field, 0, len(m.Values))
		lists := map[string]*[]string{}
		for _, v := range m.Values {
			volume := v.Key.GetToken().Value
			if problem, fix := checkName(volume); problem != "" {
				d.fault(v.Key.GetToken(), fix, "%s: volume: %s", path, problem)
			}
			if lists[volume] == nil {
				lists[volume] = new([]string)
				fields = append(fields, field{volume, list(lists[volume], func(s *string) reader { return text(s, checkKey) }), ""})
			}
		}
		object(fields...)(d, n, path)
		for volume, list := range lists {
			(*dst)[volume] = *list
			if *list != nil && len(*list) == 0 {
				d.fault(d.at[join(path, volume)], "add the owner's key, or remove the line to pin the first key seen", "%s: no key may own volume %q", path, volume)
			}
		}
	}
}

func (d *document) completeCache(c *Cache) {
	if d.at["state"] == nil && c.Node != "" {
		c.State = "/var/lib/slipway/" + c.Node
	}
	name := &c.Name
	if *name == "" {
		*name = c.Node
	}
	s := &c.Ship
	if d.at["ship.when"] == nil {
		s.When = []Condition{{Age: new(time.Duration)}}
	}
	if s.Copies == 0 {
		s.Copies = min(1, len(s.To))
	}
	if s.Cap == 0 && c.Store != "" {
		s.Cap = max(diskSize(c.Store)/10*9, shard.MaxSize)
	}
	for i := range s.To {
		if s.To[i].Name == "" {
			s.To[i].Name = fmt.Sprintf("backup%d", i+1)
		}
	}
}

// checkCache finds what cannot be together.
func (d *document) checkCache(c *Cache) {
	s := &c.Ship
	if below(c.State, c.Store) || below(c.Store, c.State) {
		d.fault(d.either("state", "store"), "choose places apart: the accounts that write the store must not reach the state",
			"state %s and store %s lie one below the other", c.State, c.Store)
	}
	if s.Copies > len(s.To) {
		d.fault(d.at["ship.copies"], fmt.Sprintf("write at most %d, or add hosts to ship.to", len(s.To)),
			"ship.copies: %d copies can never be reached with %d hosts in ship.to", s.Copies, len(s.To))
	}
	if s.When != nil && len(s.When) == 0 {
		d.fault(d.at["ship.when"], "remove it to ship at once, or name a condition", "ship.when is empty: nothing would ever be shipped")
	}
	for i, w := range s.When {
		d.checkCondition(fmt.Sprintf("ship.when[%d]", i), w, s.Cap)
	}
	named := map[string]string{c.Name: "this store"}
	for i, t := range s.To {
		d.distinct(named, fmt.Sprintf("ship.to[%d]", i), t)
		if below(t.URL, c.Store) || below(c.Store, t.URL) {
			d.fault(d.at[fmt.Sprintf("ship.to[%d].url", i)], "name a place outside the store", "ship.to: %s is the cache's own store", t.URL)
		}
	}
	d.needsSSH(s.To)
}

func (d *document) checkCondition(path string, w Condition, limit int64) {
	at := d.at[path]
	if (w == Condition{}) {
		d.fault(at, "write {age: 0s} for at once, or {manual: true} for never by itself", "%s: nothing is asked for", path)
		return
	}
	if w.Bytes > limit && limit > 0 {
		d.fault(d.either(path+".bytes", path), fmt.Sprintf("write less than ship.cap (%s)", FormatSize(limit)),
			"%s: the store is full before %s have come together", path, FormatSize(w.Bytes))
	}
	if used, err := ParseCacheUsed(w.CacheUsed, limit); err == nil && used > limit && limit > 0 {
		d.fault(d.either(path+".cache_used", path), "write a percentage, or less than ship.cap", "%s: more than the cap is never used", path)
	}
}

func checkWindow(s string) (problem, fix string) {
	if _, err := ParseWindow(s); err != nil {
		return err.Error(), `write "22:00-06:00", "Mon-Fri 22:00-06:00" or "Mon-Fri 22:00-06:00 Europe/Berlin"`
	}
	return "", ""
}

func checkUsed(s string) (problem, fix string) {
	if _, err := ParseCacheUsed(s, 0); err != nil {
		return err.Error(), `write "80%" or a size`
	}
	return "", ""
}
