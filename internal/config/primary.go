package config

import (
	"fmt"
	"os"
	"time"

	"github.com/goccy/go-yaml/ast"

	"slipway/internal/keys"
	"slipway/internal/shard"
)

// A batch introduces at most a quarter of the cap, and one shard at least.
const smallestSpool = 4 * shard.MaxSize

// primary reads the configuration of a primary node.
func (d *document) primary(root ast.Node) *Primary {
	p := &Primary{
		Settle: 200 * time.Millisecond, MaxAge: 5 * time.Second, OpenInterval: 30 * time.Second, BatchInterval: time.Second,
		StaleAfter: 5 * time.Second, StallAfter: 5 * time.Second, Step: time.Second, PreferAfter: time.Minute,
		DurabilityTimeout: 10 * time.Second, Allow: os.Geteuid() == 0,
	}
	object(
		field{"volume", text(&p.Volume, checkName), "volume: NAME"},
		field{"node", text(&p.Node, checkName), "node: NAME, this machine's name among the volume's nodes"},
		field{"source", text(&p.Source, checkPath), "source: DIR, the directory with the files"},
		field{"mount", text(&p.Mount, checkPath), "mount: DIR; it may be the source itself"},
		field{"state", text(&p.State, checkPath), ""},
		field{"spool", object(
			field{"dir", text(&p.Spool.Dir, checkPath), ""},
			field{"cap", bytes(&p.Spool.Cap, smallestSpool), ""},
		), ""},
		field{"recipients", list(&p.Recipients, func(s *string) reader { return text(s, checkRecipient) }), "recipients: [age1…]; `slipway init` makes one"},
		field{"replicas", list(&p.Replicas, replica), ""},
		field{"cache", destination(&p.Cache), "cache: {name: cache1, url: \"sftp://…\"}"},
		field{"backups", list(&p.Backups, destination), ""},
		field{"ssh", sshBlock(&p.SSH), ""},
		field{"exclude", list(&p.Exclude, func(s *string) reader { return text(s, checkPattern) }), ""},
		field{"copies", number(&p.Copies, 1, 16), ""},
		field{"settle", duration(&p.Settle, 0, time.Hour), ""},
		field{"max_age", duration(&p.MaxAge, 10*time.Millisecond, 24*time.Hour), ""},
		field{"open_interval", duration(&p.OpenInterval, time.Second, 24*time.Hour), ""},
		field{"batch_interval", duration(&p.BatchInterval, time.Millisecond, time.Hour), ""},
		field{"rpo", rpo(&p.RPO), ""},
		field{"min_replicas", number(&p.MinReplicas, 0, 64), ""},
		field{"durability", list(&p.Durability, durability), ""},
		field{"durability_timeout", duration(&p.DurabilityTimeout, 100*time.Millisecond, 10*time.Minute), ""},
		field{"stale_after", duration(&p.StaleAfter, time.Second, 10*time.Minute), ""},
		field{"stall_after", duration(&p.StallAfter, time.Second, 10*time.Minute), ""},
		field{"step", duration(&p.Step, 100*time.Millisecond, time.Minute), ""},
		field{"prefer_after", duration(&p.PreferAfter, time.Second, 24*time.Hour), ""},
		field{"allow_other", flag(&p.Allow), ""},
		field{"http", httpBlock(&p.HTTP), ""},
		field{"hooks", hooksBlock(&p.Hooks), ""},
		field{"heartbeat", heartbeatBlock(&p.Heartbeat), ""},
		field{"peer_config", text(&p.PeerConfig, checkPath), ""},
	)(d, root, "")
	d.completePrimary(p)
	d.checkPrimary(p)
	return p
}

func (d *document) completePrimary(p *Primary) {
	if d.at["state"] == nil && p.Volume != "" {
		p.State = "/var/lib/slipway/" + p.Volume
	}
	if p.Spool.Dir == "" && p.State != "" {
		p.Spool.Dir = p.State + "/spool"
	}
	if p.Spool.Cap == 0 && p.Spool.Dir != "" {
		p.Spool.Cap = max(diskSize(p.Spool.Dir)/10, smallestSpool)
	}
	p.ExcludeLines = make([]int, len(p.Exclude))
	for i := range p.Exclude {
		if at := d.at[fmt.Sprintf("exclude[%d]", i)]; at != nil {
			p.ExcludeLines[i] = at.Position.Line
		}
	}
	name(&p.Cache, "cache")
	for i := range p.Replicas {
		name(&p.Replicas[i], fmt.Sprintf("replica%d", i+1))
	}
	for i := range p.Backups {
		name(&p.Backups[i], fmt.Sprintf("backup%d", i+1))
	}
}

func name(s *Store, fallback string) {
	if s.Name == "" {
		s.Name = fallback
	}
}

// checkPrimary finds what cannot be together.
func (d *document) checkPrimary(p *Primary) {
	d.checkPlaces(p)
	if p.Recipients != nil && len(p.Recipients) == 0 {
		d.fault(d.at["recipients"], "add a recipient; `slipway keygen` makes an identity and prints its recipient", "recipients is empty: nobody could read what is sealed")
	}
	if len(p.Recipients) == 1 {
		d.warnings = append(d.warnings, "one recipient only: when its identity file is lost, everything sealed is lost with it; add a second one")
	}
	d.repeated("recipients", p.Recipients)
	if p.Settle > p.MaxAge {
		d.fault(d.either("settle", "max_age"), fmt.Sprintf("write a settle of at most %s, or a larger max_age", FormatDuration(p.MaxAge)),
			"settle %s is longer than max_age %s: it would never be waited for", FormatDuration(p.Settle), FormatDuration(p.MaxAge))
	}
	d.warnOfOpen(p)
	if p.MinReplicas > len(p.Replicas) {
		d.fault(d.at["min_replicas"], fmt.Sprintf("write at most %d, or add replicas", len(p.Replicas)),
			"min_replicas: %d copies are asked for, and there are %d replicas", p.MinReplicas, len(p.Replicas))
	}
	named := map[string]string{}
	d.distinct(named, "cache", p.Cache)
	for i, s := range p.Replicas {
		d.distinct(named, fmt.Sprintf("replicas[%d]", i), s)
		if s.Name == p.Node {
			d.fault(d.either(fmt.Sprintf("replicas[%d].name", i), "replicas"), "remove it, or set the right node:", "replica %q is this node itself", s.Name)
		}
	}
	for i, s := range p.Backups {
		d.distinct(named, fmt.Sprintf("backups[%d]", i), s)
	}
	d.checkDurability(p)
	d.needsSSH(append(append([]Store{p.Cache}, p.Replicas...), p.Backups...))
}

// checkPlaces finds directories that lie in one another's way.
func (d *document) checkPlaces(p *Primary) {
	if p.Source != p.Mount && (below(p.Mount, p.Source) || below(p.Source, p.Mount)) {
		d.fault(d.at["mount"], "mount over the source itself, or at a place apart from it",
			"mount %s and source %s lie one below the other", p.Mount, p.Source)
	}
	own := []struct{ key, path, what string }{
		{"state", p.State, "slipway would back up its own state"},
		{"spool.dir", p.Spool.Dir, "slipway would back up its own store"},
		{"ssh.key", p.SSH.Key, "it would be read through the mount that needs it"},
		{"ssh.known_hosts", p.SSH.KnownHosts, "it would be read through the mount that needs it"},
		{"cache.url", p.Cache.URL, "slipway would back up its own store"},
		{"peer_config", p.PeerConfig, "it would be read through the mount"},
	}
	for _, o := range own {
		for _, tree := range []struct{ key, path string }{{"source", p.Source}, {"mount", p.Mount}} {
			if tree.key == "mount" && p.Mount == p.Source {
				continue
			}
			if below(o.path, tree.path) {
				d.fault(d.either(o.key, tree.key), "choose a place outside", "%s %s lies in the %s %s: %s", o.key, o.path, tree.key, tree.path, o.what)
			} else if o.key == "state" && below(tree.path, o.path) {
				d.fault(d.either(tree.key, o.key), "choose places apart", "%s %s lies in the state directory %s", tree.key, tree.path, o.path)
			}
		}
	}
}

func checkRecipient(s string) (problem, fix string) {
	if _, err := keys.ParseRecipients([]string{s}); err != nil {
		return err.Error(), "write the line that `slipway keygen` printed (age1…)"
	}
	return "", ""
}

func checkPattern(s string) (problem, fix string) {
	if s == "" || s == "!" {
		return "the pattern is empty", "remove it"
	}
	return "", ""
}
