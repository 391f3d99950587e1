package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// units of sizes: powers of 1024 whatever their spelling, as restic and rclone read them.
var units = map[string]int64{
	"B": 1,
	"K": 1 << 10, "KB": 1 << 10, "KIB": 1 << 10,
	"M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20,
	"G": 1 << 30, "GB": 1 << 30, "GIB": 1 << 30,
	"T": 1 << 40, "TB": 1 << 40, "TIB": 1 << 40,
	"P": 1 << 50, "PB": 1 << 50, "PIB": 1 << 50,
}

// ParseSize reads "50GiB", "64M" (MiB), "1.5T", "0". A number without a unit is refused, because readers disagree on what
// it would mean.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimSpace(s)
	end := strings.LastIndexAny(digits, "0123456789.") + 1
	digits, unit := digits[:end], strings.ToUpper(strings.TrimSpace(digits[end:]))
	value, err := strconv.ParseFloat(digits, 64)
	if err != nil || value < 0 || strings.ContainsAny(digits, "eExX_") {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	if unit == "" {
		if value == 0 {
			return 0, nil
		}
		return 0, fmt.Errorf("size %q has no unit", s)
	}
	factor, ok := units[unit]
	if !ok {
		return 0, fmt.Errorf("size %q has an unknown unit", s)
	}
	if value *= float64(factor); value >= 1<<62 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return int64(value), nil
}

// FormatSize returns a size as people read it: "50 GiB".
func FormatSize(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}

var spans = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute,
	"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "mo": 30 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
}

// ParseDuration reads "200ms", "90s", "6h", "14d", "8w", "1h30m", "1y2mo" (a month is 30 days, a year 365), "0".
func ParseDuration(s string) (time.Duration, error) {
	rest := strings.TrimSpace(s)
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, fmt.Errorf("duration is empty")
	}
	var total float64
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		value, err := strconv.ParseFloat(rest[:digits], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		rest = rest[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))
		if letters == 0 {
			return 0, fmt.Errorf("duration %q has no unit", s)
		}
		unit, ok := spans[rest[:letters]]
		if !ok {
			return 0, fmt.Errorf("duration %q has the unknown unit %q", s, rest[:letters])
		}
		total += value * float64(unit)
		rest = strings.TrimLeft(rest[letters:], " ")
	}
	if total >= 1<<62 {
		return 0, fmt.Errorf("duration %q is too long", s)
	}
	return time.Duration(total), nil
}

// FormatDuration returns a duration as ParseDuration reads it, in at most two units.
func FormatDuration(d time.Duration) string {
	if d < 0 {
		return "-" + FormatDuration(-d)
	}
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	}
	parts := ""
	for _, u := range []struct {
		name string
		span time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / u.span; n > 0 {
			d -= n * u.span
			if parts != "" {
				return parts + fmt.Sprintf("%d%s", n, u.name)
			}
			parts = fmt.Sprintf("%d%s", n, u.name)
		} else if parts != "" {
			return parts
		}
	}
	return parts
}
