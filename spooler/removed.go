package spooler

import (
	"fmt"
	"io/fs"
	"strings"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/leftout"
)

// removedMax bounds how many names are remembered.
const removedMax = 16 << 10

// removedSet remembers the names that last ceased to lead where they led, so that a barrier for a file removed just before knows it
// from one that never was. It is lost with the process, and needed only once the removal is sealed: until then the catalog knows.
type removedSet struct {
	keys map[entryKey]struct{}
	ring []entryKey
	next int
}

func (r *removedSet) add(k entryKey) {
	if _, there := r.keys[k]; there {
		return
	}
	if r.keys == nil {
		r.keys = map[entryKey]struct{}{}
	}
	if len(r.ring) < removedMax {
		r.ring = append(r.ring, k)
	} else {
		delete(r.keys, r.ring[r.next])
		r.ring[r.next] = k
		r.next = (r.next + 1) % removedMax
	}
	r.keys[k] = struct{}{}
}

// admit refuses what a barrier cannot be about: paths that are left out, and paths that are not there and were not lately.
func (s *Spooler) admit(b control.Barrier, mark moment) error {
	v := s.vol
	return v.tree.within(func() error {
		if err := v.catchUp(); err != nil {
			return err
		}
		for _, path := range b.Paths {
			left, there := s.left.At(path)
			if left.State == leftout.Excluded {
				return fmt.Errorf("%q is %s: it is never sealed", path, left.Why)
			}
			if there || v.folded.Before(mark.pos) {
				continue
			}
			if known, err := v.knows(path); err != nil {
				return err
			} else if !known {
				return fmt.Errorf("%q is not in the volume, and was not lately: %w", path, fs.ErrNotExist)
			}
		}
		return nil
	})
}

// knows tells whether something lies at a path or did: now, when it was last sealed, or since the process started. What may lie in a
// directory that is not compared yet is not denied.
func (v *volume) knows(path string) (bool, error) {
	id, moved := batch.Root, false
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, err := v.tree.lookup(id, name)
		if err != nil {
			return false, err
		}
		sealed, _, err := v.tree.tx.Lookup(id, name)
		if err != nil {
			return false, err
		}
		_, removed := v.tree.removed.keys[entryKey{id, name}]
		moved = moved || removed || sealed != next && sealed != 0 // another directory may have been there, with more in it
		if next == 0 {
			_, unchecked := v.unchecked[id]
			return moved || unchecked, nil
		}
		id = next
	}
	return true, nil
}
