package sender

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slipway/internal/batch"
	"slipway/internal/progress"
	"slipway/internal/store"
)

var (
	schedules = flag.Int("schedules", 100, "random schedules of the simulation")
	seedFlag  = flag.Uint64("seed", 0, "seed of the first schedule; 0: a new one, printed")
)

// after runs until a condition of the simulated time holds, and returns when that was.
func (c *cluster) until(within time.Duration, what string, holds func() bool) time.Duration {
	c.t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > within {
			c.t.Errorf("waited %v for %s\n%s", within, what, c)
			c.close()
			c.t.FailNow()
		}
		<-tick.C
		c.arrive()
	}
	return time.Since(began)
}

// String says where everything is, for the report of a failed test.
func (c *cluster) String() string {
	var b strings.Builder
	for _, n := range append([]string{"cache1"}, names...) {
		fmt.Fprintf(&b, "%s holds %d", n, held{c.h, c.disks[n]}.head())
		if x := c.node(n); x != nil {
			fmt.Fprintf(&b, ", %+v", x.sender.Report())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (c *cluster) sends(name string) func() bool {
	return func() bool {
		n := c.node(name)
		return n != nil && n.sender.Report().State == Sending
	}
}

func (c *cluster) acknowledged(seq batch.Seq) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.acked >= seq
	}
}

// inCluster runs a test in a bubble of its own, with everything started and one batch delivered.
func inCluster(t *testing.T, h *history, test func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, h, rand.New(rand.NewPCG(3, 4)))
		c.startCache()
		for _, n := range names {
			c.start(n)
		}
		c.seal()
		c.until(5*time.Second, "the first batch", c.acknowledged(1))
		test(t, c)
		c.close()
	})
}

func TestTakeover(t *testing.T) {
	h := newHistory(t, 12, 3)
	tests := []struct {
		name  string
		fault func(c *cluster)
		low   time.Duration // not before
		high  time.Duration
	}{
		{"an error is reported", func(c *cluster) { c.net.set(func() { c.net.down["alpha>cache1"] = true; clear(c.net.hole) }) }, 0, time.Second},
		{"the owner has died", func(c *cluster) { c.crash("alpha") }, 4 * time.Second, 6 * time.Second},
		{"the owner is stopped", func(c *cluster) { c.net.set(func() { c.net.frozen["alpha"] = true }) }, 4 * time.Second, 6 * time.Second},
		{"its line to the cache swallows all", func(c *cluster) { c.net.set(func() { c.net.hole["alpha>cache1"] = true }) }, 4 * time.Second, 6 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inCluster(t, h, func(t *testing.T, c *cluster) {
				// The batch reaches bravo and charlie, and not the cache.
				c.net.set(func() { c.net.hole["alpha>cache1"] = true })
				c.seal()
				c.until(3*time.Second, "the peers' copies", func() bool {
					return held{h, c.disks["bravo"]}.head() == 2 && held{h, c.disks["charlie"]}.head() == 2
				})
				tt.fault(c)
				took := c.until(20*time.Second, "a takeover", c.sends("bravo"))
				if took < tt.low-3*time.Second || took > tt.high {
					t.Errorf("taken over after %v, want %v to %v", took, tt.low, tt.high)
				}
				c.until(5*time.Second, "the batch", c.acknowledged(2))
				if r := c.node("bravo").sender.Report(); r.Term != 1 || r.Node != "bravo" || r.Reason == "" {
					t.Errorf("report %+v", r)
				}
				// The old sender comes back, stands by, and is sender again after a minute of health.
				c.net.set(func() { clear(c.net.down); clear(c.net.hole); clear(c.net.frozen) })
				c.start("alpha")
				c.until(10*time.Second, "alpha to stand by", func() bool { return !c.sends("alpha")() })
				took = c.until(2*time.Minute, "alpha to send again", c.sends("alpha"))
				if took < 50*time.Second || took > 70*time.Second {
					t.Errorf("alpha is back after %v", took)
				}
				c.until(10*time.Second, "bravo to stand by", func() bool { return !c.sends("bravo")() })
			})
		})
	}
}

// Nobody takes over from a sender that has nothing to send, or from one that dies and is back at once.
func TestNoTakeover(t *testing.T) {
	h := newHistory(t, 12, 3)
	inCluster(t, h, func(t *testing.T, c *cluster) {
		c.crash("alpha")
		<-time.After(time.Minute)
		if got := c.sending(); len(got) != 0 {
			t.Errorf("%v sends, though nothing is undelivered", got)
		}
		c.start("alpha")
		for range 5 {
			c.seal()
			c.crash("alpha")
			<-time.After(time.Second)
			c.start("alpha")
			c.until(10*time.Second, "the batch", func() bool { return c.drained(0) == nil })
		}
		for _, n := range names[1:] {
			if r := c.node(n).sender.Report(); r.Term != 0 || r.State != Standby {
				t.Errorf("%s: %+v", n, r)
			}
		}
	})
}

func TestOrders(t *testing.T) {
	h := newHistory(t, 12, 3)
	inCluster(t, h, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		alpha, charlie := c.node("alpha").sender, c.node("charlie").sender
		must(t, alpha.Pin(ctx, "charlie"))
		c.until(10*time.Second, "charlie", c.sends("charlie"))
		c.until(10*time.Second, "alpha to stand by", func() bool { return !c.sends("alpha")() })
		<-time.After(3 * time.Minute)
		if got := fmt.Sprint(c.sending()); got != "[charlie]" {
			t.Errorf("pinned to charlie, but %v send", got)
		}
		c.seal()
		c.until(10*time.Second, "the batch from charlie's copy", c.acknowledged(2))
		must(t, charlie.Drain(ctx))
		c.until(10*time.Second, "alpha", c.sends("alpha"))
		if r := alpha.Report(); r.Prefer != "" || fmt.Sprint(r.Avoid) != "[charlie]" {
			t.Errorf("%+v", r)
		}
		must(t, charlie.Release(ctx))
		c.until(10*time.Second, "the release", func() bool { r := alpha.Report(); return r.Term == 3 && len(r.Avoid) == 0 })
		if err := alpha.Pin(ctx, "delta"); err == nil {
			t.Error("pinned to a node that does not exist")
		}
		if err := alpha.Do(ctx, "sell", ""); err == nil {
			t.Error("a word that nobody knows")
		}
	})
}

// A file that is no claim in the place of the next term holds nobody up.
func TestForgedClaims(t *testing.T) {
	h := newHistory(t, 12, 3)
	inCluster(t, h, func(t *testing.T, c *cluster) {
		d := c.disks["cache1"]
		d.replace("claims/1-1", []byte("{}"))
		d.replace("claims/1-4294967295", []byte(`{"format":1}`))
		d.replace("claims/nonsense", nil)
		c.net.set(func() { c.net.hole["alpha>cache1"] = true })
		c.seal()
		c.until(20*time.Second, "a takeover", c.sends("bravo"))
		c.until(5*time.Second, "the batch", c.acknowledged(2))
		if r := c.node("bravo").sender.Report(); r.Term != 2 {
			t.Errorf("%+v", r)
		}
	})
}

// An owner shows its peers that it lives also when it has nothing to send, and when another node sends for it; peers show nothing.
func TestOwnerShowsLife(t *testing.T) {
	h := newHistory(t, 12, 3)
	inCluster(t, h, func(t *testing.T, c *cluster) {
		told := func(node string) uint64 {
			p, err := progress.Read(t.Context(), c.store("charlie", "charlie"), node)
			if err != nil && !errors.Is(err, store.ErrNotExist) {
				t.Fatal(err)
			}
			return p.Number
		}
		moves := func(when string) {
			t.Helper()
			before := told("alpha")
			<-time.After(time.Minute)
			if n := told("alpha") - before; n < 10 || n > 14 {
				t.Errorf("%s: %d signs in a minute", when, n)
			}
		}
		<-time.After(10 * time.Second)
		moves("idle")
		must(t, c.node("alpha").sender.Pin(t.Context(), "bravo"))
		c.until(10*time.Second, "bravo", c.sends("bravo"))
		<-time.After(10 * time.Second)
		bravo := told("bravo")
		moves("standing by")
		if n := told("bravo"); n != bravo {
			t.Errorf("bravo, who owns nothing, gave %d signs", n-bravo)
		}
	})
}
