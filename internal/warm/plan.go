package warm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// pair is what an entry leads to, before and after; 0: it is not there.
type pair struct{ old, new batch.FileID }

// planner turns a change into a step and the new state of the catalog. It compares the tree as the catalog has it, of which
// every entry is reachable, with the tree after the change.
type planner struct {
	t      *Tree
	tx     *catalog.Tx
	change *change
	unread map[batch.FileID]string // files that could not be made, and why
	dirs   *dirs

	diff     map[name]pair
	placed   map[batch.FileID]name // directories that get an entry
	reaches  map[batch.FileID]bool
	lost     map[batch.FileID]bool // directories that were left without a way to them
	gone     map[batch.FileID][]name
	come     map[batch.FileID][]name
	removed  []move // directories to remove
	step     *step
	puts     map[batch.FileID]*catalog.Inode
	deletes  []batch.FileID
	lacks    map[batch.FileID]string // what is not made, and why; "": not a lack any more
	touchers map[batch.FileID]bool
}

// plan makes the step. errFull: the change does not fit the tree. *lostError: a directory is not there.
func (t *Tree) plan(tx *catalog.Tx, c *change, unread map[batch.FileID]string) (*planner, error) {
	p := &planner{
		t: t, tx: tx, change: c, unread: unread, dirs: t.handles(nil),
		diff: make(map[name]pair), placed: make(map[batch.FileID]name), lost: make(map[batch.FileID]bool),
		reaches: map[batch.FileID]bool{batch.Root: true},
		gone:    make(map[batch.FileID][]name), come: make(map[batch.FileID][]name),
		puts: make(map[batch.FileID]*catalog.Inode), lacks: make(map[batch.FileID]string),
		touchers: make(map[batch.FileID]bool), step: &step{NoRoot: c.noRoot},
	}
	defer p.dirs.close()
	for _, part := range []func() error{p.compare, p.place, p.sort, p.lose, p.files, p.parents, p.order} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// record returns a file as it is to be; nil: nothing is known of it.
func (p *planner) record(id batch.FileID) (*batch.Inode, error) {
	if in := p.change.inodes[id]; in != nil {
		return in, nil
	}
	in, ok, err := p.tx.Inode(id)
	if err != nil || !ok {
		return nil, err
	}
	return &in.Inode, nil
}

// compare finds the entries that change.
func (p *planner) compare() error {
	for k, id := range p.change.entries {
		old, _, err := p.tx.Lookup(k.Parent, k.Name)
		if err != nil {
			return err
		}
		if old != id {
			p.diff[k] = pair{old, id}
		}
	}
	return nil
}

// place notes where directories come, and refuses what cannot be judged from the change alone.
func (p *planner) place() error {
	for k, d := range p.diff {
		if d.new == 0 {
			continue
		}
		in, err := p.record(d.new)
		if err != nil {
			return err
		}
		if in == nil || len(k.Name) > maxName {
			return fmt.Errorf("%w: entry %q of directory %d", errFull, k.Name, k.Parent)
		}
		if !isDir(in) {
			continue
		}
		if _, twice := p.placed[d.new]; twice {
			return fmt.Errorf("%w: directory %d has two names", errFull, d.new)
		}
		p.placed[d.new] = k
	}
	for id := range p.placed {
		if old, ok, err := p.stays(id); err != nil || ok {
			return cmp.Or(err, fmt.Errorf("%w: directory %d is in %d as well", errFull, id, old.Parent))
		}
	}
	return nil
}

// stays returns a directory's entry in the tree if the change leaves it alone.
func (p *planner) stays(id batch.FileID) (name, bool, error) {
	list, err := namesOf(p.tx, id)
	if err != nil || len(list) == 0 {
		return name{}, false, err
	}
	d, changes := p.diff[list[0]]
	return list[0], !changes || d.new == id, nil
}

// reach tells whether a directory is part of the new tree.
func (p *planner) reach(id batch.FileID) (bool, error) {
	if r, known := p.reaches[id]; known {
		return r, nil
	}
	p.reaches[id] = false // a directory below itself is reached from nowhere
	in, err := p.record(id)
	if err != nil || in == nil || !isDir(in) {
		return false, err
	}
	at, ok := p.placed[id]
	if !ok {
		if at, ok, err = p.stays(id); err != nil || !ok {
			return false, err
		}
	}
	r, err := p.reach(at.Parent)
	p.reaches[id] = r
	return r, err
}

// sort collects the names that files lose and get.
func (p *planner) sort() error {
	for k, d := range p.diff {
		if d.old != 0 {
			p.gone[d.old] = append(p.gone[d.old], k)
		}
		if d.new == 0 {
			continue
		}
		r, err := p.reach(k.Parent)
		if err != nil {
			return err
		}
		if r {
			p.come[d.new] = append(p.come[d.new], k)
		} else {
			p.change.omitted = p.change.omitted || !p.change.full // it may come into reach later
		}
	}
	return nil
}

// lose collects what lies below directories that are no longer part of the tree: it goes without being named.
func (p *planner) lose() error {
	var todo []batch.FileID
	for id := range p.gone {
		todo = append(todo, id)
	}
	for id := range p.change.inodes {
		todo = append(todo, id) // may be a directory no longer
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		in, ok, err := p.tx.Inode(id)
		if err != nil || !ok || !isDir(&in.Inode) || p.lost[id] {
			if err != nil {
				return err
			}
			continue
		}
		if r, err := p.reach(id); err != nil || r {
			if err != nil {
				return err
			}
			continue
		}
		p.lost[id] = true
		err = p.tx.Entries(id, func(n string, child batch.FileID) error {
			k := name{id, n}
			if _, named := p.diff[k]; !named {
				p.gone[child] = append(p.gone[child], k)
				p.diff[k] = pair{old: child}
			}
			todo = append(todo, child)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// files decides about every file that the change touches.
func (p *planner) files() error {
	ids := make(map[batch.FileID]bool)
	for id := range p.change.inodes {
		ids[id] = true
	}
	for _, m := range []map[batch.FileID][]name{p.gone, p.come} {
		for id := range m {
			ids[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		f, err := p.file(id)
		if err != nil {
			return err
		}
		if err := f.decide(); err != nil {
			return err
		}
	}
	return nil
}

// parents notes the directories whose times the step moves, and checks that they are there.
func (p *planner) parents() error {
	all := make(map[batch.FileID]bool)
	for _, list := range [][]move{p.step.Detach, p.step.Attach, p.removed} {
		for i := range list {
			all[list[i].At.Parent] = true
		}
	}
	for id := range all {
		in, ok, err := p.tx.Inode(id)
		if err != nil {
			return err
		}
		if ok && isDir(&in.Inode) && !in.Ident.IsZero() {
			if err := p.dirs.check(id); err != nil {
				return err
			}
		}
		if r, err := p.reach(id); err != nil || !r {
			if err != nil {
				return err
			}
			continue
		}
		p.touchers[id] = true
	}
	if !p.step.empty() || len(p.removed) > 0 {
		p.touchers[batch.Root] = true // the staging directory comes and goes
	}
	for i := range p.step.Attr {
		delete(p.touchers, p.step.Attr[i].ID)
	}
	for id := range p.touchers {
		p.step.Attr = append(p.step.Attr, attr{ID: id})
	}
	return nil
}

// order puts the directories to remove behind everything else that goes, the deepest first.
func (p *planner) order() error {
	depth := make(map[batch.FileID]int)
	for i := range p.removed {
		id := p.removed[i].ID
		for at := id; at != batch.Root && depth[id] < maxDepth; depth[id]++ {
			list, err := namesOf(p.tx, at)
			if err != nil || len(list) == 0 {
				return err
			}
			at = list[0].Parent
		}
	}
	slices.SortStableFunc(p.removed, func(a, b move) int { return cmp.Compare(depth[b.ID], depth[a.ID]) })
	p.step.Detach = append(p.step.Detach, p.removed...)
	p.arrange()
	return nil
}

// arrange puts new files into the order in which their content lies in shards.
func (p *planner) arrange() {
	rank := make(map[batch.FileID]int)
	shards := make(map[[32]byte]int)
	offset := make(map[batch.FileID]int64)
	for _, id := range p.step.Make {
		in := p.puts[id]
		if first := firstPiece(&in.Inode); first != nil {
			if _, known := shards[first.Shard]; !known {
				shards[first.Shard] = len(shards) + 1
			}
			rank[id], offset[id] = shards[first.Shard], first.Offset+first.In
		}
	}
	slices.SortStableFunc(p.step.Make, func(a, b batch.FileID) int {
		return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(offset[a], offset[b]))
	})
}

// commit writes the new tree into the catalog, with the step that Dir still needs.
func (p *planner) commit(tx *catalog.Tx, stage string) error {
	for k, d := range p.diff {
		if d.old != 0 {
			if err := tx.DeleteEntry(k.Parent, k.Name); err != nil {
				return err
			}
		}
	}
	for id, list := range p.come {
		for _, k := range list {
			if err := tx.PutEntry(k.Parent, k.Name, id); err != nil {
				return err
			}
		}
	}
	for _, id := range p.deletes {
		if err := tx.DeleteInode(id); err != nil {
			return err
		}
	}
	for _, in := range p.puts {
		if err := tx.PutInode(in); err != nil {
			return err
		}
	}
	for id, why := range p.lacks {
		err := tx.DeletePending(id)
		if why != "" {
			err = tx.PutPending(id, catalog.Pending{Reason: why})
		}
		if err != nil {
			return err
		}
	}
	m := p.meta()
	m.HeadTemp = stage
	return tx.SetMeta(m)
}

func (p *planner) meta() catalog.Meta {
	e := &p.change.batch.Envelope
	m := catalog.Meta{
		VolumeID: e.VolumeID, Epoch: e.Epoch, Head: e.Last, HeadDigest: p.change.batch.Digest, SealedAt: e.SealedAt,
		Complete: !p.change.omitted,
	}
	if e.StandsFor != nil { // the name that the next batch knows it by
		m.HeadDigest = *e.StandsFor
	}
	return m
}

func firstPiece(in *batch.Inode) *batch.Piece {
	if in.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return contentStart(in)
}
