package shipper

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/store"
)

func testCondition(age *time.Duration) config.Condition { return config.Condition{Age: age} }

func TestStatus(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil), p.seal(nil, func(e *batch.Envelope) { e.SealedAt = time.Now().Add(time.Hour) }))
	c.mustOnce()
	st, err := c.ship.Status(t.Context())
	must(t, err)
	if len(st) != 1 || st[0].Volume != "projects" || st[0].Node != "cache1" || st[0].Role != "cache" || st[0].Epoch != 1 ||
		st[0].HeadBatch != 2 || !st[0].Complete || st[0].Daemon != control.Running || len(st[0].Stores) != 2 {
		t.Fatalf("status is %+v", st)
	}
	if s := st[0].Stores[1]; s.Name != "vault1" || s.Kind != "backup" || s.Batch != 2 || s.State != "ok" || s.LagBatches != 0 {
		t.Errorf("status of vault1 is %+v", s)
	}
	if len(st[0].Warnings) != 1 || !strings.Contains(st[0].Warnings[0], "the clock of alpha is") {
		t.Errorf("warnings: %q", st[0].Warnings)
	}
	rows, err := c.ship.Batches(t.Context(), "projects", 2, 5)
	must(t, err)
	if len(rows) != 1 || rows[0].Seq != 2 || rows[0].Copies != 1 || rows[0].Stage != "stored" || rows[0].Files != 1 {
		t.Errorf("rows are %+v", rows)
	}
	if rows, err := c.ship.Batches(t.Context(), "projects", 1, 1); err != nil || len(rows) != 1 || rows[0].Shards != 1 {
		t.Errorf("one row: %+v, %v", rows, err)
	}
}

// TestStatusWithoutDaemon: another process tells from what is noted, without a lock and without asking anybody.
func TestStatusWithoutDaemon(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	unlock, err := c.ship.begin()
	must(t, err)
	defer unlock()
	st, err := c.start().Status(t.Context())
	must(t, err)
	if len(st) != 1 || st[0].HeadBatch != 1 || st[0].Stores[1].Batch != 1 {
		t.Errorf("status is %+v", st)
	}
	rows, err := c.ship.Batches(t.Context(), "", 0, 0)
	must(t, err)
	if len(rows) != 1 || rows[0].Stage != "stored" {
		t.Errorf("rows are %+v", rows)
	}
}

// TestHostIsAFile: a backup host whose directory is a file is refused, alone; it is served once it is a directory.
func TestHostIsAFile(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	dir := c.hosts["vault2"].dir
	must(t, errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)))
	ship, err := New(Options{Config: c.cfg, Now: c.clock.now, Log: slog.New(c.log)})
	must(t, err)
	defer func() { must(t, ship.Close()) }()
	p := newPrimary(t, "projects")
	b := p.seal([]int{10}, nil)
	p.put(c.store, b)
	if err := ship.ShipOnce(t.Context(), false); !errors.Is(err, store.ErrNotDir) {
		t.Errorf("shipped into a file: %v", err)
	}
	c.wantCopy("vault1", p, b)
	st, err := ship.Status(t.Context())
	must(t, err)
	if s := st[0].Stores; s[1].State != "ok" || s[1].Batch != 1 || s[2].State != "refused" || !strings.Contains(s[2].Error, "is not a directory") {
		t.Errorf("stores are %+v", s)
	}
	if a := c.acks("projects", "vault2"); a.Word() != "refused" || a.Error == "" || a.Head != 0 {
		t.Errorf("acks are %+v", a)
	}
	must(t, errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)))
	must(t, ship.ShipOnce(t.Context(), false))
	c.wantCopy("vault2", p, b)
	if a := c.acks("projects", "vault2"); a.Word() != "ok" || a.State != "" || a.Head != 1 {
		t.Errorf("acks are %+v", a)
	}
	c.noneIllegal()
}

// TestOperatorsWord is what the control socket hands on.
func TestOperatorsWord(t *testing.T) {
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = []config.Condition{{Manual: true}}
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{10}, nil))
	c.mustOnce()
	must(t, c.ship.Do(t.Context(), "ship", "projects"))
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	if err := c.ship.Do(t.Context(), "ship", "papers"); err == nil {
		t.Error("a volume that is not there was shipped")
	}
	if err := c.ship.Do(t.Context(), "sink", ""); err == nil {
		t.Error("any word is taken")
	}
	if _, err := c.ship.Explain(t.Context(), "a/file"); err == nil {
		t.Error("a cache host explains a path")
	}
	if _, err := c.ship.Barrier(t.Context(), control.Barrier{}); err == nil {
		t.Error("a cache host answers a barrier")
	}
	if rows, err := c.ship.Pending(t.Context(), 10); err != nil || len(rows) != 0 {
		t.Error("a cache host has something pending")
	}
}

// TestAskedWhileStarting: what `ship --once` shows on a terminal is asked for from the first moment on.
func TestAskedWhileStarting(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	for range 10 {
		p.put(c.store, p.seal([]int{1000}, nil))
	}
	c.mustOnce()
	p.put(c.store, p.seal([]int{1000}, nil))
	c.start()
	done := make(chan error)
	go func() { done <- c.ship.ShipOnce(context.Background(), false) }()
	for running := true; running; {
		_, err := c.ship.Explanations(t.Context())
		must(t, err)
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
		}
	}
	c.wantHead("projects", "vault1", 11)
}
