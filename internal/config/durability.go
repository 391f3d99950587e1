package config

import (
	"fmt"
	"strings"

	"slipway/internal/exclude"
)

// durability reads one item of durability:.
func durability(x *Durability) reader {
	return object(
		field{"path", text(&x.Path, checkDurablePath), "path: PATTERN, as in exclude:"},
		field{"stage", text(&x.Stage, checkDurableStage), "stage: local, replicated, cached or stored"},
	)
}

func checkDurablePath(s string) (problem, fix string) {
	if strings.HasPrefix(s, "!") {
		return "a pattern of durability: cannot be negated", "write a later item with stage: local for what is to be an exception"
	}
	if s == "" || s == "/" || strings.HasPrefix(s, "#") {
		return "the pattern matches nothing", "write a pattern as in exclude:; \"**\" is everything"
	}
	if _, err := exclude.New([]string{s}); err != nil {
		return err.Error(), "mend the pattern"
	}
	return "", ""
}

func checkDurableStage(s string) (problem, fix string) {
	switch s {
	case "local", "replicated", "cached", "stored":
		return "", ""
	}
	return fmt.Sprintf("%q is no stage that an fsync can wait for", s), "write local, replicated, cached or stored"
}

// checkDurability finds stages that this configuration does not have: they would be passed with the one before, and fsync would promise
// what nobody keeps.
func (d *document) checkDurability(p *Primary) {
	for i, x := range p.Durability {
		at := d.at[fmt.Sprintf("durability[%d].stage", i)]
		switch {
		case x.Stage == "replicated" && p.MinReplicas == 0:
			d.fault(at, "write min_replicas: 1 or more, with so many replicas, or another stage", "stage replicated: min_replicas is 0, so no replica would be waited for")
		case x.Stage == "stored" && p.Copies == 0 && len(p.Backups) == 0:
			d.fault(at, "write copies: N or the backups, or another stage", "stage stored: nothing here says that there are backup hosts")
		}
	}
	if at := d.at["durability_timeout"]; at != nil && len(p.Durability) == 0 {
		d.fault(at, "remove it, or add durability:", "durability_timeout without durability: no fsync waits")
	}
}
