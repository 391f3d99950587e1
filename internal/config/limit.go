package config

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Limit is a rate for sending: one for all time, or a timetable of the week. The zero Limit does not limit.
type Limit struct {
	entries []rateFrom // sorted by minute of the week; an entry holds until the next one, and the week wraps
}

type rateFrom struct {
	minute int   // of the week, Sunday 00:00 is 0
	rate   int64 // bytes per second; 0: unlimited
}

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

// ParseLimit reads "50MiB/s", "off", or a timetable: entries "[Day-]HH:MM,RATE" separated by blanks or semicolons, such as
// "08:00,512K 12:00,10M 23:00,off" or "Mon-08:00,512K Fri-18:00,off". An entry without a day is one for every day.
func ParseLimit(s string) (Limit, error) {
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ';' || r == '\t' || r == '\n' })
	if len(fields) == 0 {
		return Limit{}, errors.New("the limit is empty")
	}
	if len(fields) == 1 && !strings.Contains(fields[0], ",") {
		rate, err := parseRate(fields[0])
		return Limit{[]rateFrom{{0, rate}}}, err
	}
	var l Limit
	for _, f := range fields {
		entries, err := parseEntry(f)
		if err != nil {
			return Limit{}, err
		}
		l.entries = append(l.entries, entries...)
	}
	sort.Slice(l.entries, func(i, j int) bool { return l.entries[i].minute < l.entries[j].minute })
	for i := 1; i < len(l.entries); i++ {
		if m := l.entries[i].minute; m == l.entries[i-1].minute {
			return Limit{}, fmt.Errorf("two rates from %s %02d:%02d on", time.Weekday(m/dayMinutes), m%dayMinutes/60, m%60)
		}
	}
	return l, nil
}

// At returns the bytes per second allowed at t, by t's own wall clock: a change of the clock moves the timetable with it,
// so an entry in the hour that spring leaves out begins when that hour would have, and autumn's hour holds twice. 0: unlimited.
func (l Limit) At(t time.Time) (bytesPerSecond int64) {
	if len(l.entries) == 0 {
		return 0
	}
	now := int(t.Weekday())*dayMinutes + t.Hour()*60 + t.Minute()
	next := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].minute > now })
	return l.entries[(next+len(l.entries)-1)%len(l.entries)].rate
}

// IsZero tells whether l never limits.
func (l Limit) IsZero() bool {
	for _, e := range l.entries {
		if e.rate != 0 {
			return false
		}
	}
	return true
}

func parseEntry(s string) ([]rateFrom, error) {
	from, rateText, ok := strings.Cut(s, ",")
	if !ok {
		return nil, fmt.Errorf("entry %q of the timetable is not [Day-]HH:MM,RATE", s)
	}
	rate, err := parseRate(rateText)
	if err != nil {
		return nil, err
	}
	day, clock, ok := strings.Cut(from, "-")
	if !ok {
		day, clock = "", from
	}
	minute, err := parseClock(clock)
	if err != nil || minute == dayMinutes {
		return nil, fmt.Errorf("entry %q of the timetable: %q is not a time of day", s, clock)
	}
	if day != "" {
		d, err := parseDay(day)
		return []rateFrom{{int(d)*dayMinutes + minute, rate}}, err
	}
	var entries []rateFrom
	for d := range 7 {
		entries = append(entries, rateFrom{d*dayMinutes + minute, rate})
	}
	return entries, nil
}

func parseRate(s string) (int64, error) {
	if s == "off" {
		return 0, nil
	}
	if strings.Contains(s, ":") {
		return 0, fmt.Errorf("rate %q names two directions; only sending is limited, give one", s)
	}
	rate, err := ParseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return 0, fmt.Errorf("rate %q: %w", s, err)
	}
	if rate < 1024 {
		return 0, fmt.Errorf("rate %q is below 1 KiB/s; unlimited is \"off\"", s)
	}
	return rate, nil
}

// parseClock reads "HH:MM", up to "24:00".
func parseClock(s string) (int, error) {
	if len(s) == 5 && s[2] == ':' {
		h, err := strconv.ParseUint(s[:2], 10, 8)
		m, err2 := strconv.ParseUint(s[3:], 10, 8)
		if at := int(h*60 + m); err == nil && err2 == nil && m < 60 && at <= dayMinutes {
			return at, nil
		}
	}
	return 0, fmt.Errorf("%q is not a time of day (HH:MM)", s)
}

// parseDay reads a day's three letters or its full name.
func parseDay(s string) (time.Weekday, error) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(s, d.String()) || strings.EqualFold(s, d.String()[:3]) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is not a day", s)
}
