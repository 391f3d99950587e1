package rpo

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// TestDeadlines: what is late by a deadline is said, as a warning or as an error.
func TestDeadlines(t *testing.T) {
	st := &control.Status{Pending: control.PendingStatus{OldestSeconds: 90}, Stores: []control.StoreStatus{
		{Name: "cache1", Kind: "cache", LagSeconds: 200}, {Name: "vault1", Kind: "backup", LagSeconds: 1e6},
	}}
	for name, c := range map[string]struct {
		deadline config.Deadline
		path     string
		want     []string
	}{
		"none":       {config.Deadline{}, "", nil},
		"none is":    {config.Deadline{Warn: 5 * time.Minute, Error: 5 * time.Minute}, "", nil},
		"one is":     {config.Deadline{Warn: 2 * time.Minute, Error: 2 * time.Minute}, "", []string{"error cache1: behind rpo 2m: cache1 lacks what was sealed 3m20s ago"}},
		"both are":   {config.Deadline{Warn: time.Minute, Error: time.Minute}, "", []string{"error : behind rpo 1m: a change has waited for 1m30s to be sealed; `slipway spool pending` names it", "error cache1: behind rpo 1m: cache1 lacks what was sealed 3m20s ago"}},
		"one of two": {config.Deadline{Warn: time.Minute, Error: 2 * time.Minute}, "db/", []string{"warning : behind rpo 1m of db/: a change has waited for 1m30s to be sealed; `slipway spool pending` names it", "error cache1: behind rpo 2m of db/: cache1 lacks what was sealed 3m20s ago"}},
		"only warn":  {config.Deadline{Warn: 3 * time.Minute}, "", []string{"warning cache1: behind rpo 3m: cache1 lacks what was sealed 3m20s ago"}},
		"only error": {config.Deadline{Error: 3 * time.Minute}, "", []string{"error cache1: behind rpo 3m: cache1 lacks what was sealed 3m20s ago"}},
	} {
		var got []string
		for _, a := range alarmsBy(c.deadline, st, c.path) {
			if a.Event != control.BehindRPO || a.Path != c.path {
				t.Errorf("%s: %+v", name, a)
			}
			got = append(got, a.Level+" "+a.Store+": "+a.Message)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestManyPending: a look finds out some names, the next ones more, and all in the end.
func TestManyPending(t *testing.T) {
	cat, err := catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cat.Close() }()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	v := Volume{Tree: tree.New(cat, 0), Pending: pending.NewSet(&pending.Timing{}, func() time.Time { return now }), Renames: 7}
	names := []string{"last"}
	for i := range 2 * namesALook {
		names = append(names, fmt.Sprintf("file %d", i))
	}
	if err := v.Tree.Within(func() error {
		for _, name := range names {
			n := v.Tree.Add(journal.Ident{Ino: uint64(v.Tree.Next())}, journal.Attr{}, "")
			v.Pending.Mark(n.ID, pending.New, 0, journal.Position{})
			if err := v.Tree.Link(batch.Root, name, n.ID); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	d, err := New(config.RPO{Paths: []config.PathDeadline{{Path: "last", Deadline: config.Deadline{Error: time.Second}}}})
	if err != nil {
		t.Fatal(err)
	}
	look := func() (known int, late []control.Alarm) {
		t.Helper()
		late, err := d.Alarms(&control.Status{}, v, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for p := range v.Pending.All() {
			if _, is := p.Below(v.Renames); is {
				known++
			}
		}
		return known, late
	}
	for want := namesALook; want <= 2*namesALook; want += namesALook {
		if known, _ := look(); known != want {
			t.Errorf("%d names are known, want %d", known, want)
		}
	}
	if known, late := look(); known != len(names) || len(late) != 1 || late[0].Path != "last" {
		t.Errorf("%d names are known, late: %+v", known, late)
	}
	v.Renames++
	if known, _ := look(); known != namesALook {
		t.Errorf("%d names are known at the first look behind a rename", known)
	}
}
