// Package rpo says what has taken longer than the operator wants anything to take (`rpo:`).
//
// It keeps nothing: of batches sealed before this process nobody knows what they touch, and they count for every path.
package rpo

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/exclude"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// Deadlines are those of `rpo:`. They take no lock: whoever owns them guards them. What lies below a path is known of pending files by
// their names and of batches from when they were sealed.
type Deadlines struct {
	config.RPO
	below []*exclude.List // a pattern each, of Paths
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

// New makes what follows a configuration.
func New(c config.RPO) (*Deadlines, error) {
	r := &Deadlines{RPO: c}
	for _, p := range c.Paths {
		l, err := exclude.New([]string{p.Path})
		if err != nil {
			return nil, fmt.Errorf("rpo: %w", err)
		}
		r.below = append(r.below, l)
	}
	return r, nil
}

// match returns the paths that a name lies below.
func (r *Deadlines) match(path string, isDir bool) (paths uint64) {
	for i, l := range r.below {
		if _, ok := l.Match(path, isDir); ok {
			paths |= 1 << i
		}
	}
	return paths
}

// Volume is what is judged.
type Volume struct {
	Tree     *tree.Tree
	Pending  *pending.Set
	Renames  uint64 // so far: what is known of a file by its name was known before
	Head     batch.Seq
	SealedAt func(batch.Seq) time.Time
}

// Alarms say what is late; st is the volume's status but for them.
func (r *Deadlines) Alarms(st *control.Status, v Volume, now time.Time) (list []control.Alarm, err error) {
	list = alarmsBy(r.Deadline, st, "")
	if len(r.Paths) == 0 {
		return list, nil
	}
	oldest, err := r.oldestPending(v, now)
	if err != nil {
		return list, err
	}
	for i, p := range r.Paths {
		below := control.Status{Pending: control.PendingStatus{OldestSeconds: oldest[i].Seconds()}}
		for _, s := range st.Stores {
			if s.Kind == "cache" {
				s.LagSeconds = r.lagBelow(v, i, batch.Seq(s.Batch), now).Seconds()
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
func (r *Deadlines) oldestPending(v Volume, now time.Time) ([]time.Duration, error) {
	oldest := make([]time.Duration, len(r.Paths))
	least, names := r.least(), 0
	err := v.Tree.Within(func() error {
		return v.Tree.ManyPaths(func() error {
			for p := range v.Pending.All() {
				age := now.Sub(p.Since())
				if age <= least {
					continue
				}
				paths, err := r.pathsOf(v, p, &names)
				if err != nil {
					return err
				}
				for i := range oldest {
					if paths&(1<<i) != 0 {
						oldest[i] = max(oldest[i], age)
					}
				}
			}
			return nil
		})
	})
	return oldest, err
}

// least is the shortest of all paths' deadlines.
func (r *Deadlines) least() time.Duration {
	least := time.Duration(1<<63 - 1)
	for _, p := range r.Paths {
		for _, d := range []time.Duration{p.Warn, p.Error} {
			if d > 0 {
				least = min(least, d)
			}
		}
	}
	return least
}

// pathsOf returns the paths that a pending file lies below, as far as its name is known or may still be found out; looked counts these.
func (r *Deadlines) pathsOf(v Volume, p *pending.File, looked *int) (uint64, error) {
	paths, known := p.Below(v.Renames)
	if known {
		return paths, nil
	}
	if *looked++; *looked > namesALook {
		return 0, nil
	}
	path, ok, err := v.Tree.Path(p.ID())
	if err != nil || !ok {
		return 0, err
	}
	paths = r.match(path, false)
	p.SetBelow(paths, v.Renames)
	return paths, nil
}

// lagBelow returns for how long the cache, which has everything up to head, has lacked something below a path.
func (r *Deadlines) lagBelow(v Volume, path int, head batch.Seq, now time.Time) time.Duration {
	for len(r.late) > 0 && r.late[0].seq <= head {
		r.late = r.late[1:]
	}
	if head < v.Head && (len(r.late) == 0 || r.late[0].seq > head+1) {
		return now.Sub(v.SealedAt(head + 1)) // sealed before this process, so that nobody knows what is in it
	}
	for _, t := range r.late {
		if t.paths&(1<<path) != 0 {
			return now.Sub(t.sealed)
		}
	}
	return 0
}

// Touches finds out what a change alters below the paths, a bit each: content, attributes, names that came and went.
func (r *Deadlines) Touches(t *tree.Tree, c *tree.Change) (paths uint64, err error) {
	all := uint64(1)<<len(r.below) - 1
	if len(r.below) == 0 {
		return 0, nil
	}
	err = t.ManyPaths(func() error {
		inodes := c.ChangedInodes()
		for i := range inodes {
			in := &inodes[i]
			if err := r.touch(t, &paths, in.ID, "", in.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil || paths == all {
				return err
			}
		}
		for _, e := range c.ChangedEntries() {
			if err := r.touch(t, &paths, e.Parent, e.Name, false); err != nil || paths == all {
				return err
			}
		}
		return nil
	})
	return paths, err
}

// touch notes a file, or a name in a directory.
func (r *Deadlines) touch(t *tree.Tree, paths *uint64, id batch.FileID, name string, isDir bool) error {
	path, ok, err := t.Path(id)
	if err != nil || !ok {
		return err
	}
	if name != "" {
		path += "/" + name
	}
	*paths |= r.match(path, isDir)
	return nil
}

// maxLate bounds what is remembered of batches: the cache has been away for a day, then.
const maxLate = 1 << 17

// Sealed notes what a committed batch has changed below the paths.
func (r *Deadlines) Sealed(seq batch.Seq, paths uint64, at time.Time) {
	if len(r.below) == 0 {
		return
	}
	if len(r.late) >= maxLate {
		r.late = r.late[1:] // and counts for every path from now on
	}
	r.late = append(r.late, touched{seq, paths, at})
}
