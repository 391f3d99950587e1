package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a bare cache host has no zone files, and its windows are to hold all the same
)

// Window is a span of hours on some days of the week in a time zone.
type Window struct {
	days     [7]bool
	from, to int // minutes of the day; to ≤ from: it ends on the next day
	zone     *time.Location
}

// ParseWindow reads "22:00-06:00", "Mon-Fri 22:00-06:00", "Sat,Sun 00:00-24:00", each with a zone behind it or without
// ("Mon-Fri 22:00-06:00 Europe/Berlin"; else the host's). A window over midnight belongs to the day it begins on.
func ParseWindow(s string) (Window, error) {
	fields := strings.Fields(s)
	w := Window{zone: time.Local, days: [7]bool{true, true, true, true, true, true, true}}
	if len(fields) > 1 && !strings.Contains(fields[0], ":") {
		var err error
		if w.days, err = parseDays(fields[0]); err != nil {
			return Window{}, err
		}
		fields = fields[1:]
	}
	if len(fields) == 0 || len(fields) > 2 {
		return Window{}, fmt.Errorf("window %q is not [DAYS] HH:MM-HH:MM [ZONE]", s)
	}
	from, to, _ := strings.Cut(fields[0], "-")
	var err, err2 error
	w.from, err = parseClock(from)
	w.to, err2 = parseClock(to)
	if err != nil || err2 != nil || w.from == dayMinutes || w.from == w.to {
		return Window{}, fmt.Errorf("window %q: %q is not a span of hours (22:00-06:00)", s, fields[0])
	}
	if len(fields) == 2 {
		if w.zone, err = time.LoadLocation(fields[1]); err != nil {
			return Window{}, fmt.Errorf("window %q: %q is not a time zone", s, fields[1])
		}
	}
	return w, nil
}

// Open tells whether t lies in the window.
func (w Window) Open(t time.Time) bool {
	t = t.In(w.zone)
	minute, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.from < w.to {
		return w.days[day] && minute >= w.from && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

// Next returns the first moment at or after t in the window.
func (w Window) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	local := t.In(w.zone)
	for ahead := range 9 {
		begin := time.Date(local.Year(), local.Month(), local.Day()+ahead, w.from/60, w.from%60, 0, 0, w.zone)
		if w.days[begin.Weekday()] && begin.After(t) {
			return begin
		}
	}
	return t
}

func parseDays(s string) (days [7]bool, err error) {
	for _, part := range strings.Split(s, ",") {
		first, last, span := strings.Cut(part, "-")
		from, err := parseDay(first)
		if err != nil {
			return days, err
		}
		to := from
		if span {
			if to, err = parseDay(last); err != nil {
				return days, err
			}
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

// ParseCacheUsed reads "80%" of the cap, or a size, and returns the bytes.
func ParseCacheUsed(s string, limit int64) (int64, error) {
	percent, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	if !ok {
		return ParseSize(s)
	}
	p, err := strconv.ParseFloat(percent, 64)
	if err != nil || !(p > 0 && p <= 100) { // NaN is neither
		return 0, fmt.Errorf("%q is not a percentage from 1%% to 100%%", s)
	}
	return int64(float64(limit) / 100 * p), nil
}
