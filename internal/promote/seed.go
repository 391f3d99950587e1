package promote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/shard"
	"slipway/internal/source"
	"slipway/internal/state"
	"slipway/internal/store"
)

// errNoSecret means: no batch that the tree was folded from holds the volume's secret, so that nothing could be told from new.
var errNoSecret = errors.New("no batch holds the volume's secret")

// Seed says what a primary's state is made from.
type Seed struct {
	State  state.Dir
	Volume state.Volume
	Source string        // directory with the files, as restored at Tree's moment
	Tree   *restore.Tree // of Head, whole or not
	Head   *batch.Batch  // the newest batch of the valid chain; the epoch behind its own begins
	Own    store.Store   // rooted at the volume; holds every batch from Head's base on
	Index  bool          // new content may refer to what the volume has: those who read it from now on can read that
}

// Seeded says how far what lies in the directory is the tree.
type Seeded struct {
	Files   int64    // of the tree, the same in the directory
	Differ  []string // in the directory, and not as in the tree: read again
	Missing []string // not in the directory: the next batch says that they are gone
}

// Make makes secret, identity and catalog. The catalog comes last, and is made anew by each call: as long as no
// batch of the new epoch is sealed, the same call again after a crash sets all of it right.
func (s *Seed) Make(ctx context.Context) (*Seeded, error) {
	secret := s.Tree.Secret()
	if secret == nil {
		return nil, fmt.Errorf("seed volume %s: %w", s.Volume.Name, errNoSecret)
	}
	if err := keys.SaveSecret(s.State.Secret(), *secret); err != nil {
		return nil, err
	}
	if err := s.identity(); err != nil {
		return nil, err
	}
	root, err := os.Open(s.Source)
	if err != nil {
		return nil, fmt.Errorf("seed volume %s: %w", s.Volume.Name, err)
	}
	defer func() { _ = root.Close() }() // only read
	// What the catalog calls sealed and unchanged must not be lost by a power cut after it.
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return nil, fmt.Errorf("sync %s: %w", s.Source, err)
	}
	r, err := s.catalog(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("seed catalog of volume %s: %w", s.Volume.Name, err)
	}
	return r, nil
}

func (s *Seed) identity() error {
	err := s.State.WriteVolume(s.Volume)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := s.State.ReadVolume()
	if err == nil && there.ID != s.Volume.ID {
		err = fmt.Errorf("state directory %s is of another volume, %s", s.State, there.ID)
	}
	return err
}

func (s *Seed) catalog(ctx context.Context, root *os.File) (*Seeded, error) {
	if err := os.Remove(s.State.Catalog()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	cat, err := catalog.Open(s.State.Catalog())
	if err != nil {
		return nil, err
	}
	w := &seeder{ctx: ctx, s: s, root: root, dirs: map[batch.FileID]place{}, seen: map[batch.FileID]bool{}, slots: map[chunk.ID]catalog.Location{}}
	defer w.leave()
	return &w.result, errors.Join(w.all(cat), cat.Close())
}

// step is how many entries one transaction writes: more would only take memory.
const step = 8192

// treeEntry is one of the tree's.
type treeEntry struct {
	parent batch.FileID
	name   string
	in     *batch.Inode
	err    error
}

// all fills the catalog, what makes it one last. A part of it is none: the next call begins with an empty file.
func (w *seeder) all(cat *catalog.Catalog) error {
	within := func(fn func() error) error {
		return cat.Update(func(tx *catalog.Tx) error { w.tx = tx; return fn() })
	}
	if err := within(w.history); err != nil {
		return err
	}
	var list []treeEntry
	if err := w.s.Tree.Each(func(parent batch.FileID, name string, in *batch.Inode, err error) error {
		list = append(list, treeEntry{parent, name, in, err})
		return nil
	}); err != nil {
		return err
	}
	for part := range slices.Chunk(list, step) {
		if err := within(func() error { return w.entries(part) }); err != nil {
			return err
		}
	}
	return within(func() error { return errors.Join(w.index(), w.meta()) })
}

func (w *seeder) entries(list []treeEntry) error {
	for i := range list {
		e := &list[i]
		if err := w.entry(e.parent, e.name, e.in, e.err); err != nil {
			return err
		}
	}
	return nil
}

// place is a directory of the tree as it lies in the source.
type place struct {
	path  string
	ident journal.Ident
}

type seeder struct {
	ctx    context.Context
	s      *Seed
	tx     *catalog.Tx
	root   *os.File
	dirs   map[batch.FileID]place
	seen   map[batch.FileID]bool
	slots  map[chunk.ID]catalog.Location
	max    batch.FileID
	at     *os.File // the directory at hand
	atID   batch.FileID
	result Seeded
}

// entry takes one entry of the tree, and its file when it is met first.
func (w *seeder) entry(parent batch.FileID, name string, in *batch.Inode, err error) error {
	if cerr := w.ctx.Err(); cerr != nil {
		return cerr
	}
	path := name
	if up := w.dirs[parent].path; up != "" {
		path = up + "/" + name
	}
	if err != nil {
		w.result.Missing = append(w.result.Missing, fmt.Sprintf("%s (%v)", path, err))
		return nil
	}
	ident, attr, err := w.look(parent, name, in)
	if err != nil {
		return err
	}
	if in.Mode&unix.S_IFMT == unix.S_IFDIR {
		w.dirs[in.ID] = place{path, ident}
	}
	if parent != 0 {
		if err := w.tx.PutEntry(parent, name, in.ID); err != nil {
			return err
		}
	}
	if w.seen[in.ID] {
		return nil
	}
	w.seen[in.ID], w.max = true, max(w.max, in.ID)
	return w.file(path, in, ident, attr)
}

// look returns what lies in the source for an entry; a zero identity: nothing, or nothing of its kind.
func (w *seeder) look(parent batch.FileID, name string, in *batch.Inode) (ident journal.Ident, attr journal.Attr, err error) {
	dir := w.root
	if parent != 0 {
		if w.dirs[parent].ident.IsZero() {
			return ident, attr, nil
		}
		if dir, err = w.enter(parent); err != nil {
			return ident, attr, err
		}
	}
	ident, attr, err = source.Stat(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && attr.Mode&unix.S_IFMT != in.Mode&unix.S_IFMT {
		return journal.Ident{}, journal.Attr{}, nil
	}
	return ident, attr, err
}

// enter opens a directory of the source, without following a link.
func (w *seeder) enter(id batch.FileID) (*os.File, error) {
	if w.at != nil && w.atID == id {
		return w.at, nil
	}
	w.leave()
	p := w.dirs[id]
	f, err := source.Open(w.root, p.path, unix.O_PATH|unix.O_DIRECTORY, p.ident)
	w.at, w.atID = f, id
	return f, err
}

func (w *seeder) leave() {
	if w.at != nil {
		_ = w.at.Close() // only looked from
		w.at = nil
	}
}

// file writes a file's record as the spooler would have left it had it sealed what lies there now. What differs gets a time that no
// file has, so that the comparison at the start reads it again.
func (w *seeder) file(path string, in *batch.Inode, ident journal.Ident, attr journal.Attr) error {
	rec := catalog.Inode{Inode: *in, Ident: ident, Seq: w.s.Head.Envelope.Last, Size: attr.Size, Ctime: attr.Ctime, Attr: attr}
	switch {
	case ident.IsZero():
		w.result.Missing = append(w.result.Missing, path)
	case same(in, &attr):
		w.result.Files++
	default:
		w.result.Differ = append(w.result.Differ, path)
		rec.Ctime, rec.Attr = 0, journal.Attr{Mode: attr.Mode}
	}
	if err := w.tx.PutInode(&rec); err != nil {
		return err
	}
	if !w.s.Index || in.Content == nil {
		return nil
	}
	return w.pieces(in.Content)
}

// same tells whether what lies there is what the record says, as far as can be told without reading it.
func same(in *batch.Inode, a *journal.Attr) bool {
	if in.Mode != a.Mode || in.UID != a.UID || in.GID != a.GID || in.Mtime != a.Mtime {
		return false
	}
	return in.Mode&unix.S_IFMT != unix.S_IFREG || in.Content != nil && in.Content.Clean && in.Content.Size == a.Size
}

// pieces notes where a file's chunks lie. A list of pieces that cannot be read costs its chunks being sealed again, some day.
func (w *seeder) pieces(c *batch.Content) error {
	note := func(p *batch.Piece) error {
		if w.slots[p.Chunk].Shard == (shard.Digest{}) {
			w.slots[p.Chunk] = catalog.Location{Shard: p.Shard, Slot: p.Slot}
		}
		return nil
	}
	for i := range c.Lists {
		if err := note(&c.Lists[i]); err != nil {
			return err
		}
	}
	if err := w.s.Tree.Content().Pieces(w.ctx, c, note); err != nil {
		return w.ctx.Err()
	}
	return nil
}

// index writes the chunks that lie in shards introduced since the base: no others may be referred to.
func (w *seeder) index() error {
	locs := make([]catalog.Location, 0, len(w.slots))
	for _, l := range w.slots {
		_, ok, err := w.tx.Shard(l.Shard)
		if err != nil {
			return err
		}
		if ok {
			locs = append(locs, l)
		}
	}
	return w.tx.PutChunks(locs)
}
