package config

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestLimitAt(t *testing.T) {
	zone := berlin(t)
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04:05", s, zone)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const day = "08:00,512K 12:00,10M 13:00,512K 18:00,30M 23:00,off"
	tests := []struct {
		limit, at string
		want      int64
	}{
		{"50MiB/s", "2026-11-23 10:00:00", 50 << 20},
		{"50M", "2026-11-23 10:00:00", 50 << 20},
		{"off", "2026-11-23 10:00:00", 0},
		{day, "2026-11-23 07:59:59", 0}, // the entry of the evening before
		{day, "2026-11-23 08:00:00", 512 << 10},
		{day, "2026-11-23 11:59:59", 512 << 10},
		{day, "2026-11-23 12:30:00", 10 << 20},
		{day, "2026-11-23 13:00:00", 512 << 10},
		{day, "2026-11-22 22:59:59", 30 << 20},
		{day, "2026-11-22 23:00:00", 0},
		{strings.ReplaceAll(day, " ", ";"), "2026-11-23 12:30:00", 10 << 20},
		{"Mon-08:00,512K Fri-18:00,off", "2026-11-23 07:59:00", 0},         // Monday, before: Friday's entry over the week's end
		{"Mon-08:00,512K Fri-18:00,off", "2026-11-23 08:00:00", 512 << 10}, // Monday
		{"Mon-08:00,512K Fri-18:00,off", "2026-11-26 23:00:00", 512 << 10}, // Thursday
		{"Mon-08:00,512K Fri-18:00,off", "2026-11-29 12:00:00", 0},         // Sunday
		{"Friday-18:00,1M Mon-08:00,2M", "2026-11-28 00:00:00", 1 << 20},   // written out of order: sorted all the same
		// Spring: 02:00 becomes 03:00 on 2026-03-29. The entry in the hour left out holds from 03:00 on.
		{"01:00,1M 02:30,2M 04:00,3M", "2026-03-29 01:59:59", 1 << 20},
		{"01:00,1M 02:30,2M 04:00,3M", "2026-03-29 03:00:00", 2 << 20},
		{"01:00,1M 02:30,2M 04:00,3M", "2026-03-29 04:00:00", 3 << 20},
	}
	for _, tt := range tests {
		l, err := ParseLimit(tt.limit)
		if err != nil {
			t.Errorf("%q: %v", tt.limit, err)
		} else if got := l.At(at(tt.at)); got != tt.want {
			t.Errorf("%q at %s: %d, want %d", tt.limit, tt.at, got, tt.want)
		}
	}
}

// TestLimitAutumn: 03:00 becomes 02:00 on 2026-10-25, so the hour holds twice.
func TestLimitAutumn(t *testing.T) {
	l, err := ParseLimit("02:00,1M 02:30,2M 03:00,3M")
	if err != nil {
		t.Fatal(err)
	}
	zone := berlin(t)
	first := time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC) // 02:00 summer time
	for i, want := range []int64{1, 2, 1, 2, 3} {
		at := first.Add(time.Duration(i) * 30 * time.Minute).In(zone)
		if got := l.At(at); got != want<<20 {
			t.Errorf("%s: %d, want %d MiB/s", at, got, want)
		}
	}
}

func TestLimitRefused(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "empty",
		"50":                    "no unit",
		"fast":                  "not a size",
		"10M:1M":                "two directions",
		"-5M":                   "not a size",
		"0":                     "below 1 KiB/s",
		"1B":                    "below 1 KiB/s",
		"08:00,1M 08:00,2M":     "two rates from",
		"08:00,1M Mon-08:00,2M": "two rates from Monday 08:00",
		"8:00,1M":               "not a time of day",
		"24:00,1M":              "not a time of day",
		"08:60,1M":              "not a time of day",
		"+8:00,1M":              "not a time of day",
		"Mo-08:00,1M":           "not a day",
		"08:00 1M":              "not [Day-]HH:MM,RATE",
		"08:00,":                "not a size",
	} {
		if _, err := ParseLimit(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := ParseLimit("1MiB/s")
		if err != nil {
			t.Fatal(err)
		}
		th := NewThrottle(l, time.Now)
		began := time.Now()
		for range 40 {
			if err := th.WaitN(t.Context(), 256<<10); err != nil {
				t.Fatal(err)
			}
		}
		// 10 MiB at 1 MiB/s, the first quarter of a second's worth for nothing.
		if took := time.Since(began); took < 9500*time.Millisecond || took > 10*time.Second {
			t.Errorf("10 MiB took %v", took)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := th.WaitN(ctx, 100<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait does not end with its context: %v", err)
		}
	})
}

// TestThrottleFollows: a write begun at a slow rate goes on at the fast one once the timetable says so.
func TestThrottleFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := ParseLimit("00:00,1K 00:10,off")
		if err != nil {
			t.Fatal(err)
		}
		midnight := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		began := time.Now()
		th := NewThrottle(l, func() time.Time { return midnight.Add(time.Since(began)) })
		if err := th.WaitN(t.Context(), 100<<20); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 9*time.Minute || took > 11*time.Minute {
			t.Errorf("100 MiB took %v, want the ten minutes of the slow rate", took)
		}
	})
}

// TestLimitForms: what may stand between entries, and the limit of nobody.
func TestLimitForms(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, between := range []string{" ", ";", "\t", "\n", "; "} {
		if l, err := ParseLimit("08:00,1M" + between + "18:00,off"); err != nil || l.At(noon) != 1<<20 {
			t.Errorf("%q: %d, %v", between, l.At(noon), err)
		}
	}
	if got := (Limit{}).At(noon); got != 0 {
		t.Errorf("no limit is %d", got)
	}
}
