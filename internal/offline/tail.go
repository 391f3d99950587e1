package offline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/internal/state"
)

// place is where the journal last put an object: a name in a directory.
type place struct {
	parent journal.Ident
	name   string
}

// tail is what the journal says beyond the catalog.
type tail struct {
	tx     *catalog.Tx // nil: there is no catalog
	root   journal.Ident
	places map[journal.Ident][]place // the names that the journal gave it and that it still has, the newest last
	rows   map[journal.Ident]*control.PendingRow
	gap    bool
	why    string // nothing is sealed
}

// Pending lists the files that the catalog or the journal behind it calls pending. After a gap it may miss some: only the
// walk of the next start finds those. Behind them is what is left out and never becomes pending.
func (v *Volume) Pending(ctx context.Context, limit int) ([]control.PendingRow, error) {
	rows, err := v.pending()
	if err != nil {
		return nil, err
	}
	if limit > 0 && len(rows) >= limit {
		return rows[:limit], nil
	}
	left, err := v.left.Pending(ctx, max(0, limit-len(rows)))
	return append(rows, left...), err
}

// pending lists the pending files, the oldest first.
func (v *Volume) pending() ([]control.PendingRow, error) {
	var rows []control.PendingRow
	err := v.withTail(func(t *tail) (err error) {
		rows, err = t.list()
		return err
	})
	if err != nil {
		return nil, err
	}
	// The journal has the changes of what is left out, too.
	rows = slices.DeleteFunc(rows, func(r control.PendingRow) bool { return v.left.Matches(r.Path) })
	sort.Slice(rows, func(i, j int) bool { return rows[i].Since.Before(rows[j].Since) })
	return rows, nil
}

// withTail runs fn with the catalog and the journal's tail read; again, from nothing, if the spooler commits meanwhile.
func (v *Volume) withTail(fn func(*tail) error) error {
	dir := state.Dir(v.cfg.State).Journal()
	t := func(tx *catalog.Tx) *tail {
		return &tail{tx: tx, why: words(v.daemon), places: map[journal.Ident][]place{}, rows: map[journal.Ident]*control.PendingRow{}}
	}
	if v.cat == nil {
		t := t(nil)
		if err := t.read(dir, journal.Position{}); err != nil {
			return err
		}
		return fn(t)
	}
	return v.cat.View(func(tx *catalog.Tx) error {
		t := t(tx)
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		if in, ok, err := tx.Inode(batch.Root); err != nil {
			return err
		} else if ok {
			t.root = in.Ident
		}
		if err := t.read(dir, m.Position); err != nil {
			return err
		}
		return fn(t)
	})
}

// read folds the journal from a position on.
func (t *tail) read(dir string, from journal.Position) error {
	r, err := journal.OpenReader(dir, from)
	if errors.Is(err, journal.ErrLost) {
		t.gap = true
		r, err = journal.OpenReader(dir, journal.Position{})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = r.Close() }()
	for {
		rec, _, err := r.Next()
		if errors.Is(err, journal.ErrWait) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		t.fold(&rec)
	}
}

func (t *tail) fold(r *journal.Record) {
	switch r.Op {
	case journal.OpStart:
		t.root, t.gap = r.Node, true
	case journal.OpGap:
		t.gap = true
	case journal.OpCreate:
		t.name(r.Node, place{r.Parent, r.Name})
		t.mark(r, "new")
	case journal.OpLink:
		t.name(r.Node, place{r.Parent, r.Name})
	case journal.OpRename:
		if r.Flags&journal.FlagExchange != 0 {
			t.unname(r.Other, place{r.NewParent, r.NewName})
			t.name(r.Other, place{r.Parent, r.Name})
		} else if r.OtherAttr.Nlink == 0 {
			delete(t.rows, r.Other)
		}
		t.unname(r.Node, place{r.Parent, r.Name})
		t.name(r.Node, place{r.NewParent, r.NewName})
	case journal.OpUnlink:
		t.unname(r.Node, place{r.Parent, r.Name})
		if r.Attr.Nlink == 0 {
			delete(t.rows, r.Node)
		}
	case journal.OpOpen:
		t.mark(r, "open").Writers++
	case journal.OpRelease:
		if row := t.mark(r, "written"); row.Writers > 0 {
			row.Writers--
		}
	case journal.OpTruncate, journal.OpData:
		t.mark(r, "written")
	}
}

func (t *tail) name(i journal.Ident, p place) { t.places[i] = append(t.places[i], p) }

func (t *tail) unname(i journal.Ident, p place) {
	t.places[i] = slices.DeleteFunc(t.places[i], func(have place) bool { return have == p })
}

// placed returns the name that the journal gave an object last.
func (t *tail) placed(i journal.Ident) (p place, ok bool) {
	list := t.places[i]
	if len(list) == 0 {
		return p, false
	}
	return list[len(list)-1], true
}

// mark makes a file pending.
func (t *tail) mark(r *journal.Record, word string) *control.PendingRow {
	row := t.rows[r.Node]
	if row == nil {
		row = &control.PendingRow{State: word, Since: time.Unix(0, r.Time)}
		if !isDir(r.Attr.Mode) {
			t.rows[r.Node] = row
		}
	}
	row.Bytes = r.Attr.Size
	if row.State != "new" {
		row.State = word
	}
	return row
}

// list joins what the catalog calls pending with what the journal adds.
func (t *tail) list() ([]control.PendingRow, error) {
	rows := []control.PendingRow{}
	seen := map[batch.FileID]bool{}
	for ident, row := range t.rows {
		row.Path = t.pathOf(ident, 0)
		row.Why = t.why
		rows = append(rows, *row)
		if id, ok := t.id(ident); ok {
			seen[id] = true
		}
	}
	if t.tx == nil {
		return rows, nil
	}
	err := t.tx.EachPending(func(id batch.FileID, p catalog.Pending) error {
		if seen[id] {
			return nil
		}
		in, _, err := t.tx.Inode(id)
		if err != nil {
			return err
		}
		rows = append(rows, control.PendingRow{
			Path: t.climb(id, 0), State: p.Reason, Since: p.Since, Bytes: max(p.Bytes, in.Attr.Size), Writers: p.Writers,
			Why: t.why,
		})
		return nil
	})
	return rows, err
}

func (t *tail) id(i journal.Ident) (batch.FileID, bool) {
	if t.tx == nil {
		return 0, false
	}
	id, ok, err := t.tx.ByIdent(i)
	return id, ok && err == nil
}

// deepest bounds climbing, should the links of a damaged tree form a ring.
const deepest = 1 << 16

// pathOf returns a path of an object, "?" in front where its beginning is not known.
func (t *tail) pathOf(i journal.Ident, depth int) string {
	if i == t.root || depth > deepest {
		return ""
	}
	if p, ok := t.placed(i); ok {
		return path.Join(t.pathOf(p.parent, depth+1), p.name)
	}
	if id, ok := t.id(i); ok {
		return t.climb(id, depth)
	}
	return "?"
}

// climb returns a path of a sealed file. A directory that the journal moved since counts where it is now.
func (t *tail) climb(id batch.FileID, depth int) string {
	if id == batch.Root || depth > deepest {
		return ""
	}
	if in, ok, err := t.tx.Inode(id); err == nil && ok {
		if p, moved := t.placed(in.Ident); moved {
			return path.Join(t.pathOf(p.parent, depth+1), p.name)
		}
	}
	found := "?"
	_ = t.tx.Names(id, func(parent batch.FileID, name string) error {
		if found == "?" {
			found = path.Join(t.climb(parent, depth+1), name)
		}
		return nil
	})
	return found
}

func isDir(mode uint32) bool { return mode&0o170000 == 0o040000 }

// nothing says why nothing is sealed, or pushed.
func (v *Volume) nothing(done string) string {
	if v.daemon == control.Dead {
		return words(v.daemon) + ": nothing is " + done + " until `slipway mount` runs"
	}
	return words(v.daemon) + ": nothing is " + done + " unless it goes on"
}

// Explain tells where a path stands, by what was last sealed and what the journal adds.
func (v *Volume) Explain(_ context.Context, name string) (control.Explained, error) {
	name = clean(name)
	e := control.Explained{Path: name, Stage: control.Pending.String()}
	if x, _ := v.left.At(name); x.State != "" {
		e.WaitingFor = x.Why
		return e, nil
	}
	err := v.withTail(func(t *tail) error {
		e = control.Explained{Path: name, Stage: control.Pending.String()}
		rows, err := t.list()
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Path == name {
				e.WaitingFor = v.nothing("sealed")
				return nil
			}
		}
		if t.tx == nil {
			return errNothing
		}
		in, err := find(t.tx, name)
		if err != nil {
			return err
		}
		stage, stores := v.stage(uint64(in.Seq))
		e.Stores = stores
		e.Stage, e.Batch, e.Copies = stage.String(), uint64(in.Seq), copiesOf(v.last.Stores, uint64(in.Seq))
		if stage < control.Stored {
			e.WaitingFor = v.nothing("pushed")
		}
		return nil
	})
	return e, err
}
