package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1B": 1, "64M": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "50GiB": 50 << 30, "1.5T": 3 << 39, "512k": 512 << 10, " 1 GiB ": 1 << 30,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "-1M", "1X", "M", "1e3M", "0x5M", "1_0M", "9999999P", "NaNM", "1.2.3M", "1M2"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q is taken as %d", in, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "200ms": 200 * time.Millisecond, "90s": 90 * time.Second, "6h": 6 * time.Hour, "14d": 14 * day, "8w": 56 * day,
		"6mo": 180 * day, "1y2mo": 425 * day, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "1d 2h": 26 * time.Hour,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "-1s", "1x", "s", "1s2", "9999y", "1..2s", "1e3s"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q is taken as %v", in, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for want, in := range map[string]time.Duration{
		"0s": 0, "200ms": 200 * time.Millisecond, "2.5s": 2500 * time.Millisecond, "1m30s": 90 * time.Second, "1h": time.Hour, "2h": 2*time.Hour + 5*time.Second,
		"1d2h": 26*time.Hour + 5*time.Minute, "14d": 14 * 24 * time.Hour, "-1m": -time.Minute,
	} {
		if got := FormatDuration(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

// TestDurationsReadBack: what FormatDuration writes, ParseDuration reads, off by less than the last unit written.
func TestDurationsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(1000*24*time.Hour)).Draw(t, "duration"))
		got, err := ParseDuration(FormatDuration(d))
		if err != nil {
			t.Fatal(err)
		}
		if off := (d - got).Abs(); off > max(d/10, time.Millisecond) {
			t.Fatalf("%v became %v", d, got)
		}
	})
}

func TestWindow(t *testing.T) {
	zone := berlin(t)
	day := func(d, h, m int) time.Time { return time.Date(2026, 11, d, h, m, 0, 0, zone) } // the 23rd is a Monday
	tests := []struct {
		window string
		at     time.Time
		open   bool
		next   time.Time
	}{
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(23, 21, 59), false, day(23, 22, 0)},
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(23, 22, 0), true, day(23, 22, 0)},
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(24, 5, 59), true, day(24, 5, 59)},
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(24, 6, 0), false, day(24, 22, 0)},
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(23, 3, 0), false, day(23, 22, 0)}, // Sunday's night is not in it
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(28, 5, 0), true, day(28, 5, 0)},   // Friday's is, on Saturday morning
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(28, 7, 0), false, day(30, 22, 0)},
		{"Sat,Sun 00:00-24:00 Europe/Berlin", day(28, 23, 59), true, day(28, 23, 59)},
		{"Sat,Sun 00:00-24:00 Europe/Berlin", day(30, 0, 0), false, day(35, 0, 0)},
		{"Sat-Mon 10:00-11:00 Europe/Berlin", day(23, 10, 30), true, day(23, 10, 30)},
		{"Mon-Fri 22:00-06:00 Europe/Berlin", day(28, 23, 0), false, day(30, 22, 0)},
		{"Sat-Mon 10:00-11:00 Europe/Berlin", day(23, 9, 59), false, day(23, 10, 0)},
		{"Sat-Mon 10:00-11:00 Europe/Berlin", day(28, 11, 0), false, day(29, 10, 0)},
		{"22:00-06:00 UTC", day(23, 22, 30), false, day(23, 23, 0)},
	}
	for _, tt := range tests {
		w, err := ParseWindow(tt.window)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Open(tt.at); got != tt.open {
			t.Errorf("%s at %s: open %v", tt.window, tt.at, got)
		}
		if got := w.Next(tt.at); !got.Equal(tt.next) {
			t.Errorf("%s after %s: %s, want %s", tt.window, tt.at, got, tt.next)
		}
	}
	for _, in := range []string{"", "22:00", "22:00-22:00", "24:00-06:00", "Mon", "Mon 22:00-06:00 UTC x", "22-06", "22:00-06:00 Nowhere", "x-06:00", "22:00-x", "22.00-06:00", "22:x0-06:00", "22:00-25:00", "Foo 22:00-06:00"} {
		if _, err := ParseWindow(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestCacheUsed(t *testing.T) {
	for in, want := range map[string]int64{"80%": 800, "12.5%": 125, "1KiB": 1024} {
		if got, err := ParseCacheUsed(in, 1000); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0%", "101%", "x%", "80", "NaN%"} {
		if _, err := ParseCacheUsed(in, 1000); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestClosest(t *testing.T) {
	known := []string{"volume", "source", "mount", "recipients", "max_age", "min_replicas"}
	for in, want := range map[string]string{"volum": "volume", "recpients": "recipients", "Mount": "mount", "maxage": "max_age", "zebra": "", "omutn": "mount", "xmuyn": "", "oxutz": "", "min-replicas": "min_replicas"} {
		if got := closest(in, known); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if !strings.HasPrefix(under("\tabc", 3), "\t ") {
		t.Error("a caret under a tab is out of line")
	}
}
