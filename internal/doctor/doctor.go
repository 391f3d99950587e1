// Package doctor finds out on this host whether slipway will work: kernel, privileges, the source's file system, space, and what each store's
// account may do.
//
// It leaves nothing in the source and one small object a node in each store, doctor/NODE, which the next run replaces. What the round trip of
// metadata makes and mounts it takes away again; after a crash the next run does.
package doctor

import (
	"context"
	"fmt"
	"os"
	"time"

	"slipway/internal/config"
	"slipway/internal/store"
)

// Levels of a finding.
const (
	OK      = "ok"
	Warning = "warning" // it works, less well
	Fault   = "fault"   // it does not
)

// Finding is what one check found out.
type Finding struct {
	Check string `json:"check"` // "kernel", "privileges", "source", "space", "store cache1", …
	Level string `json:"level"`
	Says  string `json:"says"`
	Fix   string `json:"fix,omitempty"` // what to do, in words
}

// report collects findings.
type report struct{ list []Finding }

func (r *report) ok(check, format string, args ...any) {
	r.list = append(r.list, Finding{Check: check, Level: OK, Says: fmt.Sprintf(format, args...)})
}

func (r *report) warn(check, fix, format string, args ...any) {
	r.list = append(r.list, Finding{check, Warning, fmt.Sprintf(format, args...), fix})
}

func (r *report) fault(check, fix, format string, args ...any) {
	r.list = append(r.list, Finding{check, Fault, fmt.Sprintf(format, args...), fix})
}

// storeTimeout bounds what one store may take.
const storeTimeout = 20 * time.Second

// Run does every check that concerns the configuration's role, and goes on whatever one of them finds.
func Run(ctx context.Context, c *config.Config, roles Roles) []Finding {
	r := &report{}
	if err := c.Check(); err != nil {
		r.fault("configuration", "", "%v", err)
	} else {
		r.ok("configuration", "no faults")
	}
	for _, w := range c.Warnings {
		r.warn("configuration", "", "%s", w)
	}
	if p := c.Primary; p != nil {
		kernel(r)
		privileges(r)
		source(r, p.Source)
		if roles.Seal != nil {
			roundTrip(ctx, r, p, roles)
		}
	}
	clock(r)
	for _, dir := range places(c) {
		space(r, dir)
	}
	node, volumes, stores := destinations(c)
	for _, st := range stores {
		within, stop := context.WithTimeout(ctx, storeTimeout)
		account(within, r, c.SSH(), st, node, volumes)
		stop()
	}
	if c.Primary != nil {
		backups(ctx, r, c.Primary)
	}
	return r.list
}

// backups are read by a primary, and not written to. One that is out of reach keeps nothing from working.
func backups(ctx context.Context, r *report, p *config.Primary) {
	for _, st := range p.Backups {
		within, stop := context.WithTimeout(ctx, storeTimeout)
		found := &report{}
		account(within, found, p.SSH, st, p.Node, nil)
		stop()
		for _, f := range found.list {
			if f.Level == Fault {
				f.Level, f.Says = Warning, f.Says+": local copies stay while it cannot be seen there that they are not needed, and it cannot be drilled from here"
			}
			r.list = append(r.list, f)
		}
	}
}

// Faults counts the findings that keep slipway from working.
func Faults(list []Finding) (n int) {
	for _, f := range list {
		if f.Level == Fault {
			n++
		}
	}
	return n
}

// places are the directories that slipway fills on this host.
func places(c *config.Config) []string {
	switch {
	case c.Primary != nil:
		return []string{c.Primary.State, c.Primary.Spool.Dir, c.Primary.Source}
	case c.Peer != nil:
		return []string{c.Peer.State, c.Peer.Store}
	case c.Receive != nil:
		return []string{c.Receive.State, c.Receive.Store}
	}
	return []string{c.Cache.State, c.Cache.Store}
}

// destinations are the stores that this host writes to, and the volumes that it writes there: those that have come so far to a cache host or a peer.
func destinations(c *config.Config) (node string, volumes []string, stores []config.Store) {
	switch {
	case c.Primary != nil:
		return c.Primary.Node, []string{c.Primary.Volume}, append([]config.Store{c.Primary.Cache}, c.Primary.Replicas...)
	case c.Peer != nil:
		return c.Peer.Node, come(c.Peer.Store), append([]config.Store{c.Peer.Cache}, c.Peer.Replicas...)
	case c.Cache != nil:
		return c.Cache.Node, come(c.Cache.Store), c.Cache.Ship.To
	}
	return "", nil, nil
}

// come lists the volumes of a store on this host.
func come(dir string) (volumes []string) {
	entries, _ := os.ReadDir(dir) // the check of the configuration tells of a directory that is not there
	for _, e := range entries {
		if e.IsDir() && store.CheckName(e.Name()) == nil {
			volumes = append(volumes, e.Name())
		}
	}
	return volumes
}
