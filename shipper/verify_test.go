package shipper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// verify runs the step; the batches are shipped before.
func (c *cacheHost) verify() error { return c.once() }

func TestVerifies(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	c.cfg.Ship.Copies = 1
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil), p.seal([]int{10}, nil))
	c.mustOnce()
	if a := c.acks("projects", "vault1"); a.Verified != 0 {
		t.Errorf("verified %d before its time", a.Verified)
	}
	c.clock.pass(30 * time.Minute)
	c.start() // the time that passed is remembered
	p.put(c.store, p.seal([]int{20}, nil))
	c.mustOnce()
	c.clock.pass(35 * time.Minute)
	c.mustOnce()
	for _, host := range []string{"vault1", "vault2"} {
		if a := c.acks("projects", host); a.Verified != 2 || a.Head != 3 {
			t.Errorf("%s: verified %d of %d, want 2 of 3", host, a.Verified, a.Head)
		}
	}
	rows, err := c.ship.Batches(context.Background(), "", 1, 0)
	must(t, err)
	var stages []string
	for _, r := range rows {
		stages = append(stages, r.Stage)
	}
	if strings.Join(stages, " ") != "verified verified stored" {
		t.Errorf("stages are %v", stages)
	}
	c.clock.pass(time.Hour)
	c.mustOnce()
	if a := c.acks("projects", "vault1"); a.Verified != 3 {
		t.Errorf("verified %d, want 3", a.Verified)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	b1, b2 := p.seal([]int{1000}, nil), p.seal([]int{2000}, nil)
	p.put(c.store, b1, b2)
	c.mustOnce()
	var file string
	for d := range b2.shards {
		file = filepath.Join(c.hosts["vault1"].dir, "projects", d.Path())
	}
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, flip(data), 0o660))
	c.clock.pass(2 * time.Hour)
	if err := c.verify(); !errors.Is(err, errDamaged) {
		t.Errorf("got %v", err)
	}
	if a := c.acks("projects", "vault1"); a.Verified != 1 {
		t.Errorf("verified %d of the damaged host, want 1", a.Verified)
	}
	if a := c.acks("projects", "vault2"); a.Verified != 2 {
		t.Errorf("verified %d of the sound host, want 2", a.Verified)
	}
	st, err := c.ship.Status(context.Background())
	must(t, err)
	if !strings.Contains(strings.Join(st[0].Warnings, " "), "remove the damaged file") {
		t.Errorf("warnings: %q", st[0].Warnings)
	}
	must(t, os.Remove(file)) // as the warning says
	must(t, c.verify())
	c.wantCopy("vault1", p, b1, b2)
	if a := c.acks("projects", "vault1"); a.Verified != 2 {
		t.Errorf("verified %d after the repair, want 2", a.Verified)
	}
}

// TestVerifyTriesAgain: after one failed answer a host is read back again soon; after damage, which somebody has to look at, later; and with
// nothing due when something will be.
func TestVerifyTriesAgain(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{1000}, nil)
	p.put(c.store, b)
	c.mustOnce()
	cur := c.ship.all()[0].cursors[0]
	if next := cur.verifyStep(t.Context()); next < 50*time.Minute || next > 70*time.Minute {
		t.Errorf("before anything is due it goes on in %v", next)
	}
	c.clock.pass(2 * time.Hour)
	c.hosts["vault1"].setFault(store.ErrTemporary)
	if next := cur.verifyStep(t.Context()); next != lastRetry {
		t.Errorf("after a failed answer it goes on in %v", next)
	}
	c.hosts["vault1"].setFault(nil)
	for d := range b.shards {
		file := filepath.Join(c.hosts["vault1"].dir, "projects", d.Path())
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, flip(data), 0o660))
		if next := cur.verifyStep(t.Context()); next != damagedAgain {
			t.Errorf("after damage it goes on in %v", next)
		}
		must(t, os.WriteFile(file, data, 0o660))
	}
	if next := cur.verifyStep(t.Context()); next != 0 || c.acks("projects", "vault1").Verified != 1 {
		t.Errorf("sound again: it goes on in %v", next)
	}
}

// TestVerifyReplenishes what a host has lost, also from another host when the cache has evicted it.
func TestVerifyReplenishes(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	c.cfg.Ship.Keep = 0
	p := newPrimary(t, "projects")
	b1, b2 := p.seal([]int{1000}, nil), p.seal([]int{2000}, nil)
	p.put(c.store, b1, b2)
	c.mustOnce()
	for d := range b1.shards {
		must(t, os.Remove(filepath.Join(c.hosts["vault1"].dir, "projects", d.Path())))
		if _, err := os.Stat(filepath.Join(c.cfg.Store, "projects", d.Path())); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("the cache still has the shard")
		}
	}
	must(t, os.Remove(filepath.Join(c.hosts["vault1"].dir, "projects", b1.path())))
	c.clock.pass(2 * time.Hour)
	must(t, c.verify())
	c.wantCopy("vault1", p, b1, b2)
	if a := c.acks("projects", "vault1"); a.Verified != 2 {
		t.Errorf("verified %d, want 2", a.Verified)
	}
	if c.log.find("lost something it had") == 0 {
		t.Error("nobody said so")
	}
}

// TestMarksAreBounded: however often a head moves, the marks stay few, and none says that something was there earlier than it was.
func TestMarksAreBounded(t *testing.T) {
	c := queueOf(t, time.Now(), nil, time.Hour)
	c.s.cfg.Ship.VerifyAfter = 0
	begin := time.Now()
	for i := range 5000 {
		c.markLocked(batch.Seq(i+1), begin.Add(time.Duration(i)*time.Second))
	}
	if len(c.marks) > maxMarks {
		t.Fatalf("%d marks", len(c.marks))
	}
	for _, m := range c.marks {
		if m.At.Before(begin.Add(time.Duration(m.Seq-1) * time.Second)) {
			t.Fatalf("batch %d is marked at %v", m.Seq, m.At.Sub(begin))
		}
	}
	if last := c.marks[len(c.marks)-1]; last.Seq != 5000 {
		t.Errorf("the last mark is of %d", last.Seq)
	}
}
