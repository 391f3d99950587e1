package spooler

import (
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
)

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
