package shipper

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// spoil changes a file of the cache's store behind the shipper's back.
func (c *cacheHost) spoil(name string, change func([]byte) []byte) {
	c.t.Helper()
	path := filepath.Join(c.cfg.Store, "projects", name)
	data, err := os.ReadFile(path)
	must(c.t, err)
	must(c.t, os.Remove(path))
	must(c.t, os.WriteFile(path, change(data), 0o660))
}

func flip(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// wantRefused looks for what was set aside, on disk and in the acks.
func (c *cacheHost) wantRefused(name, reason string) {
	c.t.Helper()
	if _, err := os.Stat(filepath.Join(c.cfg.Store, "projects", "refused", filepath.Base(name)+"."+reason)); err != nil {
		c.t.Errorf("set aside: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(c.cfg.Store, "projects", name)); !errors.Is(err, os.ErrNotExist) {
		c.t.Errorf("%s still lies under its name", name)
	}
	for _, r := range c.acks("projects", "cache1").Refused {
		if r.Name == name && strings.HasPrefix(r.Reason, reason+": ") {
			return
		}
	}
	c.t.Errorf("%s (%s) is not in the acks: %+v", name, reason, c.acks("projects", "cache1").Refused)
}

func TestRefuses(t *testing.T) {
	tests := []struct {
		name   string
		reason string
		bad    func(p *primary, c *cacheHost) *sealedBatch // batch 2, as it lies there
	}{
		{"flipped batch", "format", func(p *primary, _ *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			b.File = flip(b.File)
			return b
		}},
		{"truncated batch", "format", func(p *primary, _ *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			b.File = b.File[:len(b.File)-10]
			return b
		}},
		{"newer format", "format", func(p *primary, _ *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			b.File = bytes.Replace(b.File, []byte("slipway-batch 1\n"), []byte("slipway-batch 9\n"), 1)
			return b
		}},
		{"wrong signature", "signature", func(p *primary, _ *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			b.File = bytes.Replace(b.File, []byte(`"files":1`), []byte(`"files":7`), 1)
			return b
		}},
		{"stranger's key", "owner", func(p *primary, _ *cacheHost) *sealedBatch {
			p.useKey()
			return p.seal([]int{100}, nil)
		}},
		{"foreign volume id", "volume", func(p *primary, _ *cacheHost) *sealedBatch {
			return p.seal([]int{100}, func(e *batch.Envelope) { e.VolumeID = batch.NewVolumeID() })
		}},
		{"wrong chain", "chain", func(p *primary, _ *cacheHost) *sealedBatch {
			return p.seal([]int{100}, func(e *batch.Envelope) { e.Prev = &batch.Digest{1} })
		}},
		{"no file but a directory", "type", func(p *primary, c *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			must(p.t, os.MkdirAll(filepath.Join(c.cfg.Store, "projects", b.path()), 0o770))
			return nil
		}},
		{"symbolic link", "type", func(p *primary, c *cacheHost) *sealedBatch {
			b := p.seal([]int{100}, nil)
			must(p.t, os.Symlink("/etc/passwd", filepath.Join(c.cfg.Store, "projects", b.path())))
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCacheHost(t, "vault1")
			p, other := newPrimary(t, "projects"), newPrimary(t, "papers")
			p.put(c.store, p.seal([]int{50}, nil))
			c.mustOnce()
			if bad := tt.bad(p, c); bad != nil {
				p.put(c.store, bad)
			}
			other.put(c.store, other.seal([]int{70}, nil))
			c.mustOnce()
			c.wantRefused(batch.Path(1, 2, 2), tt.reason)
			c.wantHead("projects", "cache1", 1)
			c.wantHead("projects", "vault1", 1)
			c.wantHead("papers", "vault1", 1)
			if _, err := os.Stat(filepath.Join(c.hosts["vault1"].dir, "projects", batch.Path(1, 2, 2))); err == nil {
				t.Error("the bad batch was shipped")
			}
		})
	}
}

// TestRefusedIsNotInTheWay: the right object may come under the name of one that was set aside, again and again.
func TestRefusedIsNotInTheWay(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{5000}, nil)
	for range 3 {
		bad := *b
		bad.Sealed = &batch.Sealed{Envelope: b.Envelope, File: flip(b.File)}
		bad.File[len(bad.File)-1] ^= byte(c.log.find("refuse")) // another one each time
		p.put(c.store, &bad)
		c.mustOnce()
	}
	if refused, _ := os.ReadDir(filepath.Join(c.cfg.Store, "projects", "refused")); len(refused) != 3 {
		t.Errorf("%d objects were kept, want 3", len(refused))
	}
	p.put(c.store, b)
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	c.wantCopy("vault1", p, b)
}

func TestFlippedShard(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{5000}, nil)
	p.put(c.store, b)
	var name string
	for d := range b.shards {
		name = d.Path()
	}
	c.spoil(name, flip)
	c.mustOnce()
	c.wantRefused(name, "digest")
	c.wantHead("projects", "vault1", 0)
	p.put(c.store, b)
	c.spoil(name, func(data []byte) []byte { return data[1:] })
	c.mustOnce()
	c.wantRefused(name, "size")
	p.put(c.store, b)
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
}

// TestBatchBeforeItsShards: that is no fault, and no loss of time.
func TestBatchBeforeItsShards(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b := p.seal([]int{100, 200, 300}, nil)
	empty := &sealedBatch{Sealed: b.Sealed}
	p.put(c.store, empty)
	c.mustOnce()
	c.wantHead("projects", "cache1", 0)
	if st, err := c.ship.Status(context.Background()); err != nil || !strings.Contains(st[0].Stores[0].Error, "waits for 3 of its 3 shards") {
		t.Errorf("status is %+v, %v", st, err)
	}
	c.clock.pass(time.Minute)
	c.mustOnce()
	if n := c.log.find("waits for shards that do not come"); n != 1 {
		t.Errorf("complained %d times, want once", n)
	}
	p.put(c.store, b)
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	if len(c.acks("projects", "cache1").Refused) != 0 {
		t.Error("something was refused")
	}
}

// TestGap: what lies behind a missing batch waits for it.
func TestGap(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1, b2, b3 := p.seal(nil, nil), p.seal([]int{10}, nil), p.seal(nil, nil)
	p.put(c.store, b1, b3)
	c.mustOnce()
	c.wantHead("projects", "cache1", 1)
	p.put(c.store, b2)
	c.mustOnce()
	c.wantHead("projects", "vault1", 3)
	c.wantCopy("vault1", p, b1, b2, b3)
}

// TestConfiguredOwners: the configuration's word counts, and the store's does not.
func TestConfiguredOwners(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p, thief := newPrimary(t, "projects"), newPrimary(t, "projects")
	c.cfg.Owners = map[string][]string{"projects": {p.key + " alpha"}}
	thief.id = p.id
	thief.put(c.store, thief.seal(nil, nil))
	c.mustOnce()
	c.wantRefused(batch.Path(1, 1, 1), "owner")
	p.put(c.store, p.seal(nil, nil))
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	if _, err := os.Stat(filepath.Join(c.cfg.State, "pins", "projects.json")); err == nil {
		t.Error("a key was pinned although the owners are configured")
	}
}

// TestOtherVolumeOfThatName: volume.json is a fact for people; exchanging it does not exchange the volume.
func TestOtherVolumeOfThatName(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal(nil, nil))
	c.mustOnce()
	other := newPrimary(t, "projects")
	c.spoil(intake.VolumeFile, func([]byte) []byte {
		return []byte(`{"format":1,"volume":"projects","volume_id":"` + other.id.String() + `"}`)
	})
	p.put(c.store, p.seal(nil, nil))
	if err := c.once(); !errors.Is(err, intake.ErrOtherVolume) {
		t.Errorf("got %v", err)
	}
	c.wantHead("projects", "vault1", 1)
	st, err := c.ship.Status(context.Background())
	must(t, err)
	if st[0].Stores[0].State != "refused" || len(st[0].Warnings) == 0 {
		t.Errorf("status is %+v", st[0])
	}
	c.spoil(intake.VolumeFile, func([]byte) []byte {
		return []byte(`{"format":1,"volume":"projects","volume_id":"` + p.id.String() + `"}`)
	})
	c.mustOnce()
	c.wantHead("projects", "vault1", 2)
}

// TestRestartKnows: what was checked is not hashed again, what has gone is noticed.
func TestRestartKnows(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1, b2, b3 := p.seal([]int{100}, nil), p.seal([]int{200}, nil), p.seal([]int{300}, nil)
	c.hosts["vault1"].setFault(store.ErrTemporary)
	p.put(c.store, b1, b2, b3)
	if err := c.once(); !errors.Is(err, store.ErrTemporary) {
		t.Fatalf("got %v", err)
	}
	c.wantHead("projects", "cache1", 3)
	for d := range b2.shards {
		c.spoil(d.Path(), flip) // same size: a restart does not read it
	}
	c.start()
	_ = c.once()
	c.wantHead("projects", "cache1", 3)
	for d := range b2.shards {
		must(t, os.Remove(filepath.Join(c.cfg.Store, "projects", d.Path())))
	}
	c.start()
	_ = c.once()
	c.wantHead("projects", "cache1", 1)
	if c.log.find("the cache has lost something") != 1 {
		t.Error("nobody said so")
	}
	p.put(c.store, b2)
	c.hosts["vault1"].setFault(nil)
	c.mustOnce()
	c.wantHead("projects", "cache1", 3)
	c.wantCopy("vault1", p, b1, b2, b3)
}

// TestRotInTheCache: a shard that has rotted after it was checked is not shipped; the head goes back, and the sender fills the
// cache again.
func TestRotInTheCache(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	b1, b2 := p.seal([]int{100}, nil), p.seal([]int{200}, nil)
	c.hosts["vault1"].setFault(store.ErrTemporary)
	p.put(c.store, b1, b2)
	_ = c.once()
	for d := range b2.shards {
		c.spoil(d.Path(), flip)
	}
	c.hosts["vault1"].setFault(nil)
	if err := c.once(); !errors.Is(err, errCache) {
		t.Errorf("got %v", err)
	}
	c.wantHead("projects", "cache1", 1)
	c.wantHead("projects", "vault1", 1)
	p.put(c.store, b2)
	c.mustOnce()
	c.wantHead("projects", "cache1", 2)
	c.wantCopy("vault1", p, b1, b2)
}

// TestLostState: without its state the shipper finds everything out again, and acks never go back on the way.
func TestLostState(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	b1, b2 := p.seal([]int{100}, nil), p.seal([]int{200}, nil)
	p.put(c.store, b1, b2)
	c.mustOnce()
	must(t, os.RemoveAll(c.cfg.State))
	sent := c.hosts["vault1"].count()
	c.start()
	c.mustOnce()
	c.wantHead("projects", "cache1", 2)
	c.wantHead("projects", "vault1", 2)
	if n := c.hosts["vault1"].count(); n != sent {
		t.Errorf("%d objects were sent again", n-sent)
	}
}

// TestAcksNeverGoBackOnTheWay: a shipper without its state is ended anywhere in its first pass.
func TestAcksNeverGoBackOnTheWay(t *testing.T) {
	c := newCacheHost(t)
	p := newPrimary(t, "projects")
	for range 5 {
		p.put(c.store, p.seal([]int{100}, nil))
	}
	c.mustOnce()
	for n := 1; ; n++ {
		must(t, os.RemoveAll(filepath.Join(c.cfg.State, "volumes")))
		s := c.start()
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		now := time.Now()
		s.now = func() time.Time {
			if calls++; calls == n {
				cancel()
			}
			return now.Add(time.Duration(calls) * time.Minute) // so that the acks are due all the time
		}
		s.discover(ctx)
		_, err := s.arrive(ctx, s.volumes["projects"])
		cancel()
		c.wantHead("projects", "cache1", 5)
		if err == nil {
			return
		}
	}
}

func TestDamagedState(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{100}, nil))
	c.mustOnce()
	file := filepath.Join(c.cfg.State, "volumes", "projects.json")
	must(t, durable.Overwrite(file, []byte("{half"), 0o600))
	c.start()
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	must(t, durable.Overwrite(file, []byte(`{"format":2}`), 0o600))
	c.start()
	if err := c.once(); !errors.Is(err, errNewerState) {
		t.Errorf("newer state: %v", err)
	}
}

// TestFilledFromTheMiddle: an emptied cache is filled from the sender's base on, and counts only what it holds in whole.
func TestFilledFromTheMiddle(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.seal(nil, nil)
	p.seal(nil, nil)
	b3, b4 := p.seal([]int{10}, nil), p.seal(nil, nil)
	p.base = 3
	b5 := p.seal([]int{20}, nil)
	p.put(c.store, b4)
	c.mustOnce()
	c.wantHead("projects", "cache1", 0)
	p.put(c.store, b3)
	c.mustOnce()
	c.wantHead("projects", "cache1", 0)
	c.wantHead("projects", "vault1", 0)
	p.put(c.store, b5)
	c.mustOnce()
	c.wantHead("projects", "cache1", 5)
	c.wantHead("projects", "vault1", 5)
	c.wantCopy("vault1", p, b3, b4, b5)
}

// TestRemovedHost: nobody counts the copy of a host that the operator took out.
func TestRemovedHost(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal(nil, nil))
	c.mustOnce()
	c.cfg.Ship.To = c.cfg.Ship.To[:1]
	c.start()
	c.mustOnce()
	all, err := ack.ReadAll(context.Background(), store.Sub(c.store, "projects"))
	must(t, err)
	if len(all) != 2 || all[0].Store != "cache1" || all[1].Store != "vault1" {
		t.Errorf("acks are %+v", all)
	}
}
