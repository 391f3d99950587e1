package spooler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/ack"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/spooler/capture"
	"slipway/spooler/workers"
)

// TestStatesOfFile reaches every state that a pending file can have, and reads what `spool pending` and `explain` say of it. docs/states.md
// has them all.
func TestStatesOfFile(t *testing.T) {
	long := func(r *rig) { r.cfg.Settle, r.cfg.MaxAge = time.Hour, time.Hour }
	for _, tc := range []struct {
		name       string
		reach      func(r *rig)
		state, why string
	}{
		{"just made", func(r *rig) { long(r); r.open(); r.create("f", "1") }, "new", "waits until it is quiet"},
		{"changed", func(r *rig) { r.open(); r.create("f", "1"); r.drain(); r.settleLate(); r.data("f") }, "written", "waits until it is quiet"},
		{"held open", func(r *rig) { r.open(); r.create("f", "1"); r.drain(); r.openFor("f") }, "open", "open for writing; read every 30s while it changes"},
		{"a hidden writer", hiddenWriter, "open", "a mapping or a process of before the last mount still has it open"},
		{"a worker has it", func(r *rig) { r.open(); r.create("f", "1"); r.handOut() }, "new", "is being read"},
		{"read", func(r *rig) {
			r.open()
			r.drain()
			r.create("f", "1")
			r.handOut()
			r.read(nil)
			r.neverSeal()
			r.step()
		}, "new", "read; waits for the next batch"},
		{"cannot be read", func(r *rig) {
			r.open()
			r.create("f", "1")
			r.drain()
			r.data("f")
			r.handOut()
			r.settleLate()
			r.read(func(c *capture.Captured) { c.Err = unix.EIO })
			r.step()
		}, "unread", "tried again: input/output error"},
		{"moved while it was read", func(r *rig) {
			r.open()
			r.create("f", "1")
			r.handOut()
			r.settleLate()
			r.read(func(c *capture.Captured) { c.Clean = false })
			r.step()
		}, "unclean", "waits until it is quiet"},
		{"no room", func(r *rig) {
			r.open()
			r.create("f", "1")
			r.drain()
			r.settleLate()
			r.s.vol.capBytes = 1
			r.data("f")
		}, "written", "waits for room in the local store"},
		{"an fsync waits", func(r *rig) {
			r.cfg.Durability = []config.Durability{{Path: "f", Stage: "replicated"}}
			r.open()
			r.create("f", "1")
			r.drain()
			r.fsync("f")
			for !r.s.vol.pending.NextHasty() {
				check(r.t, r.s.vol.tree.Within(func() error { return errors.Join(r.s.vol.catchUp(), r.s.fsyncs.Hasten()) }))
			}
		}, "written", "an fsync waits for it: it is read next"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.mount()
			tc.reach(r)
			var rows []control.PendingRow
			for deadline := time.Now().Add(10 * time.Second); len(rows) == 0 && time.Now().Before(deadline); { // the journal's writer is on its way
				var err error
				rows, err = r.s.Pending(t.Context(), 0)
				check(t, err)
			}
			if len(rows) != 1 || rows[0].State != tc.state || rows[0].Why != tc.why {
				t.Errorf("spool pending says %+v", rows)
			}
			e, err := r.s.Explain(t.Context(), "f")
			if err != nil || e.Stage != "pending" || e.WaitingFor != tc.why || e.Since == nil || e.Batch != 0 {
				t.Errorf("explain says %+v, %v", e, err)
			}
		})
	}
}

// step is one step of the loop.
func (r *rig) step() {
	r.t.Helper()
	_, err := r.s.Step(r.t.Context())
	check(r.t, err)
}

// settleLate has nothing become quiet any more.
func (r *rig) settleLate() {
	r.s.vol.timing.Settle, r.s.vol.timing.MaxAge = time.Hour, time.Hour
}

// neverSeal keeps what was read from being sealed, behind a batch that left nothing behind.
func (r *rig) neverSeal() {
	r.s.vol.timing.Batch = time.Hour
}

// data changes a file as the mount process does when it serves a write.
func (r *rig) data(path string) {
	r.t.Helper()
	check(r.t, os.WriteFile(filepath.Join(r.src, path), []byte("changed"), 0o644))
	id, attr := r.stat(path)
	r.w.Append(&journal.Record{Op: journal.OpData, Node: id, Attr: attr})
}

// handOut makes steps until a file is a worker's.
func (r *rig) handOut() {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); r.s.vol.pool.Busy() == 0 && time.Now().Before(deadline); {
		r.step()
	}
}

// read is the worker that reads it; change is what it meets.
func (r *rig) read(change func(*capture.Captured)) {
	r.t.Helper()
	if !r.s.vol.pool.Once(r.t.Context(), meeting{r.s.vol.pool.Reader(), change}, false) {
		r.t.Fatal("no worker has a file")
	}
}

// meeting is a reader that meets something.
type meeting struct {
	workers.Reader
	change func(*capture.Captured)
}

func (m meeting) Read(ctx context.Context, j capture.Job) capture.Captured {
	got := m.Reader.Read(ctx, j)
	if m.change != nil {
		m.change(&got)
	}
	return got
}

// hiddenWriter has a file open for writing that the journal knows nothing of, as a process of before the last mount has.
func hiddenWriter(r *rig) {
	r.t.Helper()
	r.open()
	r.create("f", "1")
	r.drain()
	f, err := os.OpenFile(filepath.Join(r.src, "f"), os.O_RDWR, 0)
	check(r.t, err)
	r.t.Cleanup(func() { check(r.t, f.Close()) })
	r.data("f")
	r.handOut()
	r.settleLate() // the next try is far away
	r.read(nil)
	r.step()
}

// TestStatesOfPath: what `explain` says of what is no pending file.
func TestStatesOfPath(t *testing.T) {
	r := newRig(t)
	r.create2("f", "there before")
	r.mount()
	r.open()
	says := func(path, stage, why string) {
		t.Helper()
		if e, err := r.s.Explain(t.Context(), path); err != nil || e.Stage != stage || e.WaitingFor != why {
			t.Errorf("%s: %+v, %v; want %s, %q", path, e, err, stage, why)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); !r.s.vol.mirror.Walking() && time.Now().Before(deadline); { // the journal's writer is on its way
		_, _ = r.s.Explain(t.Context(), "f")
	}
	says("f", "pending", "its directory has not been compared with the source yet")
	r.drain()
	if _, err := r.s.Explain(t.Context(), "never"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what never was: %v", err)
	}
	r.neverSeal()
	r.mkdir("d")
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err := r.s.Explain(t.Context(), "d"); err == nil {
			break
		}
	}
	says("d", "pending", "the next batch")
}

// TestStatesOfBatch: every stage of a sealed file and of its batch, and what it waits for.
func TestStatesOfBatch(t *testing.T) {
	r := newRig(t)
	r.cfg.MinReplicas, r.cfg.Copies = 1, 0
	r.mount()
	r.open()
	r.create("f", "1")
	r.drain()
	head := r.s.vol.history.Meta().Head
	acks := func(a ack.Acks) func() { return func() { r.s.stages.Acked([]ack.Acks{a}) } }
	for _, step := range []struct {
		reach      func()
		stage, why string
		copies     int
	}{
		{func() {}, "sealed", "waits for the replica peers", 0},
		{func() { r.s.stages.Delivered("replica", "bravo", head) }, "replicated", "waits for the cache", 0},
		{func() { r.s.stages.Delivered("cache", "cache1", head) }, "cached", "waits for the cache's shipper, which has not said anything yet", 0},
		{acks(ack.Acks{Kind: "cache", Store: "cache1", Copies: 2}), "cached", "waits for 2 backup hosts to acknowledge it", 0},
		{acks(ack.Acks{Kind: "backup", Store: "vault1", Head: head}), "cached", "waits for 1 more backup hosts to acknowledge it", 1},
		{acks(ack.Acks{Kind: "backup", Store: "vault2", Head: head}), "stored", "waits to be read back and compared", 2},
		{acks(ack.Acks{Kind: "backup", Store: "vault1", Head: head, Verified: head}), "stored", "waits to be read back and compared", 2},
		{acks(ack.Acks{Kind: "backup", Store: "vault2", Head: head, Verified: head}), "verified", "", 2},
	} {
		step.reach()
		e, err := r.s.Explain(t.Context(), "f")
		if err != nil || e.Stage != step.stage || e.WaitingFor != step.why || e.Copies != step.copies || e.Batch == 0 || e.Since == nil {
			t.Errorf("explain says %+v, %v; want %s, %q, %d copies", e, err, step.stage, step.why, step.copies)
		}
		rows, err := r.s.Batches(t.Context(), "projects", uint64(head), 0)
		if err != nil || len(rows) != 1 || rows[0].Stage != step.stage || rows[0].Copies != step.copies {
			t.Errorf("spool ls says %+v, %v; want %s, %d copies", rows, err, step.stage, step.copies)
		}
	}
}

// TestStatesOfBarrier: what `wait` says while it waits for a batch.
func TestStatesOfBarrier(t *testing.T) {
	r := newRig(t)
	r.create2("f", "there before")
	r.mount()
	r.open()
	why := func(want string) {
		t.Helper()
		if b := r.barrier(control.Barrier{}); b.Sealed || !strings.Contains(b.Why, want) {
			t.Errorf("wait says %+v, want %q", b, want)
		}
	}
	why("the spooler reads the journal")
	r.drain()
	v := r.s.vol
	v.mirror.Compare()
	why("1 directories are still to be compared with the source")
	r.drain()
	r.settleLate()
	r.data("f")
	for v.pending.Len() == 0 {
		check(t, v.tree.Within(v.catchUp))
	}
	why(fmt.Sprintf("1 files are still to be read, %q among them", "f"))
	r.neverSeal()
	r.mkdir("d")
	for v.sealer.Idle() {
		check(t, v.tree.Within(v.catchUp))
	}
	why("the next batch")
}
