package spooler

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/control"
)

// lateAlarms say what has taken longer than the operator wants anything to take; none without a wish.
func lateAlarms(st *control.Status, rpo time.Duration) []control.Alarm {
	if rpo == 0 {
		return nil
	}
	late := func(s float64) (string, bool) {
		d := time.Duration(s * float64(time.Second))
		return config.FormatDuration(d.Round(time.Second)), d > rpo
	}
	var list []control.Alarm
	say := func(store, format string, args ...any) {
		list = append(list, control.Alarm{Event: control.BehindRPO, Level: control.LevelError, Store: store, Message: fmt.Sprintf(format, args...)})
	}
	if d, is := late(st.Pending.OldestSeconds); is {
		say("", "behind rpo %s: a change has waited for %s to be sealed; `slipway spool pending` names it", config.FormatDuration(rpo), d)
	}
	for _, s := range st.Stores {
		if d, is := late(s.LagSeconds); is && s.Kind == "cache" {
			say(s.Name, "behind rpo %s: %s lacks what was sealed %s ago", config.FormatDuration(rpo), s.Name, d)
		}
	}
	return list
}

// spaceWarnings tell of disks of which less than a tenth is free: the node's own, and those of the stores as far as they say.
func (s *Spooler) spaceWarnings() []string {
	var w []string
	say := func(where string, free, total uint64) {
		if total > 0 && free < total/10 {
			w = append(w, fmt.Sprintf("%s has %s of %s free: make room", where, config.FormatSize(int64(free)), config.FormatSize(int64(total))))
		}
	}
	var st unix.Statfs_t
	for _, place := range []struct{ name, dir string }{{"the state directory's disk", s.opt.Config.State}, {"the own store's disk", s.vol.ownDir}} {
		if unix.Statfs(place.dir, &st) == nil { // what is wrong with the directory is told elsewhere
			say(place.name, st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize))
		}
	}
	for _, p := range s.pushers {
		r := p.Report()
		say(r.Name, r.Free, r.Total)
	}
	return w
}
