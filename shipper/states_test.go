package shipper

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/store"
)

// TestWordsOfConditions: what each condition says while it does not hold, and once it does. docs/states.md has them.
func TestWordsOfConditions(t *testing.T) {
	now := at(t, berlin, "2026-11-23 15:00")
	night, day := "22:00-06:00 "+berlin, "14:00-16:00 "+berlin
	for _, tc := range []struct {
		item config.Condition
		f    Facts
		says string
	}{
		{config.Condition{Age: span(time.Hour)}, Facts{Received: now}, "it to be 1h0m0s old"},
		{config.Condition{Age: span(time.Hour)}, Facts{Received: now.Add(-time.Hour)}, "it is 1h0m0s old"},
		{config.Condition{Bytes: 1 << 20}, Facts{Bytes: 1 << 10}, "1.0 MiB to come together (now 1.0 KiB)"},
		{config.Condition{Bytes: 1 << 20}, Facts{Bytes: 1 << 20}, "1.0 MiB have come together"},
		{config.Condition{Batches: 3}, Facts{Batches: 2}, "3 batches to come together (now 2)"},
		{config.Condition{Batches: 3}, Facts{Batches: 3}, "3 batches have come together"},
		{config.Condition{Idle: span(time.Minute)}, Facts{LastArrival: now}, "nothing to come for 1m0s"},
		{config.Condition{Idle: span(time.Minute)}, Facts{LastArrival: now.Add(-time.Hour)}, "nothing came for 1m0s"},
		{config.Condition{CacheUsed: "80%"}, Facts{CacheUsed: 700}, "the cache to be used to 80% (now 700 B)"},
		{config.Condition{CacheUsed: "80%"}, Facts{CacheUsed: 800}, "the cache is used to 80%"},
		{config.Condition{Manual: true}, Facts{}, "an operator's word (slipway ship --now)"},
		{config.Condition{Manual: true}, Facts{Manual: true}, "an operator said so"},
		{config.Condition{Window: night}, Facts{}, "the window " + night},
		{config.Condition{Window: day}, Facts{}, "in the window " + day},
		{config.Condition{Batches: 3, Window: day}, Facts{Begun: true}, "was due and in the window " + day},
		{config.Condition{Batches: 3, Window: night}, Facts{Batches: 1}, "3 batches to come together (now 1) and the window " + night},
	} {
		c, err := Compile(tc.item, 1000)
		must(t, err)
		if _, says, _ := Due(c, tc.f, now); says != tc.says {
			t.Errorf("%+v, %+v: says %q, want %q", tc.item, tc.f, says, tc.says)
		}
	}
}

// said returns what `ship --explain` says of a volume's batches at a host, oldest first.
func (c *cacheHost) said() (list []string) {
	c.t.Helper()
	all, err := c.ship.Explanations(context.Background())
	must(c.t, err)
	for _, e := range all {
		list = append(list, fmt.Sprintf("%d %s: %s", e.Seq, e.State, e.WaitsFor))
	}
	return list
}

// TestStatesOfShipping reaches every state of a batch at a backup host, and reads what is said of it.
func TestStatesOfShipping(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = []config.Condition{{Batches: 2}, {Manual: true}}
	p := newPrimary(t, "projects")
	says := func(what string, want ...string) {
		t.Helper()
		got := c.said()
		if len(got) != len(want) {
			t.Fatalf("%s: says %q, want %q", what, got, want)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%s: says %q, want %q", what, got[i], want[i])
			}
		}
	}
	first := p.seal([]int{10, 20}, nil)
	p.put(c.store, first)
	c.mustOnce()
	says("a condition", "1 holding: 2 batches to come together (now 1), or for an operator's word (slipway ship --now)")
	st, err := c.ship.Status(t.Context())
	must(t, err)
	if s := st[0].Stores[1]; s.State != "waiting" || s.WaitsFor != "2 batches to come together (now 1), or for an operator's word (slipway ship --now)" {
		t.Errorf("status: %+v", s)
	}
	must(t, c.ship.Do(t.Context(), "hold", "projects/1"))
	p.put(c.store, p.seal([]int{30}, nil))
	c.mustOnce()
	says("held", "1 holding: an operator to release batch 1 (slipway spool release 1)", "2 holding: an operator to release batch 1")
	must(t, c.ship.Do(t.Context(), "release", "projects/1"))

	c.hosts["vault1"].setFault(store.ErrTemporary)
	_ = c.once()
	says("the host is silent", "1 waiting: vault1 to answer, which is tried again: ", "2 waiting: vault1 to answer")
	c.hosts["vault1"].setFault(nil)
	c.clock.pass(time.Hour)
	sent := 0
	c.hosts["vault1"].setBefore(func(_ context.Context, name string) error {
		switch strings.TrimPrefix(name, "projects/") {
		case first.path():
			says("on its way", fmt.Sprintf("1 sending: nothing: 30 of %d bytes are sent", 30+len(first.File)), "2 sending: its turn: was due")
			sent++
		case batch.Path(1, 2, 2):
			says("the last", "2 sending: nothing: 30 of ")
			sent++
		}
		return nil
	})
	c.mustOnce()
	if sent != 2 {
		t.Errorf("%d batches were sent", sent)
	}
	says("there")
	rows, err := c.ship.Batches(t.Context(), "projects", 1, 0)
	must(t, err)
	if len(rows) != 2 || rows[0].Stage != "stored" || rows[1].Copies != 1 {
		t.Errorf("spool ls says %+v", rows)
	}
}
