package tree

import (
	"fmt"
	"slices"
	"strings"

	"slipway/internal/batch"
)

// Path returns one path of a file, relative to the volume ("" for its root); false while no name leads there from the root.
func (t *Tree) Path(id batch.FileID) (string, bool, error) {
	var parts []string
	var dir batch.FileID // the file's own
	for depth := 0; id != batch.Root; depth++ {
		if known, ok := t.dirs[id]; ok {
			parts = append(parts, known)
			break
		}
		names, err := t.NamesOf(id)
		if err != nil {
			return "", false, err
		}
		if len(names) == 0 || depth > maxDepth {
			return "", false, nil
		}
		first := slices.MinFunc(names, func(a, b Key) int {
			return strings.Compare(a.Name, b.Name)
		})
		parts = append(parts, first.Name)
		id = first.Parent
		if depth == 0 {
			dir = id
		}
	}
	slices.Reverse(parts)
	if t.dirs != nil && dir != 0 && dir != batch.Root {
		t.dirs[dir] = strings.Join(parts[:len(parts)-1], "/")
	}
	return strings.Join(parts, "/"), true, nil
}

// ManyPaths runs fn, which asks for paths and changes no name: those of directories are found once.
func (t *Tree) ManyPaths(fn func() error) error {
	t.dirs = map[batch.FileID]string{}
	defer func() { t.dirs = nil }()
	return fn()
}

// maxDepth bounds a walk upwards: a damaged catalog may hold a circle.
const maxDepth = 1 << 16

// Find returns the file at a path.
func (t *Tree) Find(path string) (batch.FileID, bool, error) {
	id := batch.Root
	for part := range strings.SplitSeq(path, "/") {
		if part == "" {
			continue
		}
		next, err := t.Lookup(id, part)
		if err != nil || next == 0 {
			return 0, false, err
		}
		id = next
	}
	return id, true, nil
}

// Below tells whether one of a file's names lies at or below dir.
func (t *Tree) Below(id, dir batch.FileID) (bool, error) {
	if dir == batch.Root && id != batch.Root { // what has lost its last name, or its directory, is dropped
		names, err := t.NamesOf(id)
		return len(names) > 0, err
	}
	for depth := 0; depth < maxDepth; depth++ {
		if id == dir {
			return true, nil
		}
		if id == batch.Root {
			return false, nil
		}
		names, err := t.NamesOf(id)
		if err != nil {
			return false, err
		}
		switch len(names) {
		case 0:
			return false, nil
		case 1:
			id = names[0].Parent
		default:
			for _, n := range names {
				if ok, err := t.Below(n.Parent, dir); ok || err != nil {
					return ok, err
				}
			}
			return false, nil
		}
	}
	return false, fmt.Errorf("find directory %d above file %d: the catalog has a circle", dir, id)
}
