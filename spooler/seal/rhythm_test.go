package seal

import (
	"testing"
	"time"

	"slipway/spooler/pending"
)

// The last files of many are sealed when they are read, not an interval after the batch of the others; single changes stay an
// interval apart.
func TestBatchInterval(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	timing := &pending.Timing{Settle: 200 * time.Millisecond, Batch: time.Second}
	s := pending.NewSet(timing, func() time.Time { return now })
	r := rhythm{timing: timing}
	var since time.Time
	busy := 0
	due := func(want bool, what string) {
		t.Helper()
		soon := s.Imminent(busy)
		if got, _ := r.due(now, since, soon, soon.IsZero()); got != want {
			t.Errorf("%s: due is %v", what, got)
		}
	}
	seal := func() {
		r.sealed(now, s.Imminent(busy).IsZero())
		since = time.Time{}
	}
	capture := func(still int) {
		busy, since = still, earliest(since, now)
	}
	now = now.Add(time.Hour)
	capture(1)
	due(false, "one of two files is read, the other about to be")
	now = now.Add(time.Second)
	due(true, "the other takes long")
	seal()
	now = now.Add(100 * time.Millisecond)
	capture(1)
	since = now.Add(-time.Minute)
	due(false, "one that took long has come, the other is being read still")
	capture(0)
	due(true, "the other has come, and nothing else will")
	seal()
	now = now.Add(100 * time.Millisecond)
	capture(0)
	due(false, "a single change soon after a batch that left nothing behind")
	now = now.Add(time.Second)
	due(true, "an interval later")
}
