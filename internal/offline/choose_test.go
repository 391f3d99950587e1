package offline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/internal/control"
)

func TestBatchChoice(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	rows := []control.BatchRow{
		{Volume: "projects", Seq: 1, SealedAt: at, Bytes: 10, Files: 3, Copies: 2, Stage: "stored"},
		{Volume: "projects", Seq: 2, SealedAt: at.Add(time.Minute), Bytes: 30, Files: 1, Copies: 1, Stage: "cached", Held: true},
		{Volume: "papers", Seq: 1, SealedAt: at.Add(-time.Minute), Bytes: 20, Files: 2, Copies: 0, Stage: "cached"},
	}
	for _, tt := range []struct {
		choice BatchChoice
		want   string
	}{
		{BatchChoice{}, "projects/1 projects/2 papers/1"},
		{BatchChoice{Volume: "papers"}, "papers/1"},
		{BatchChoice{Stage: "cached"}, "projects/2 papers/1"},
		{BatchChoice{Held: true}, "projects/2"},
		{BatchChoice{Sort: "age"}, "papers/1 projects/1 projects/2"},
		{BatchChoice{Sort: "size"}, "projects/2 papers/1 projects/1"},
		{BatchChoice{Sort: "files", Limit: 2}, "projects/1 papers/1"},
		{BatchChoice{Sort: "stage"}, "projects/2 papers/1 projects/1"},
		{BatchChoice{Sort: "copies", Reverse: true}, "projects/1 projects/2 papers/1"},
	} {
		var got []string
		for _, r := range tt.choice.Of(rows) {
			got = append(got, fmt.Sprintf("%s/%d", r.Volume, r.Seq))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%+v: %s, want %s", tt.choice, s, tt.want)
		}
	}
	if err := (BatchChoice{Sort: "colour"}).Check(); err == nil || !strings.Contains(err.Error(), "age, copies, files, size, stage") {
		t.Errorf("an unknown order: %v", err)
	}
	if err := (BatchChoice{Stage: "shipped"}).Check(); err == nil {
		t.Error("an unknown stage is taken")
	}
}

func TestPendingChoice(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	rows := []control.PendingRow{
		{Path: "a/b", State: "open", Since: at, Bytes: 1},
		{Path: "a/c", State: "changed", Since: at.Add(-time.Hour), Bytes: 3},
		{Path: "ab", State: "open", Since: at.Add(time.Hour), Bytes: 2},
	}
	for _, tt := range []struct {
		choice PendingChoice
		want   string
	}{
		{PendingChoice{}, "a/b a/c ab"},
		{PendingChoice{Under: "a"}, "a/b a/c"},
		{PendingChoice{Under: "ab"}, "ab"},
		{PendingChoice{State: "open"}, "a/b ab"},
		{PendingChoice{Sort: "age"}, "a/c a/b ab"},
		{PendingChoice{Sort: "size", Limit: 1}, "a/c"},
		{PendingChoice{Reverse: true}, "ab a/c a/b"},
	} {
		var got []string
		for _, r := range tt.choice.Of(rows) {
			got = append(got, r.Path)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%+v: %s, want %s", tt.choice, s, tt.want)
		}
	}
	if err := (PendingChoice{Sort: "files"}).Check(); err == nil {
		t.Error("an unknown order is taken")
	}
}
