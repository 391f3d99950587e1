package spooler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/control"
)

// TestBackupHostStates: what the acks say of a backup host is what status shows.
func TestBackupHostStates(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.s.stages.Acked([]ack.Acks{
		{Store: "vault1", Kind: "backup"}, {Store: "vault2", Kind: "backup", Error: "another host key", State: ack.Refused},
		{Store: "vault3", Kind: "backup", Error: "no answer"}, {Store: "vault4", Kind: "backup", Error: "no room", Full: true},
		{Store: "vault5", Kind: "backup", Waits: &ack.Wait{From: 1, For: "the window 22:00-06:00"}},
	})
	st, err := r.s.Status(t.Context())
	check(t, err)
	want := map[string]string{"vault1": "ok", "vault2": "refused", "vault3": "down", "vault4": "full", "vault5": "waiting"}
	for _, s := range st[0].Stores {
		if s.Kind == "backup" && s.State != want[s.Name] {
			t.Errorf("%s is %s, want %s", s.Name, s.State, want[s.Name])
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}

// TestBacklog: what a store lacks is counted in files and bytes, for each store from where it is.
func TestBacklog(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	for _, name := range []string{"a", "b", "c"} {
		r.create(name, strings.Repeat(name, 100))
		r.drain()
	}
	v := r.s.vol
	rows, err := r.s.Batches(t.Context(), "", 0, 0)
	check(t, err)
	head := rows[len(rows)-1].Seq
	list := []control.StoreStatus{{Name: "vault2", Batch: 0, LagBatches: countAtMost + 1}}
	for _, b := range rows {
		list = append(list, control.StoreStatus{Batch: b.Seq - 1, LagBatches: int64(head - b.Seq + 1)})
	}
	v.addBacklog(list)
	if list[0].LagFiles != 0 {
		t.Errorf("counted although there are so many: %+v", list[0])
	}
	for _, st := range list[1:] {
		var files, bytes int64
		for _, b := range rows {
			if b.Seq > st.Batch {
				files, bytes = files+b.Files, bytes+b.Bytes
			}
		}
		if st.LagFiles != files || st.LagBytes != bytes {
			t.Errorf("from batch %d on %d files, %d bytes; want %d, %d", st.Batch+1, st.LagFiles, st.LagBytes, files, bytes)
		}
	}
	if all := list[1]; all.LagFiles < 3 || all.LagBytes < 300 {
		t.Errorf("all of it: %+v", all)
	}
}

// TestStatusBesideStep: a step that takes long keeps nobody from an answer, and what was written since is not taken for sealed.
func TestStatusBesideStep(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("a", "a")
	r.drain()
	v := r.s.vol
	check(t, v.sealer.Advance(1))
	ask := func() control.Status {
		t.Helper()
		ctx, done := context.WithTimeout(t.Context(), 30*time.Second)
		defer done()
		list, err := r.s.Status(ctx)
		check(t, err)
		list[0].Warn(control.Alarm{Message: "added by who asked"})
		return list[0]
	}
	before := ask()
	if before.Journal.Head != before.Journal.Sealed || before.HeadBatch == 0 {
		t.Fatalf("not all is sealed: %+v", before)
	}
	v.mu.Lock() // a step
	r.create("b", "b")
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			_, err := r.s.Status(t.Context())
			return err
		})
	}
	beside := ask()
	check(t, g.Wait())
	v.mu.Unlock()
	if beside.HeadBatch != before.HeadBatch || !beside.At.Equal(before.At) || beside.Journal.Sealed != before.Journal.Sealed || beside.Journal.Head <= beside.Journal.Sealed {
		t.Errorf("beside a step: %+v, before it: %+v", beside, before)
	}
	r.drain()
	if after := ask(); after.HeadBatch <= before.HeadBatch || !after.At.After(before.At) || len(after.Alarms) != len(before.Alarms) {
		t.Errorf("after it: %+v", after)
	}
}

// TestFirstStatusWaits: where nothing was ever told, who asks waits for the step.
func TestFirstStatusWaits(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.s.vol.mu.Lock()
	ctx, done := context.WithTimeout(t.Context(), 3*statusWait)
	defer done()
	if list, err := r.s.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", list, err)
	}
	r.s.vol.mu.Unlock()
	if list, err := r.s.Status(t.Context()); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}
