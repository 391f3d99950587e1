package rpo

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/config"
	"slipway/internal/control"
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
