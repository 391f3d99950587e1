package restore

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"slipway/internal/batch"
	"slipway/internal/restore/object"
	"slipway/internal/shard"
)

// dir is a directory to restore into.
type dir struct {
	parent *dir // nil: the target itself
	name   string
	inode  *batch.Inode
	chosen bool // asked for; otherwise only on the way to something that was

	// set while the directories are made, read afterwards
	state   dirState
	dev     uint64
	ino     uint64
	existed bool
}

type dirState int

const (
	dirThere  dirState = iota
	dirAbsent          // not there, in a dry run
	dirFailed          // nothing below it can be restored
)

func (d *dir) path() string {
	var names []string
	for ; d.parent != nil; d = d.parent {
		names = append(names, d.name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// place is a name for a file.
type place struct {
	dir  *dir
	name string
}

func (p place) path() string { return join(p.dir.path(), p.name) }

// file is anything but a directory, with all its names that were asked for.
type file struct {
	inode  *batch.Inode
	places []place
}

// plan is what a restore has to do.
type plan struct {
	dirs   []*dir  // a directory before what is in it; the first is the target
	files  []*file // in the order in which their content lies in shards
	failed []Failure
	total  int64 // bytes of content

	byID map[batch.FileID]*file // files with several names
	seen map[batch.FileID]*dir
}

func (t *Tree) plan(paths []string) (*plan, error) {
	root := &dir{inode: t.inodes[batch.Root]}
	p := &plan{
		dirs: []*dir{root}, byID: make(map[batch.FileID]*file),
		seen: map[batch.FileID]*dir{batch.Root: root},
	}
	chosen, err := choose(paths)
	if err != nil {
		return nil, err
	}
	for _, names := range chosen {
		if err := p.add(t, root, names); err != nil {
			return nil, err
		}
	}
	p.sort()
	return p, nil
}

// choose cuts the paths into names and leaves out what lies below another of them. No path: everything.
func choose(paths []string) ([][]string, error) {
	if len(paths) == 0 {
		return [][]string{nil}, nil
	}
	var all [][]string
	for _, path := range paths {
		names, err := split(path)
		if err != nil {
			return nil, err
		}
		all = append(all, names)
	}
	slices.SortFunc(all, slices.Compare)
	var chosen [][]string
	for _, names := range all {
		if n := len(chosen); n > 0 && len(chosen[n-1]) <= len(names) && slices.Equal(chosen[n-1], names[:len(chosen[n-1])]) {
			continue
		}
		chosen = append(chosen, names)
	}
	return chosen, nil
}

// add plans what lies at the end of names.
func (p *plan) add(t *Tree, at *dir, names []string) error {
	for i, n := range names {
		in, ok := t.step(at.inode.ID, n)
		if !ok || i < len(names)-1 && !isDir(in) {
			return fmt.Errorf("restore %q: %w", strings.Join(names, "/"), ErrNotFound)
		}
		if err := checkName(n); err != nil {
			return fmt.Errorf("restore %q: %w", strings.Join(names, "/"), err)
		}
		if !isDir(in) {
			p.addFile(t, in, place{at, n})
			return nil
		}
		next := p.seen[in.ID]
		if next == nil {
			next = p.addDir(in, at, n)
		} else if next.parent != at || next.name != n {
			return fmt.Errorf("restore %q: %w", strings.Join(names, "/"), ErrLoop)
		}
		at = next
	}
	p.below(t, at, len(names))
	return nil
}

func (p *plan) addDir(in *batch.Inode, parent *dir, name string) *dir {
	d := &dir{parent: parent, name: name, inode: in}
	p.seen[in.ID] = d
	p.dirs = append(p.dirs, d)
	return d
}

// below plans everything in a directory.
func (p *plan) below(t *Tree, at *dir, depth int) {
	at.chosen = true
	for _, c := range t.children[at.inode.ID] {
		in := t.inodes[c.id]
		err := checkName(c.name)
		switch {
		case err == nil && in == nil:
			err = ErrRecord
		case err == nil && isDir(in) && p.seen[c.id] != nil:
			err = ErrLoop
		case err == nil && depth == maxDepth:
			err = ErrDepth
		}
		switch {
		case err != nil:
			p.fail(place{at, c.name}, err)
		case isDir(in):
			p.below(t, p.addDir(in, at, c.name), depth+1)
		default:
			p.addFile(t, in, place{at, c.name})
		}
	}
}

func (p *plan) addFile(t *Tree, in *batch.Inode, at place) {
	if isReg(in) && in.Content == nil {
		p.fail(at, ErrPending)
		return
	}
	if f := p.byID[in.ID]; f != nil {
		f.places = append(f.places, at)
		return
	}
	f := &file{inode: in, places: []place{at}}
	p.files = append(p.files, f)
	if t.links[in.ID] > 1 {
		p.byID[in.ID] = f
	}
	p.total += f.data()
}

func (p *plan) fail(at place, err error) { p.failed = append(p.failed, Failure{at.path(), err}) }

func (f *file) content() *batch.Content {
	if !isReg(f.inode) {
		return nil
	}
	c, _, _ := object.Content(f.inode)
	return c
}

func (f *file) data() int64 { return dataSize(f.content()) }

// first returns where a file's content begins.
func (f *file) first() *batch.Piece {
	c := f.content()
	switch {
	case c == nil:
		return nil
	case len(c.Pieces) > 0:
		return &c.Pieces[0]
	case len(c.Lists) > 0:
		return &c.Lists[0]
	}
	return nil
}

// groups cuts the files into runs for one worker each: small files of one directory that follow one another. Two workers in
// one directory would spend their time waiting for its lock in the kernel.
func (p *plan) groups() iter.Seq[[]*file] {
	const most = 1 << 20 // bytes of content
	return func(yield func([]*file) bool) {
		for from := 0; from < len(p.files); {
			to, bytes := from+1, p.files[from].data()
			for to < len(p.files) && p.files[to].places[0].dir == p.files[from].places[0].dir && bytes < most {
				bytes += p.files[to].data()
				to++
			}
			if !yield(p.files[from:to]) {
				return
			}
			from = to
		}
	}
}

// sort puts the files of one shard together, in the order in which they lie in it, so that a shard is fetched once and a
// frame decompressed once. Shards come in the order in which the tree first needs them.
func (p *plan) sort() {
	rank := make(map[shard.Digest]int)
	for _, f := range p.files {
		if first := f.first(); first != nil {
			if _, ok := rank[first.Shard]; !ok {
				rank[first.Shard] = len(rank)
			}
		}
	}
	slices.SortStableFunc(p.files, func(a, b *file) int {
		x, y := a.first(), b.first()
		switch {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return -1
		case y == nil:
			return 1
		}
		return cmp.Or(cmp.Compare(rank[x.Shard], rank[y.Shard]), cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.In, y.In))
	})
}
