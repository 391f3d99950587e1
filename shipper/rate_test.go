package shipper

import (
	"context"
	"strings"
	"testing"
)

// TestRateInAcks: what a host takes a second stands in its acks while a batch is on its way, and not beyond.
func TestRateInAcks(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil))
	c.start()
	var told []float64
	c.hosts["vault1"].setBefore(func(ctx context.Context, name string) error {
		if strings.Contains(name, "/shards/") {
			for _, rate := range []float64{5e6, 6e6} {
				c.ship.all()[0].cursors[0].tellRate(ctx, rate)
				told = append(told, c.acks("projects", "vault1").Rate)
			}
		}
		return nil
	})
	c.mustOnce()
	if len(told) != 2 || told[0] != 5e6 || told[1] != 6e6 {
		t.Errorf("told while the shard travels: %v", told)
	}
	c.wantHead("projects", "vault1", 1)
	if a := c.acks("projects", "vault1"); a.Rate != 0 {
		t.Errorf("afterwards: %v", a.Rate)
	}
}
