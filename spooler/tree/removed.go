package tree

import (
	"strings"

	"slipway/internal/batch"
)

// removedMax bounds how many names are remembered.
const removedMax = 16 << 10

// removedSet remembers the names that last ceased to lead where they led, so that a barrier for a file removed just before knows it
// from one that never was. It is lost with the process, and needed only once the removal is sealed: until then the catalog knows.
type removedSet struct {
	keys map[Key]struct{}
	ring []Key
	next int
}

func (r *removedSet) add(k Key) {
	if _, there := r.keys[k]; there {
		return
	}
	if r.keys == nil {
		r.keys = map[Key]struct{}{}
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

// Knew tells whether something lies at a path or did: now, when it was last sealed, or since the process started. What may lie in a
// directory that unseen names is not denied.
func (t *Tree) Knew(path string, unseen func(dir batch.FileID) bool) (bool, error) {
	id, moved := batch.Root, false
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, err := t.Lookup(id, name)
		if err != nil {
			return false, err
		}
		sealed, _, err := t.tx.Lookup(id, name)
		if err != nil {
			return false, err
		}
		_, removed := t.removed.keys[Key{id, name}]
		moved = moved || removed || sealed != next && sealed != 0 // another directory may have been there, with more in it
		if next == 0 {
			return moved || unseen(id), nil
		}
		id = next
	}
	return true, nil
}
