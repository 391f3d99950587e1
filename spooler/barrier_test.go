package spooler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	if !b.Sealed || b.Seq != uint64(r.s.vol.history.Meta().Head) || b.Stage != "replicated" {
		t.Fatalf("after draining: %+v, head %d", b, r.s.vol.history.Meta().Head)
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
	late := r.s.vol.pending.Get(r.fileID("late"))
	if late == nil || late.CoveredSince(time.Unix(0, 0)) {
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

// refusedFor asks about a path that no barrier can be about, and returns the words.
func (r *rig) refusedFor(paths ...string) (string, error) {
	r.t.Helper()
	_, err := r.s.Barrier(r.t.Context(), control.Barrier{Paths: paths})
	if err == nil {
		r.t.Fatalf("a barrier for %q is answered", paths)
	}
	return err.Error(), err
}

// TestBarrierExcluded: what is left out is never sealed, and whoever waits for it is told so. What only contains it is waited for.
func TestBarrierExcluded(t *testing.T) {
	r := newRig(t)
	r.cfg.Exclude, r.cfg.ExcludeLines = []string{"*.tmp", "cache/"}, []int{7, 9}
	r.mount()
	r.open()
	r.mkdir("d")
	r.mkdir("d/cache")
	r.create("d/cache/x", "left out")
	r.create("d/a.tmp", "left out")
	r.create("d/kept", "kept")
	for path, line := range map[string]int{"d/a.tmp": 7, "d/cache": 9, "d/cache/x": 9} {
		want := fmt.Sprintf("%q is excluded by line %d of the configuration: it is never sealed", path, line)
		if got, _ := r.refusedFor("d", path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	b := r.barrier(control.Barrier{Paths: []string{"d"}})
	r.drain()
	if b = r.barrier(b); !b.Sealed {
		t.Errorf("a directory with something left out in it: %+v", b)
	}
}

// TestBarrierNothingThere: a path that never was is refused by its name.
func TestBarrierNothingThere(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.mkdir("d")
	r.create("d/a", "1")
	r.drain()
	for _, path := range []string{"none", "d/none", "none/d/a", "d/a/none"} {
		words, err := r.refusedFor("d", path)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(words, fmt.Sprintf("%q is not in the volume", path)) {
			t.Errorf("%s: %s", path, words)
		}
	}
}

// TestBarrierRemoved: a removal is a change, waited for before and after it is sealed. So is a rename, for the name that is gone.
func TestBarrierRemoved(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	for _, d := range []string{"d", "d/sub", "from"} {
		r.mkdir(d)
	}
	r.create("d/sub/a", "1")
	r.create("from/x", "1")
	r.create("f", "1")
	r.drain()
	for _, path := range []string{"f", "d/sub/a", "d/sub", "d"} {
		r.remove(path)
	}
	r.rename("from", "to", 0)
	r.create("brief", "1")
	r.remove("brief")
	r.mkdir("from") // another one
	gone := []string{"f", "d/sub/a", "d", "from/x", "brief"}
	b := r.barrier(control.Barrier{Paths: gone})
	if b.Sealed {
		t.Errorf("removals are taken for sealed: %+v", b)
	}
	r.drain()
	if b = r.barrier(b); !b.Sealed {
		t.Errorf("after draining: %+v", b)
	}
	for _, path := range gone {
		if b := r.barrier(control.Barrier{Paths: []string{path}}); !b.Sealed {
			t.Errorf("%s, removed and sealed: %+v", path, b)
		}
	}
}

// TestBarrierRemovedOverRestart: a removal that was not sealed when the daemon ended is known by the next one.
func TestBarrierRemovedOverRestart(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.create("f", "1")
	r.drain()
	r.remove("f")
	r.close()
	r.open()
	b := r.barrier(control.Barrier{Paths: []string{"f"}})
	if b.Sealed {
		t.Errorf("the removal is taken for sealed: %+v", b)
	}
	r.drain()
	if b = r.barrier(b); !b.Sealed {
		t.Errorf("after draining: %+v", b)
	}
}

// TestBarrierWhileAdopting: what is missing from a directory that nobody has compared yet may have been there.
func TestBarrierWhileAdopting(t *testing.T) {
	r := newRig(t)
	r.create2("old", "1")
	r.mount()
	r.open()
	check(t, os.Remove(filepath.Join(r.src, "old")))
	b := r.barrier(control.Barrier{Paths: []string{"old"}})
	if b.Sealed {
		t.Errorf("taken for sealed: %+v", b)
	}
	r.drain()
	if b = r.barrier(b); !b.Sealed {
		t.Errorf("after draining: %+v", b)
	}
}
