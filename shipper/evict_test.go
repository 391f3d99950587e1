package shipper

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/shard"
	"slipway/internal/store"
)

func (c *cacheHost) cached(b *sealedBatch) bool {
	c.t.Helper()
	there := 0
	for d := range b.shards {
		if _, err := os.Stat(filepath.Join(c.cfg.Store, "projects", d.Path())); err == nil {
			there++
		}
	}
	if there != 0 && there != len(b.shards) {
		c.t.Errorf("batch %d is there in part", b.Envelope.First)
	}
	return there > 0
}

// TestKeep: shards go when every host has them and their time is over; batch files stay; what is not everywhere never goes.
func TestKeep(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	c.cfg.Ship.Copies = 1
	p := newPrimary(t, "projects")
	b1 := p.seal([]int{1000, 2000}, nil)
	p.put(c.store, b1)
	c.mustOnce()
	c.clock.pass(23 * time.Hour)
	c.hosts["vault2"].setFault(store.ErrTemporary)
	b2 := p.seal([]int{3000}, nil)
	p.put(c.store, b2)
	_ = c.once()
	if !c.cached(b1) {
		t.Fatal("evicted before its time")
	}
	c.clock.pass(2 * time.Hour)
	_ = c.once()
	if c.cached(b1) {
		t.Error("still there after its time")
	}
	c.clock.pass(48 * time.Hour)
	_ = c.once()
	c.start() // a process that has not heard of vault2 yet does not believe it has anything
	_ = c.once()
	if !c.cached(b2) {
		t.Fatal("evicted although vault2 lacks it")
	}
	c.hosts["vault2"].setFault(nil)
	c.mustOnce()
	if c.cached(b2) {
		t.Error("still there although everybody has it")
	}
	for _, b := range []*sealedBatch{b1, b2} {
		if _, err := os.Stat(filepath.Join(c.cfg.Store, "projects", b.path())); err != nil {
			t.Errorf("batch file: %v", err)
		}
	}
	c.wantCopy("vault1", p, b1, b2)
	c.start() // what was evicted is no loss
	c.mustOnce()
	c.wantHead("projects", "cache1", 2)
	if c.log.find("lost") != 0 {
		t.Error("evicted shards are taken for a loss")
	}
}

// TestKeepsWhatAHostMayHaveLost: that a host had everything once is no reason to evict before it has said so again.
func TestKeepsWhatAHostMayHaveLost(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	b := p.seal([]int{1000}, nil)
	p.put(c.store, b)
	c.mustOnce()
	for name, h := range c.hosts {
		must(t, os.RemoveAll(filepath.Join(h.dir, "projects")))
		h.setFault(store.ErrTemporary)
		t.Logf("%s is emptied while nobody looks", name)
	}
	c.clock.pass(48 * time.Hour)
	c.start()
	_ = c.once()
	if !c.cached(b) {
		t.Fatal("the only copy was evicted")
	}
	for _, h := range c.hosts {
		h.setFault(nil)
	}
	c.mustOnce()
	c.wantCopy("vault1", p, b)
	c.wantCopy("vault2", p, b)
}

// TestNewHost gets everything from the beginning, also what the cache has evicted.
func TestNewHost(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	c.cfg.Ship.Keep = 0
	later := c.cfg.Ship.To[1]
	c.cfg.Ship.To = c.cfg.Ship.To[:1]
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil), p.seal([]int{2000}, nil))
	c.mustOnce()
	if c.cached(p.sealed[0]) {
		t.Fatal("not evicted")
	}
	c.cfg.Ship.To = append(c.cfg.Ship.To, later)
	c.start()
	c.mustOnce()
	c.wantHead("projects", "cache1", 2)
	c.wantCopy("vault2", p, p.sealed...)
	c.wantHead("projects", "vault2", 2)
	if c.log.find("lost") != 0 {
		t.Error("evicted shards are taken for a loss")
	}
}

// TestEvictionInterrupted: a crash in the middle of it is neither a loss nor a leak.
func TestEvictionInterrupted(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{1000, 2000, 3000}, nil)
	p.put(c.store, b)
	c.mustOnce()
	v := c.ship.volumes["projects"]
	v.evicted, v.stateDirty = 1, true // noted
	must(t, c.ship.flush(t.Context(), v))
	for d := range b.shards { // and one of them gone
		must(t, os.Remove(filepath.Join(c.cfg.Store, "projects", d.Path())))
		break
	}
	c.clock.pass(25 * time.Hour)
	c.start()
	c.mustOnce()
	c.wantHead("projects", "cache1", 1)
	if c.cached(b) {
		t.Error("the rest was left")
	}
}

func TestWithoutHostsNothingGoes(t *testing.T) {
	c := newCacheHost(t)
	c.cfg.Ship.Keep = 0
	p := newPrimary(t, "projects")
	b := p.seal([]int{1000}, nil)
	p.put(c.store, b)
	c.mustOnce()
	c.wantHead("projects", "cache1", 1)
	if !c.cached(b) {
		t.Error("the only copy was evicted")
	}
	rows, err := c.ship.Batches(context.Background(), "projects", 0, 0)
	must(t, err)
	if rows[0].Stage != "verified" { // stages that the configuration does not have are passed with the one before
		t.Errorf("stage %s", rows[0].Stage)
	}
}

func TestCap(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.Cap = 100_000
	c.hosts["vault1"].setFault(store.ErrTemporary)
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{40_000}, nil))
	_ = c.once()
	if c.acks("projects", "cache1").Full {
		t.Error("full at less than half")
	}
	p.put(c.store, p.seal([]int{70_000}, nil))
	_ = c.once()
	a := c.acks("projects", "cache1")
	if !a.Full || a.Head != 2 {
		t.Errorf("over the cap: %+v", a)
	}
	st, err := c.ship.Status(context.Background())
	must(t, err)
	if st[0].Stores[0].State != "full" || st[0].Spool.Bytes < 110_000 || st[0].Spool.Cap != 100_000 {
		t.Errorf("status is %+v", st[0])
	}
	c.hosts["vault1"].setFault(nil)
	c.clock.pass(25 * time.Hour)
	c.mustOnce()
	if c.acks("projects", "cache1").Full {
		t.Error("still full after everything was shipped and evicted")
	}
}

// TestAbandoned: what the owner gave up goes, unless a batch needs it.
func TestAbandoned(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1 := p.seal([]int{1000}, nil)
	p.put(c.store, b1)
	var needed batch.Object
	for d, data := range b1.shards {
		needed = batch.Object{Digest: d, Size: int64(len(data))}
	}
	given := []byte("a shard that no batch ever introduced")
	stray := batch.Object{Digest: shard.Sum(given), Size: int64(len(given))}
	v := store.Sub(c.store, "projects")
	must(t, v.Publish(t.Context(), stray.Digest.Path(), given))
	p.put(c.store, p.seal(nil, func(e *batch.Envelope) { e.Abandons = []batch.Object{needed, stray} }))
	c.hosts["vault1"].setFault(store.ErrTemporary) // the order to sweep survives a restart
	_ = c.once()
	if !c.cached(b1) {
		t.Error("a shard that a batch introduces was removed")
	}
	if _, err := v.Stat(t.Context(), stray.Digest.Path()); err == nil {
		t.Error("the abandoned shard is still there")
	}
}

func TestExplanations(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	hour := time.Hour
	c.cfg.Ship.When = nil
	c.cfg.Ship.When = append(c.cfg.Ship.When, testCondition(&hour))
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.clock.pass(time.Minute)
	p.put(c.store, p.seal([]int{10}, nil))
	c.hosts["vault2"].setFault(store.ErrTemporary)
	_ = c.once()
	for _, where := range []string{"in the process", "in another one"} {
		list, err := c.ship.Explanations(t.Context())
		must(t, err)
		if len(list) != 4 {
			t.Fatalf("%s: %+v", where, list)
		}
		for i, e := range list[:2] {
			if e.Host != "vault1" || e.Seq != batch.Seq(i+1) || !strings.Contains(e.WaitsFor, "1h0m0s old") || e.ETASeconds == nil || e.When == nil {
				t.Errorf("%s: %+v", where, e)
			}
		}
		if eta := *list[0].ETASeconds; eta > 3600 || eta < 3500 {
			t.Errorf("%s: it would go in %v s", where, eta)
		}
		if !strings.Contains(list[2].WaitsFor, "vault2 to answer") || list[2].State != "waiting" || list[0].State != "holding" {
			t.Errorf("%s: %+v", where, list)
		}
		c.start()
	}
	p.put(c.store, &sealedBatch{Sealed: p.seal([]int{77}, nil).Sealed})
	_ = c.once()
	list, err := c.ship.Explanations(t.Context())
	must(t, err)
	if list[0].State != "arriving" || !strings.Contains(list[0].WaitsFor, "waits for 1 of its 1 shards") {
		t.Errorf("%+v", list[0])
	}
}
