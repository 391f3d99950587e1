package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/content"
	"slipway/internal/restore/object"
)

// Tree is the volume at one moment, folded from its batches. Safe for concurrent use once loaded.
type Tree struct {
	Head
	Incomplete []string // what is not whole, for people; none: the tree is as it was
	Notes      []string // what else to say about the choice of the moment

	Batch *batch.Batch // the newest of those that it was folded from

	line     *chain.Line
	content  *content.Reader
	secret   *chunk.Secret
	inodes   map[batch.FileID]*batch.Inode
	children map[batch.FileID][]child // sorted by name
	noRoot   bool                     // nothing is known of the root's own attributes
	links    map[batch.FileID]int     // names of a file that has several
}

type child struct {
	name string
	id   batch.FileID
}

// Faults returns the damage met in the stores so far. What is listed was read from another store, unless an error or a
// failure says otherwise.
func (t *Tree) Faults() []Fault { return t.line.Faults() }

// Load reads the chain and folds it. It says in the tree's Incomplete what is not whole.
func Load(ctx context.Context, src Source, at At) (*Tree, error) {
	line, err := chain.Open(ctx, src)
	if err != nil {
		return nil, err
	}
	return FromLine(ctx, line, at)
}

// FromLine is Load for a line that is open already.
func FromLine(ctx context.Context, line *chain.Line, at At) (*Tree, error) {
	var holes []string
	for limit := len(line.Slots); ; {
		c, err := line.Choose(ctx, at, limit)
		if err != nil {
			if len(holes) > 0 {
				err = fmt.Errorf("%w (%s)", err, strings.Join(holes, "; "))
			}
			return nil, err
		}
		t, err := fold(ctx, line, c)
		var hole *chain.HoleError
		if errors.As(err, &hole) {
			limit = min(hole.Limit, limit-1)
			holes = append(holes, hole.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read batch %d: %w", c.Batch.Envelope.Last, err)
		}
		t.say(c, holes)
		return t, nil
	}
}

// say puts into words what is not as asked for.
func (t *Tree) say(c chain.Choice, holes []string) {
	for _, h := range holes {
		t.Incomplete = append(t.Incomplete, fmt.Sprintf("newer batches than %d cannot be used: %s", t.Seq, h))
	}
	if c.Whole {
		t.Notes = c.Notes
	} else {
		t.Incomplete = append(t.Incomplete, c.Notes...)
	}
	if n := len(t.line.Side); n > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("%d batches lie beside the line of this volume's owners and are not used", n))
	}
}

type entryKey struct {
	parent batch.FileID
	name   string
}

// fold applies the batches from the newest back. Records are states, so the first one met of an entry or inode is the one
// that holds, and a full batch ends the search.
func fold(ctx context.Context, line *chain.Line, c chain.Choice) (*Tree, error) {
	e := &c.Batch.Envelope
	t := &Tree{
		Head:  Head{e.Volume, line.VolumeID.String(), e.Node, uint32(e.Epoch), uint64(e.Last), e.SealedAt},
		Batch: c.Batch, line: line, inodes: make(map[batch.FileID]*batch.Inode), children: make(map[batch.FileID][]child),
		links: make(map[batch.FileID]int),
	}
	var secret *chunk.Secret
	entries := make(map[entryKey]batch.FileID)
	err := line.Back(ctx, c, func(_ *batch.Envelope, body *batch.Body) (bool, error) {
		if secret == nil {
			secret = body.Secret
		}
		for i := range body.Entries {
			k := entryKey{body.Entries[i].Parent, body.Entries[i].Name}
			if _, newer := entries[k]; !newer {
				entries[k] = body.Entries[i].ID
			}
		}
		for i := range body.Inodes {
			if in := &body.Inodes[i]; t.inodes[in.ID] == nil {
				own := *in // not a part of the body's array, which would stay in memory for one inode of it
				t.inodes[in.ID] = &own
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	var keys *chunk.Keys
	if secret != nil {
		k := chunk.DeriveKeys(*secret)
		keys = &k
	}
	t.content, t.secret = content.NewReader(line.Reader, keys), secret
	t.grow(entries)
	return t, nil
}

// grow turns the entries into directories.
func (t *Tree) grow(entries map[entryKey]batch.FileID) {
	for k, id := range entries {
		if id == 0 {
			continue
		}
		t.children[k.parent] = append(t.children[k.parent], child{k.name, id})
		if in := t.inodes[id]; in != nil && !isDir(in) {
			t.links[id]++
		}
	}
	for id, n := range t.links {
		if n < 2 {
			delete(t.links, id)
		}
	}
	for _, list := range t.children {
		slices.SortFunc(list, func(a, b child) int { return strings.Compare(a.name, b.name) })
	}
	if t.inodes[batch.Root] == nil { // a batch from before the root was looked at
		t.noRoot = true
		t.inodes[batch.Root] = &batch.Inode{ID: batch.Root, Mode: unix.S_IFDIR | 0o755}
	}
}

func isDir(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFDIR }
func isReg(in *batch.Inode) bool { return in.Mode&unix.S_IFMT == unix.S_IFREG }

// maxDepth bounds how deep directories may nest: far beyond what anybody has, far below what a stack takes.
const maxDepth = 10000

// Errors about single paths.
var (
	ErrNotFound = errors.New("not in the volume at that moment")
	ErrPath     = errors.New("not a path inside the volume")
	ErrName     = errors.New("not a name that a file can have")
	ErrRecord   = object.ErrRecord
	ErrLoop     = errors.New("directory is in the tree twice")
	ErrDepth    = errors.New("directories are nested too deep")
	ErrPending  = errors.New("its content was not sealed yet")
	ErrIsDir    = errors.New("is a directory")
)

// split cuts a path given by the user into names.
func split(path string) ([]string, error) {
	var names []string
	for n := range strings.SplitSeq(path, "/") {
		switch n {
		case "", ".":
		case "..":
			return nil, fmt.Errorf("path %q: %w", path, ErrPath)
		default:
			names = append(names, n)
		}
	}
	return names, nil
}

// checkName refuses what would lead anywhere else than one step down. The batch's decoder refuses it as well.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return ErrName
	}
	return nil
}

// step returns the inode of a name in a directory.
func (t *Tree) step(dir batch.FileID, name string) (*batch.Inode, bool) {
	list := t.children[dir]
	i, ok := slices.BinarySearchFunc(list, name, func(c child, n string) int { return strings.Compare(c.name, n) })
	if !ok || t.inodes[list[i].id] == nil {
		return nil, false
	}
	return t.inodes[list[i].id], true
}

// lookup follows names from the root.
func (t *Tree) lookup(names []string) (*batch.Inode, error) {
	in := t.inodes[batch.Root]
	for _, n := range names {
		next, ok := t.step(in.ID, n)
		if !ok || !isDir(in) {
			return nil, fmt.Errorf("%q: %w", strings.Join(names, "/"), ErrNotFound)
		}
		in = next
	}
	return in, nil
}

// dataSize is the number of bytes of a file that are stored.
func dataSize(c *batch.Content) int64 {
	if c == nil {
		return 0
	}
	n := c.Size
	for _, h := range c.Holes {
		n -= h.Len
	}
	return n
}
