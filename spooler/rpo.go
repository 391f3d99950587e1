package spooler

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/exclude"
)

// rpo follows `rpo:`, guarded by the volume's lock. What lies below its paths is known of pending files by their names and of batches from when they were
// sealed; of those sealed before this process nothing is known, and they count for every path.
type rpo struct {
	config.RPO
	below []*exclude.List // a pattern each, of Paths
	moves uint64          // counts renames: what is known of a file by its name was known before
	late  []touched       // batches that the cache lacked when last looked, in order
}

// touched says which paths a batch changes something below: a bit each.
type touched struct {
	seq    batch.Seq
	paths  uint64
	sealed time.Time
}

// namesALook bounds how many pending files' names are found out at a look: many at once come on a first backup, where nobody waits for this.
const namesALook = 2000

func newRPO(c config.RPO) (rpo, error) {
	r := rpo{RPO: c}
	for _, p := range c.Paths {
		l, err := exclude.New([]string{p.Path})
		if err != nil {
			return r, fmt.Errorf("rpo: %w", err)
		}
		r.below = append(r.below, l)
	}
	return r, nil
}

// match returns the paths that a name lies below.
func (r *rpo) match(path string, isDir bool) (paths uint64) {
	for i, l := range r.below {
		if _, ok := l.Match(path, isDir); ok {
			paths |= 1 << i
		}
	}
	return paths
}

// lateAlarms say what has taken longer than the operator wants anything to take.
func (v *volume) lateAlarms(st *control.Status, now time.Time) (list []control.Alarm, err error) {
	list = alarmsBy(v.rpo.Deadline, st, "")
	if len(v.rpo.Paths) == 0 {
		return list, nil
	}
	pending, err := v.oldestPending(now)
	if err != nil {
		return list, err
	}
	for i, p := range v.rpo.Paths {
		below := control.Status{Pending: control.PendingStatus{OldestSeconds: pending[i].Seconds()}}
		for _, s := range st.Stores {
			if s.Kind == "cache" {
				s.LagSeconds = v.lagBelow(i, batch.Seq(s.Batch), now).Seconds()
				below.Stores = append(below.Stores, s)
			}
		}
		list = append(list, alarmsBy(p.Deadline, &below, p.Path)...)
	}
	return list, nil
}

// alarmsBy judges by one deadline; path is what it is about, "" for everything.
func alarmsBy(d config.Deadline, st *control.Status, path string) []control.Alarm {
	var list []control.Alarm
	judge := func(store string, seconds float64, what string) {
		late := time.Duration(seconds * float64(time.Second))
		a, bound := control.Alarm{Event: control.BehindRPO, Level: control.LevelError, Store: store, Path: path}, d.Error
		if d.Error == 0 || late <= d.Error {
			a.Level, bound = control.LevelWarning, d.Warn
		}
		if bound == 0 || late <= bound {
			return
		}
		of := config.FormatDuration(bound)
		if path != "" {
			of += " of " + path
		}
		a.Message = fmt.Sprintf("behind rpo %s: "+what, of, config.FormatDuration(late.Round(time.Second)))
		list = append(list, a)
	}
	judge("", st.Pending.OldestSeconds, "a change has waited for %s to be sealed; `slipway spool pending` names it")
	for _, s := range st.Stores {
		if s.Kind == "cache" {
			judge(s.Name, s.LagSeconds, s.Name+" lacks what was sealed %s ago")
		}
	}
	return list
}

// oldestPending returns for each path how long the oldest change below it has been pending. Files that are younger than every deadline are not looked at.
func (v *volume) oldestPending(now time.Time) ([]time.Duration, error) {
	oldest := make([]time.Duration, len(v.rpo.Paths))
	least := time.Duration(1<<63 - 1)
	for _, p := range v.rpo.Paths {
		for _, d := range []time.Duration{p.Warn, p.Error} {
			if d > 0 {
				least = min(least, d)
			}
		}
	}
	names := 0
	err := v.tree.Within(func() error {
		return v.tree.ManyPaths(func() error {
			for _, p := range v.pending.files {
				age := now.Sub(p.since)
				if age <= least {
					continue
				}
				if p.belowAt != v.rpo.moves+1 {
					if names++; names > namesALook {
						continue
					}
					path, ok, err := v.tree.Path(p.id)
					if err != nil {
						return err
					}
					if !ok {
						continue
					}
					p.below, p.belowAt = v.rpo.match(path, false), v.rpo.moves+1
				}
				for i := range oldest {
					if p.below&(1<<i) != 0 {
						oldest[i] = max(oldest[i], age)
					}
				}
			}
			return nil
		})
	})
	return oldest, err
}

// lagBelow returns for how long the cache, which has everything up to head, has lacked something below a path.
func (v *volume) lagBelow(path int, head batch.Seq, now time.Time) time.Duration {
	for len(v.rpo.late) > 0 && v.rpo.late[0].seq <= head {
		v.rpo.late = v.rpo.late[1:]
	}
	if head < v.meta.Head && (len(v.rpo.late) == 0 || v.rpo.late[0].seq > head+1) {
		return now.Sub(v.sealedAt(head + 1)) // sealed before this process, so that nobody knows what is in it
	}
	for _, t := range v.rpo.late {
		if t.paths&(1<<path) != 0 {
			return now.Sub(t.sealed)
		}
	}
	return 0
}

// touches finds out what a prepared batch changes below the paths: content, attributes, names that came and went.
func (v *volume) touches(s *sealing) error {
	all := uint64(1)<<len(v.rpo.below) - 1
	if len(v.rpo.below) == 0 {
		return nil
	}
	return v.tree.ManyPaths(func() error {
		for i := range s.change.ChangedInodes() {
			in := &s.change.Inodes[i]
			if err := v.touch(s, in.ID, "", in.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil || s.touched == all {
				return err
			}
		}
		for _, e := range s.change.ChangedEntries() {
			if err := v.touch(s, e.Parent, e.Name, false); err != nil || s.touched == all {
				return err
			}
		}
		return nil
	})
}

// touch notes a file, or a name in a directory.
func (v *volume) touch(s *sealing, id batch.FileID, name string, isDir bool) error {
	path, ok, err := v.tree.Path(id)
	if err != nil || !ok {
		return err
	}
	if name != "" {
		path += "/" + name
	}
	s.touched |= v.rpo.match(path, isDir)
	return nil
}

// maxLate bounds what is remembered of batches: the cache has been away for a day, then.
const maxLate = 1 << 17

// sealedBatch notes what a committed batch has changed below the paths.
func (r *rpo) sealedBatch(seq batch.Seq, paths uint64, at time.Time) {
	if len(r.below) == 0 {
		return
	}
	if len(r.late) >= maxLate {
		r.late = r.late[1:] // and counts for every path from now on
	}
	r.late = append(r.late, touched{seq, paths, at})
}
