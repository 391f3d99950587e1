package shipper

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/health"
)

// order gives an operator's word through the door that the control socket uses.
func (c *cacheHost) order(verb, arg string) {
	c.t.Helper()
	must(c.t, c.ship.Do(context.Background(), verb, arg))
}

// TestHold: from a held batch on nothing goes to any host, over a restart and whatever is due, until it is released.
func TestHold(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	c.order("hold", "projects/2") // the next one, before it is there
	p.put(c.store, p.seal([]int{10}, nil), p.seal([]int{10}, nil))
	c.mustOnce()
	c.start()
	c.mustOnce()
	must(t, c.ship.ShipOnce(t.Context(), true))
	for _, host := range []string{"vault1", "vault2"} {
		c.wantHead("projects", host, 1)
	}
	rows, err := c.ship.Batches(t.Context(), "projects", 0, 0)
	must(t, err)
	if len(rows) != 3 || rows[0].Held || !rows[1].Held || !rows[2].Held || strings.Join(rows[0].Stores, " ") != "cache1 vault1 vault2" || strings.Join(rows[2].Stores, " ") != "cache1" {
		t.Errorf("spool ls says %+v", rows)
	}
	if a := c.acks("projects", "vault1"); a.Waits == nil || a.Waits.From != 2 || a.Waits.Until != nil || !strings.Contains(a.Waits.For, "spool release 2") {
		t.Errorf("the primary is told %+v", a.Waits)
	}
	status, err := c.ship.Status(t.Context())
	must(t, err)
	if w := strings.Join(status[0].Warnings, "\n"); !strings.Contains(w, "an operator holds batch 2") {
		t.Errorf("status warns %q", w)
	}
	if why := health.Problems(status, nil); len(why) > 0 {
		t.Errorf("what an operator has wished is a problem: %q", why)
	}
	c.order("release", "projects/2")
	c.mustOnce()
	c.wantHead("projects", "vault1", 3)
	c.wantHead("projects", "vault2", 3)
	if a := c.acks("projects", "vault1"); a.Waits != nil {
		t.Errorf("the primary is still told %+v", a.Waits)
	}
	c.noneIllegal()
}

// TestHoldOnTheWay: a batch whose shards are travelling when it is held does not appear on the host.
func TestHoldOnTheWay(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{10, 20}, nil)
	p.put(c.store, b)
	c.start()
	var fired sync.Once // two shards travel at once
	met := make(chan struct{})
	c.hosts["vault1"].setBefore(func(_ context.Context, name string) error {
		if strings.HasPrefix(name, "projects/shards") {
			fired.Do(func() { c.order("hold", "projects/1"); close(met) })
		}
		return nil
	})
	c.mustOnce()
	select {
	case <-met:
	default:
		t.Fatal("nothing was on the way")
	}
	if _, err := c.hosts["vault1"].Stat(t.Context(), "projects/"+b.path()); err == nil {
		t.Error("the batch was published although it is held")
	}
	c.wantHead("projects", "vault1", 0)
	c.order("release", "projects/1")
	c.mustOnce()
	c.wantCopy("vault1", p, b)
	c.noneIllegal()
}

// TestNow sends up to one batch that no condition lets go, and none behind it.
func TestNow(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = []config.Condition{{Age: span(time.Hour)}}
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil), p.seal([]int{10}, nil), p.seal([]int{10}, nil))
	c.mustOnce()
	c.wantHead("projects", "vault1", 0)
	if a := c.acks("projects", "vault1"); a.Waits == nil || a.Waits.Until == nil || !strings.Contains(a.Waits.For, "1h0m0s old") {
		t.Errorf("the primary is told %+v", a.Waits)
	}
	c.order("now", "projects/2")
	c.mustOnce()
	c.wantHead("projects", "vault1", 2)
}

// TestOrdersRefused: each order that cannot be carried out is answered with why, and changes nothing.
func TestOrdersRefused(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = []config.Condition{{Manual: true}}
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil), p.seal([]int{10}, nil), p.seal([]int{10}, nil))
	c.mustOnce()
	c.order("now", "projects/1")
	c.mustOnce()
	c.order("hold", "projects/3")
	c.order("hold", "projects/3") // once more is no fault
	for _, tt := range []struct {
		verb, arg string
		class     error
		words     string
	}{
		{"hold", "projects/1", errEverywhere, "every backup host has it"},
		{"hold", "projects/5", fs.ErrNotExist, "it has not arrived here: the newest is 3"},
		{"hold", "projects/0", fs.ErrNotExist, "not arrived"},
		{"now", "projects/4", fs.ErrNotExist, "it has not arrived here: the newest is 3"},
		{"now", "projects/3", errHeldBefore, "batch 3 is held"},
		{"release", "projects/2", errNotHeld, "held: 3"},
		{"hold", "papers/1", errNotArrived, "volume papers"},
		{"hold", "projects/x", nil, "not a batch number"},
		{"sink", "projects/1", errNoSuchOrder, "no such order"},
	} {
		err := c.ship.Do(t.Context(), tt.verb, tt.arg)
		if err == nil || tt.class != nil && !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s %s: %v", tt.verb, tt.arg, err)
		}
	}
	v := c.ship.all()[0]
	if len(v.holds) != 1 || v.holds[0].Seq != 3 || v.manual != batch.Seq(1) {
		t.Errorf("held %v, manual %d", v.holds, v.manual)
	}
	c.order("release", "projects/3")
	if err := c.ship.Do(t.Context(), "release", "projects/3"); !errors.Is(err, errNotHeld) || !strings.Contains(err.Error(), "nothing is") {
		t.Errorf("released twice: %v", err)
	}
}

// TestOrderOnce: without a daemon the word is written down for the next one; beside one it is refused.
func TestOrderOnce(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	must(t, c.start().OrderOnce(t.Context(), "hold", "projects/2"))
	p.put(c.store, p.seal([]int{10}, nil))
	c.start()
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	running, err := c.ship.lock()
	must(t, err)
	if err := c.start().OrderOnce(t.Context(), "release", "projects/2"); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("beside a daemon: %v", err)
	}
	must(t, running.Close())
}

// TestHoldMeetsPublish: a hold that meets a batch file on its way returns when it is known whether that is there.
func TestHoldMeetsPublish(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{10}, nil)
	p.put(c.store, b)
	c.start()
	held := make(chan error, 1)
	c.hosts["vault1"].setBefore(func(_ context.Context, name string) error {
		if name != "projects/"+b.path() {
			return nil
		}
		go func() { held <- c.ship.Do(context.Background(), "hold", "projects/1") }()
		select {
		case err := <-held:
			t.Errorf("the hold returned while the batch was on its way: %v", err)
			held <- err
		case <-time.After(200 * time.Millisecond):
		}
		return nil
	})
	c.mustOnce()
	must(t, <-held)
	rows, err := c.ship.Batches(t.Context(), "projects", 1, 1)
	must(t, err)
	if len(rows) != 1 || strings.Join(rows[0].Stores, " ") != "cache1 vault1" {
		t.Errorf("spool ls says %+v", rows)
	}
	c.noneIllegal()
}

// TestOrderWhileStarting: before the shipper knows what is there, an order is answered with that, and nothing of what was known is lost.
func TestOrderWhileStarting(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	c.start()
	end, err := c.ship.begin() // as Run does
	must(t, err)
	c.ship.discover(t.Context())
	if err := c.ship.Do(t.Context(), "hold", "projects/1"); !errors.Is(err, errStarting) {
		t.Errorf("before anything is known: %v", err)
	}
	end()
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
}

// TestDamagedHolds: where nobody knows what is held, everything is, until an operator releases it.
func TestDamagedHolds(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.start()
	path := c.ship.holdsPath("projects")
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte("[{"), 0o600))
	c.mustOnce()
	c.wantHead("projects", "vault1", 0)
	if n := c.log.find("nothing is shipped until"); n == 0 {
		t.Error("nobody is told")
	}
	c.order("release", "projects/1")
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
}
