package shipper

import (
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
)

func span(d time.Duration) *time.Duration { return &d }

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	must(t, err)
	when, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
	must(t, err)
	return when
}

const berlin = "Europe/Berlin"

func TestDue(t *testing.T) {
	now := at(t, berlin, "2026-11-23 15:00") // a Monday
	night := "22:00-06:00 " + berlin
	tests := []struct {
		name string
		item config.Condition
		f    Facts
		due  bool
		next time.Time // not due: when it would be; zero: nobody knows
	}{
		{name: "at once", item: config.Condition{Age: span(0)}, f: Facts{Received: now}, due: true},
		{name: "young", item: config.Condition{Age: span(time.Hour)}, f: Facts{Received: now.Add(-20 * time.Minute)}, next: now.Add(40 * time.Minute)},
		{name: "old to the second", item: config.Condition{Age: span(time.Hour)}, f: Facts{Received: now.Add(-time.Hour)}, due: true},
		{name: "few bytes", item: config.Condition{Bytes: 100}, f: Facts{Bytes: 99}},
		{name: "enough bytes", item: config.Condition{Bytes: 100}, f: Facts{Bytes: 100}, due: true},
		{name: "few batches", item: config.Condition{Batches: 3}, f: Facts{Batches: 2}},
		{name: "enough batches", item: config.Condition{Batches: 3}, f: Facts{Batches: 3}, due: true},
		{name: "busy", item: config.Condition{Idle: span(time.Minute)}, f: Facts{LastArrival: now.Add(-10 * time.Second)}, next: now.Add(50 * time.Second)},
		{name: "idle", item: config.Condition{Idle: span(time.Minute)}, f: Facts{LastArrival: now.Add(-time.Minute)}, due: true},
		{name: "room left", item: config.Condition{CacheUsed: "80%"}, f: Facts{CacheUsed: 799}},
		{name: "little room left", item: config.Condition{CacheUsed: "80%"}, f: Facts{CacheUsed: 800}, due: true},
		{name: "not told", item: config.Condition{Manual: true}},
		{name: "told", item: config.Condition{Manual: true}, f: Facts{Manual: true}, due: true},
		{name: "outside the window", item: config.Condition{Window: night}, next: at(t, berlin, "2026-11-23 22:00")},
		{name: "inside the window", item: config.Condition{Window: "14:00-16:00 " + berlin}, due: true},
		{name: "other zone", item: config.Condition{Window: "14:00-16:00 America/New_York"}, next: at(t, "America/New_York", "2026-11-23 14:00")},
		{name: "all of: one lacks", item: config.Condition{Age: span(time.Hour), Bytes: 100}, f: Facts{Received: now.Add(-2 * time.Hour), Bytes: 1}},
		{name: "all of: both", item: config.Condition{Age: span(time.Hour), Bytes: 100}, f: Facts{Received: now.Add(-2 * time.Hour), Bytes: 100}, due: true},
		{name: "all of: two clocks", item: config.Condition{Age: span(time.Hour), Idle: span(2 * time.Hour)},
			f: Facts{Received: now, LastArrival: now}, next: now.Add(2 * time.Hour)},
		{name: "old, and the window closed", item: config.Condition{Age: span(time.Hour), Window: night},
			f: Facts{Received: now.Add(-2 * time.Hour)}, next: at(t, berlin, "2026-11-23 22:00")},
		{name: "old in the night: then at once", item: config.Condition{Age: span(8 * time.Hour), Window: night},
			f: Facts{Received: now}, next: at(t, berlin, "2026-11-23 23:00")},
		{name: "old in the morning: then the next night", item: config.Condition{Age: span(16 * time.Hour), Window: night},
			f: Facts{Received: now}, next: at(t, berlin, "2026-11-24 22:00")},
		{name: "bytes and window: nobody knows", item: config.Condition{Bytes: 100, Window: night}, f: Facts{Bytes: 1}},
		{name: "begun: only the window is asked", item: config.Condition{Bytes: 100, Window: "14:00-16:00 " + berlin}, f: Facts{Bytes: 1, Begun: true}, due: true},
		{name: "begun, but the window has closed", item: config.Condition{Bytes: 100, Window: night}, f: Facts{Bytes: 1, Begun: true},
			next: at(t, berlin, "2026-11-23 22:00")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Compile(tt.item, 1000)
			must(t, err)
			due, reason, next := Due(c, tt.f, now)
			if due != tt.due {
				t.Errorf("due is %v (%s)", due, reason)
			}
			if reason == "" {
				t.Error("no reason is given")
			}
			if !next.Equal(tt.next) {
				t.Errorf("next is %v, want %v", next, tt.next)
			}
		})
	}
}

// TestWindowOnDaysOfClockChange walks over the two Sundays minute by minute: a batch is due exactly while the wall clock is in
// the window, and the time that is foretold is the first such minute.
func TestWindowOnDaysOfClockChange(t *testing.T) {
	for _, day := range []string{"2026-03-28", "2026-10-24"} {
		for _, window := range []string{"01:00-04:00", "02:30-03:00", "02:00-02:30", "23:00-02:30", "Sun 00:00-24:00", "Sat 22:00-03:00"} {
			c, err := Compile(config.Condition{Age: span(0), Window: window + " " + berlin}, 0)
			must(t, err)
			begin := at(t, berlin, day+" 20:00")
			var foretold time.Time
			for m := range 24 * 60 {
				now := begin.Add(time.Duration(m) * time.Minute)
				due, _, next := Due(c, Facts{Received: begin}, now)
				if want := inWords(window, now); due != want {
					t.Errorf("%s at %s: due is %v", window, now, due)
				}
				// Autumn's second hour comes unforetold; a cursor looks every half minute all the same.
				if due && day != "2026-10-24" && now.Before(foretold) {
					t.Errorf("%s: due at %s, foretold for %s", window, now, foretold)
				}
				foretold = next
			}
		}
	}
}

// inWords is the window read once more, in the simplest way.
func inWords(window string, now time.Time) bool {
	clock, day := now.Format("15:04"), now.Weekday()
	switch window {
	case "01:00-04:00":
		return clock >= "01:00" && clock < "04:00"
	case "02:30-03:00":
		return clock >= "02:30" && clock < "03:00"
	case "02:00-02:30":
		return clock >= "02:00" && clock < "02:30"
	case "23:00-02:30":
		return clock >= "23:00" || clock < "02:30"
	case "Sun 00:00-24:00":
		return day == time.Sunday
	case "Sat 22:00-03:00":
		return day == time.Saturday && clock >= "22:00" || day == time.Sunday && clock < "03:00"
	}
	panic(window)
}

func TestCompileRefuses(t *testing.T) {
	for _, item := range []config.Condition{{Window: "25:00-26:00"}, {CacheUsed: "much"}} {
		if _, err := Compile(item, 0); err == nil {
			t.Errorf("%+v is taken", item)
		}
	}
}

// queueOf gives a cursor that lacks batches which arrived so long ago.
func queueOf(t *testing.T, now time.Time, when []config.Condition, ages ...time.Duration) *cursor {
	t.Helper()
	c := newCacheHost(t, "vault1")
	c.cfg.Ship.When = when
	s := c.start()
	v := s.newVolume("projects")
	for i, age := range ages {
		v.holdLocked(held{seq: batch.Seq(i + 1), epoch: 1, bytes: 100, received: now.Add(-age).UnixNano()})
	}
	v.chain.Low, v.chain.Head, v.acks.Head = 1, batch.Seq(len(ages)), batch.Seq(len(ages))
	return v.cursors[0]
}

func TestDecide(t *testing.T) {
	now := at(t, berlin, "2026-11-23 15:00")
	hour := config.Condition{Age: span(time.Hour)}
	tests := []struct {
		name string
		when []config.Condition
		told batch.Seq
		upTo batch.Seq
		next time.Time
	}{
		{"the old ones", []config.Condition{hour}, 0, 2, time.Time{}},
		{"none", []config.Condition{{Age: span(5 * time.Hour)}}, 0, 0, now.Add(2 * time.Hour)},
		{"bytes take all", []config.Condition{{Age: span(5 * time.Hour)}, {Bytes: 400}}, 0, 4, time.Time{}},
		{"too few bytes", []config.Condition{{Bytes: 401}}, 0, 0, time.Time{}},
		{"the further of two", []config.Condition{hour, {Age: span(20 * time.Minute)}}, 0, 3, time.Time{}},
		{"the sooner of two", []config.Condition{{Age: span(5 * time.Hour)}, {Window: "18:00-19:00 " + berlin}}, 0, 0, now.Add(2 * time.Hour)},
		{"told", []config.Condition{{Manual: true}}, 3, 3, time.Time{}},
		{"told, and the rest by age", []config.Condition{{Age: span(0)}}, 1, 4, time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := queueOf(t, now, tt.when, 3*time.Hour, 2*time.Hour, 30*time.Minute, time.Minute)
			c.v.manual = tt.told
			d := c.decideLocked(now)
			if d.upTo != tt.upTo || d.waits != (tt.upTo < 4) || !d.next.Equal(tt.next) {
				t.Errorf("decided %+v, want up to %d, next %v", d, tt.upTo, tt.next)
			}
		})
	}
}

// TestDueStaysDue: what was due by its quantity goes even when, after half of it has gone, the quantity is too small; but not
// outside the window.
func TestDueStaysDue(t *testing.T) {
	now := at(t, berlin, "2026-11-23 23:00")
	when := []config.Condition{{Bytes: 400, Window: "22:00-06:00 " + berlin}}
	c := queueOf(t, now, when, time.Hour, time.Hour, time.Hour, time.Hour)
	if d := c.decideLocked(now); d.upTo != 4 {
		t.Fatalf("due up to %d, want 4", d.upTo)
	}
	c.acks.Head = 2
	if d := c.decideLocked(now); d.upTo != 4 {
		t.Errorf("after half of it: due up to %d, want 4", d.upTo)
	}
	c.v.holdLocked(held{seq: 5, epoch: 1, bytes: 100, received: now.UnixNano()})
	c.v.chain.Head, c.v.acks.Head = 5, 5
	if d := c.decideLocked(now); d.upTo != 4 || !d.waits {
		t.Errorf("what came later: due up to %d, want 4", d.upTo)
	}
	morning := at(t, berlin, "2026-11-24 06:00")
	if d := c.decideLocked(morning); d.upTo != 0 || !d.next.Equal(at(t, berlin, "2026-11-24 22:00")) && !d.next.IsZero() {
		t.Errorf("in the morning: %+v", d)
	}
	if d := c.decideLocked(at(t, berlin, "2026-11-24 22:00")); d.upTo != 4 {
		t.Errorf("the next night: due up to %d, want 4", d.upTo)
	}
}
