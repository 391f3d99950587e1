package shipper

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
)

func TestShipsInOrder(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	b1, b2, b3 := p.seal([]int{1000, 2000}, nil), p.seal(nil, nil), p.seal([]int{300_000}, nil)
	p.put(c.store, b1, b2, b3)
	c.mustOnce()
	for _, host := range []string{"vault1", "vault2"} {
		c.wantCopy(host, p, b1, b2, b3)
		c.wantHead("projects", host, 3)
	}
	c.wantHead("projects", "cache1", 3)
	a := c.acks("projects", "cache1")
	if a.VolumeID != p.id || a.Kind != "cache" || a.Copies != 2 || a.HeadDigest != b3.Digest || len(a.Recent) != 3 {
		t.Errorf("acks of the cache: %+v", a)
	}
	if n := c.log.find("pin the first owner key"); n != 1 {
		t.Errorf("the pinned key was announced %d times", n)
	}
	b4 := p.seal([]int{10}, nil)
	p.put(c.store, b4)
	c.start() // another process
	c.mustOnce()
	c.wantCopy("vault1", p, b1, b2, b3, b4)
	c.wantHead("projects", "vault1", 4)
	if n := c.hosts["vault1"].count(); n != 4+4 {
		t.Errorf("%d objects were sent to vault1, want 8", n)
	}
	c.noneIllegal()
}

// TestKilledAnywhere ends the process before the nth publish, for every n, and starts another one: nothing is acknowledged that
// is not there, nothing is sent twice but what was in flight, and in the end everything is there.
func TestKilledAnywhere(t *testing.T) {
	const batches = 4
	for n := 1; ; n++ {
		c := newCacheHost(t, "vault1")
		p := newPrimary(t, "projects")
		for range batches {
			p.seal([]int{100, 200, 300}, nil)
		}
		p.put(c.store, p.sealed...)
		ctx, cancel := context.WithCancel(context.Background())
		h := c.hosts["vault1"]
		var calls atomic.Int32
		h.setBefore(func(ctx context.Context, _ string) error {
			if int(calls.Add(1)) >= n {
				cancel()
			}
			return ctx.Err()
		})
		err := c.start().ShipOnce(ctx, false)
		cancel()
		if head := c.acks("projects", "vault1").Head; head > 0 {
			c.wantCopy("vault1", p, p.sealed[:head]...)
		}
		h.setBefore(nil)
		c.start()
		c.mustOnce()
		c.wantCopy("vault1", p, p.sealed...)
		c.wantHead("projects", "vault1", batches)
		for name, times := range h.published {
			if times != 1 {
				t.Errorf("killed at %d: %s was sent %d times", n, name, times)
			}
		}
		c.noneIllegal()
		if err == nil {
			return // it was not killed any more
		}
		if n > batches*4+2 {
			t.Fatal("there is no end")
		}
	}
}

// TestSlowHost: a host that takes nothing does not delay another, nor does a volume with much to send another volume.
func TestSlowHost(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil), p.seal([]int{1000}, nil))
	stuck := make(chan struct{})
	c.hosts["vault1"].setBefore(func(ctx context.Context, _ string) error {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	s := c.start()
	go func() { done <- s.Run(ctx) }()
	c.await("vault2 has both", func() bool { return c.acks("projects", "vault2").Head == 2 })
	c.wantHead("projects", "vault1", 0)
	close(stuck)
	c.await("vault1 has both", func() bool { return c.acks("projects", "vault1").Head == 2 })
	cancel()
	must(t, <-done)
	c.noneIllegal()
}

// TestRunSeesArrivals: nothing but file-system events says that something has come.
func TestRunSeesArrivals(t *testing.T) {
	c := newCacheHost(t, "vault1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	s := c.start()
	go func() { done <- s.Run(ctx) }()
	for _, name := range []string{"projects", "papers"} {
		p := newPrimary(t, name)
		var slowest time.Duration
		for i := range 20 {
			b := p.seal([]int{4096}, nil)
			begun := time.Now()
			p.put(c.store, b)
			c.await("acknowledged", func() bool { return c.acks(name, "vault1").Head == batch.Seq(i+1) })
			if i > 0 {
				slowest = max(slowest, time.Since(begun))
			}
		}
		t.Logf("%s: from put to acknowledgement at most %v", name, slowest)
		if slowest > listEvery/2 { // what no event told of waits for the next listing
			t.Errorf("the slowest took %v", slowest)
		}
		c.wantCopy("vault1", p, p.sealed...)
	}
	cancel()
	must(t, <-done)
}

// await polls, because what is waited for is in files of another process.
func (c *cacheHost) await(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			c.t.Fatalf("waited in vain: %s\n%s", what, strings.Join(c.log.lines, "\n"))
		case <-tick.C:
		}
	}
}

func TestManual(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = []config.Condition{{Manual: true}}
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	c.wantHead("projects", "vault1", 0)
	must(t, c.ship.ShipOnce(context.Background(), true))
	c.wantHead("projects", "vault1", 1)
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
}
