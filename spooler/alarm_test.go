package spooler

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/control"
	"slipway/internal/loopdisk"
)

func TestLateAlarms(t *testing.T) {
	st := &control.Status{Pending: control.PendingStatus{OldestSeconds: 90}, Stores: []control.StoreStatus{
		{Name: "cache1", Kind: "cache", LagSeconds: 200}, {Name: "vault1", Kind: "backup", LagSeconds: 1e6},
	}}
	for rpo, want := range map[time.Duration][]string{
		0:               nil,
		5 * time.Minute: nil,
		2 * time.Minute: {"behind rpo 2m: cache1 lacks what was sealed 3m20s ago"},
		time.Minute: {"behind rpo 1m: a change has waited for 1m30s to be sealed; `slipway spool pending` names it",
			"behind rpo 1m: cache1 lacks what was sealed 3m20s ago"},
	} {
		var got []string
		for _, a := range lateAlarms(st, rpo) {
			got = append(got, a.Message)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: %s", rpo, diff)
		}
	}
}

// TestSpaceWarnings: a disk that is nearly full is told, whose it is too; one with room is not.
func TestSpaceWarnings(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	warned := func() string {
		list, err := r.s.Status(context.Background())
		check(t, err)
		return strings.Join(list[0].Warnings, "\n")
	}
	if w := warned(); strings.Contains(w, "make room") {
		t.Errorf("with room: %s", w)
	}
	disk := loopdisk.New(t, "ext4", 16<<20, "")
	f, err := os.Create(filepath.Join(disk, "filler"))
	check(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	check(t, f.Close())
	r.s.vol.ownDir = disk
	if w := warned(); !strings.Contains(w, "the own store's disk has 0 B of") || !strings.Contains(w, "make room") {
		t.Errorf("full: %s", w)
	}
}
