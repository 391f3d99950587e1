package spooler

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/control"
	"slipway/internal/journal"
)

// barrier asks once more about what a former answer is about.
func (r *rig) barrier(b control.Barrier) control.Barrier {
	r.t.Helper()
	b, err := r.s.Barrier(r.t.Context(), b)
	check(r.t, err)
	return b
}

// TestBarrier: what was changed before the call is waited for, what is changed later is not.
func TestBarrier(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.mkdir("d")
	r.create("d/a", "1")
	b := r.barrier(control.Barrier{Paths: []string{"d"}})
	if b.Sealed || b.Why == "" {
		t.Fatalf("sealed before anything was: %+v", b)
	}
	r.drain()
	b = r.barrier(b)
	if !b.Sealed || b.Seq != uint64(r.s.vol.meta.Head) || b.Stage != "replicated" {
		t.Fatalf("after draining: %+v, head %d", b, r.s.vol.meta.Head)
	}
	r.write("d/a", "2")
	if b = r.barrier(control.Barrier{}); b.Sealed {
		t.Errorf("a write before the call is not waited for: %+v", b)
	}
}

// TestBarrierLaterWrites: a file that is opened after the call is neither waited for nor read because of it.
func TestBarrierLaterWrites(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("early", "1")
	r.create("late", "1")
	r.drain()
	r.write("early", "2")
	b := r.barrier(control.Barrier{})
	if b.Sealed {
		t.Fatalf("sealed before anything was: %+v", b)
	}
	f, err := os.OpenFile(filepath.Join(r.src, "late"), os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	defer func() { check(t, f.Close()) }()
	ident, attr := r.stat("late")
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: ident, Attr: attr})
	r.steps(func() bool {
		b = r.barrier(b)
		return b.Sealed
	})
	late := r.s.vol.pending.files[r.fileID("late")]
	if late == nil || !late.covered.IsZero() {
		t.Errorf("the file opened after the call was read for it: %+v", late)
	}
}

// TestBarrierHeldOpen: a file that stays open is covered by a capture that began after the call, whether it changed or not.
func TestBarrierHeldOpen(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("held", "first")
	r.drain()
	f, err := os.OpenFile(filepath.Join(r.src, "held"), os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	defer func() { check(t, f.Close()) }()
	id, attr := r.stat("held")
	r.w.Append(&journal.Record{Op: journal.OpOpen, Node: id, Attr: attr})
	_, err = f.WriteString(", and more")
	check(t, err)
	for range 2 {
		b := r.barrier(control.Barrier{})
		if b.Sealed {
			t.Fatalf("an open file that nobody has read is taken for sealed: %+v", b)
		}
		r.steps(func() bool {
			b = r.barrier(b)
			return b.Sealed
		})
	}
}
