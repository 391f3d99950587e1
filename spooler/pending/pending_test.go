package pending

import (
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/spooler/capture"
)

// clock is a hand-moved clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newPendingRig() (*Set, *clock) {
	c := &clock{time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	return NewSet(&Timing{Settle: 200 * time.Millisecond, MaxAge: 5 * time.Second, OpenInterval: 30 * time.Second, Batch: time.Second}, c.now), c
}

// dueIn returns after what time a file is handed out, in steps of 10 ms; it must be handed out within a minute.
func dueIn(t *testing.T, s *Set, c *clock) (time.Duration, *File) {
	t.Helper()
	for d := time.Duration(0); d < time.Minute; d += 10 * time.Millisecond {
		if p := s.TakeDue(journal.Position{}); p != nil {
			return d, p
		}
		c.advance(10 * time.Millisecond)
	}
	t.Fatal("nothing became due within a minute")
	return 0, nil
}

func TestSettle(t *testing.T) {
	s, c := newPendingRig()
	s.Mark(7, Written, 1, journal.Position{})
	if d, _ := dueIn(t, s, c); d != 200*time.Millisecond {
		t.Errorf("due after %v, want settle", d)
	}
}

// A file that changes all the time is captured at max_age at the latest: no timer may be pushed back for ever.
func TestMaxAgeBoundsSettle(t *testing.T) {
	s, c := newPendingRig()
	began := c.now()
	for i := 0; ; i++ {
		s.Mark(7, Written, 1, journal.Position{})
		if s.TakeDue(journal.Position{}) != nil {
			break
		}
		if i > 1000 {
			t.Fatal("never due")
		}
		c.advance(100 * time.Millisecond)
	}
	if d := c.now().Sub(began); d != 5*time.Second {
		t.Errorf("due after %v of changes, want max_age", d)
	}
}

func TestOpenFile(t *testing.T) {
	for _, tc := range []struct {
		name string
		sync bool
		took time.Duration
		want time.Duration
	}{
		{"open_interval after the last capture", false, 0, 30 * time.Second},
		{"sooner after fsync", true, 0, 5 * time.Second},
		{"ten times as long as the last read took", true, 2 * time.Second, 20 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, c := newPendingRig()
			s.Opened(7)
			p := s.Mark(7, Open, 1, journal.Position{})
			p.captured, p.took, p.sync = c.now(), tc.took, tc.sync
			s.reschedule(p)
			if d, _ := dueIn(t, s, c); d != tc.want {
				t.Errorf("due after %v, want %v", d, tc.want)
			}
		})
	}
}

// A change during the capture leaves the file pending, from the moment the capture began.
func TestChangedWhileCaptured(t *testing.T) {
	s, c := newPendingRig()
	s.Mark(7, New, 1, journal.Position{Serial: 1, Offset: 10})
	_, p := dueIn(t, s, c)
	p.startPos = journal.Position{Serial: 1, Offset: 20}
	s.Mark(7, Written, 2, journal.Position{Serial: 1, Offset: 30})
	s.Brought(p, &capture.Captured{Clean: true})
	s.Sealed(p)
	if s.files[7] == nil {
		t.Fatal("the file is settled although it changed while it was read")
	}
	if p.pos.Offset != 20 {
		t.Errorf("pending since offset %d, want that of the capture's begin", p.pos.Offset)
	}
	_, p = dueIn(t, s, c)
	s.Brought(p, &capture.Captured{Clean: true})
	s.Sealed(p)
	if s.files[7] != nil {
		t.Error("the file is still pending after a capture without a change")
	}
}

func TestUncleanStaysPending(t *testing.T) {
	s, c := newPendingRig()
	s.Mark(7, New, 1, journal.Position{})
	_, p := dueIn(t, s, c)
	s.Brought(p, &capture.Captured{Clean: false})
	s.Sealed(p)
	if s.files[7] == nil || p.reason != Unclean {
		t.Errorf("after an unclean capture: %+v", p)
	}
}

func TestRetryBacksOff(t *testing.T) {
	s, c := newPendingRig()
	s.Mark(7, New, 1, journal.Position{})
	var last time.Duration
	for range 8 {
		d, p := dueIn(t, s, c)
		if d < last {
			t.Errorf("retried after %v, sooner than before (%v)", d, last)
		}
		last = d
		s.Retry(p, Open, nil)
	}
	if last < 4*time.Second || last > 5*time.Second {
		t.Errorf("retried every %v in the end, want max_age at most", last)
	}
}

func TestRemoveWhileWaiting(t *testing.T) {
	s, _ := newPendingRig()
	for id := range batch.FileID(10) {
		s.Mark(id+1, New, 1, journal.Position{})
	}
	s.Remove(3)
	s.Remove(3)
	if len(s.files) != 9 || len(s.heap) != 9 {
		t.Errorf("%d files, %d waiting after one was removed", len(s.files), len(s.heap))
	}
	for i, p := range s.heap {
		if p.index != i || p.id == 3 {
			t.Errorf("place %d holds file %d with index %d", i, p.id, p.index)
		}
	}
}

// A batch waits for the file that a change of its directory came with, and no longer than for one that stays open.
func TestBatchWaitsForTheFile(t *testing.T) {
	s, c := newPendingRig()
	if !s.Imminent(0).IsZero() {
		t.Error("something is imminent in an empty set")
	}
	s.Opened(7)
	s.Mark(7, Open, 1, journal.Position{})
	if s.Imminent(0).IsZero() {
		t.Error("a file that was opened just now is not waited for")
	}
	c.advance(201 * time.Millisecond)
	if !s.Imminent(0).IsZero() {
		t.Error("a file that stays open is waited for")
	}
	s.Released(7)
	if s.Imminent(0).IsZero() {
		t.Error("a file that was closed just now is not waited for")
	}
}
