package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/shard"
)

func TestIdentLeadsToTheLastFileThatHadIt(t *testing.T) {
	c := openTemp(t)
	one, two := journal.Ident{FS: 1, Ino: 1}, journal.Ident{FS: 1, Ino: 2}
	put := func(tx *Tx, id batch.FileID, i journal.Ident) error {
		in := testInode(id)
		in.Ident = i
		return tx.PutInode(in)
	}
	leads := func(tx *Tx, i journal.Ident, want batch.FileID) {
		t.Helper()
		got, ok, err := tx.ByIdent(i)
		if got != want || ok != (want != 0) || err != nil {
			t.Errorf("%v leads to %d, %v, want %d", i, got, err, want)
		}
	}
	for _, split := range []bool{false, true} { // in one transaction, and each step in one of its own
		run := func(fn func(tx *Tx) error) { update(t, c, fn) }
		if !split {
			run = func(fn func(tx *Tx) error) { update(t, c, fn); update(t, c, func(*Tx) error { return nil }) }
		}
		run(func(tx *Tx) error { return put(tx, 5, one) })
		run(func(tx *Tx) error { leads(tx, one, 5); return put(tx, 6, one) }) // the inode was used again
		run(func(tx *Tx) error { leads(tx, one, 6); return tx.DeleteInode(5) })
		run(func(tx *Tx) error { leads(tx, one, 6); return put(tx, 6, two) }) // the file lies elsewhere now
		run(func(tx *Tx) error { leads(tx, one, 0); leads(tx, two, 6); return tx.DeleteInode(6) })
		run(func(tx *Tx) error {
			leads(tx, two, 0)
			n, err := tx.Files()
			if n != 0 {
				t.Errorf("%d files", n)
			}
			return errors.Join(err, tx.DeleteInode(6), put(tx, 7, journal.Ident{}), tx.DeleteInode(7))
		})
	}
}

// Functions may change what they iterate over, and read in between.
func TestChangeWhileIterating(t *testing.T) {
	c := openTemp(t)
	const n = 3 * step
	update(t, c, func(tx *Tx) error {
		for i := range batch.FileID(n) {
			if err := tx.PutEntry(1, fmt.Sprintf("%06d", i), i+2); err != nil {
				return err
			}
		}
		return tx.PutEntry(2, "next directory", 1)
	})
	update(t, c, func(tx *Tx) error {
		seen := 0
		err := tx.Entries(1, func(name string, id batch.FileID) error {
			seen++
			other := 0
			if err := tx.Names(id, func(batch.FileID, string) error { other++; return nil }); err != nil || other != 1 {
				t.Errorf("%d names of %s, %v", other, name, err)
			}
			return errors.Join(tx.DeleteEntry(1, name), tx.PutEntry(3, name, id))
		})
		if seen != n {
			t.Errorf("%d of %d seen", seen, n)
		}
		return err
	})
	view(t, c, func(tx *Tx) error {
		left, moved := 0, 0
		err := errors.Join(tx.Entries(1, func(string, batch.FileID) error { left++; return nil }),
			tx.Entries(3, func(string, batch.FileID) error { moved++; return nil }))
		if left != 0 || moved != n {
			t.Errorf("%d left, %d moved", left, moved)
		}
		return err
	})
	stop := errors.New("stop")
	if err := c.View(func(tx *Tx) error { return tx.Entries(3, func(string, batch.FileID) error { return stop }) }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	c := openTemp(t)
	update(t, c, fill)
	stop := errors.New("stop")
	err := c.Update(func(tx *Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		return errors.Join(tx.SetMeta(Meta{Head: 99}), stop)
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	view(t, c, func(tx *Tx) error {
		m, err := tx.Meta()
		n, ferr := tx.Files()
		if m.Head != 7 || n != 400 {
			t.Errorf("head %d, %d files", m.Head, n)
		}
		return errors.Join(err, ferr)
	})
}

func TestChunksOfLostShards(t *testing.T) {
	c := openTemp(t)
	update(t, c, func(tx *Tx) error {
		if err := fill(tx); err != nil {
			return err
		}
		n, err := tx.DeleteChunksOf(map[shard.Digest]bool{{1}: true, {2}: true})
		if n != 266 {
			t.Errorf("%d chunks", n)
		}
		return err
	})
	view(t, c, func(tx *Tx) error {
		for i := range 400 {
			_, ok, err := tx.Chunk(chunk.ID{byte(i), byte(i >> 8)})
			if err != nil || ok != (i%3 == 0) {
				t.Errorf("chunk %d: %v, %v", i, ok, err)
			}
		}
		return nil
	})
}

func TestReadersSeeOneState(t *testing.T) {
	c := openTemp(t)
	update(t, c, func(tx *Tx) error { return tx.SetMeta(Meta{Head: 1}) })
	view(t, c, func(tx *Tx) error {
		before, err := tx.Meta()
		var g errgroup.Group
		g.Go(func() error { return c.Update(func(w *Tx) error { return w.SetMeta(Meta{Head: 2}) }) })
		werr := g.Wait() // the file is small: nothing has to be mapped anew
		after, aerr := tx.Meta()
		if before.Head != 1 || after.Head != 1 {
			t.Errorf("%d, then %d", before.Head, after.Head)
		}
		return errors.Join(err, werr, aerr)
	})
}

// Whatever the order of operations and transactions, entries and names are those of a plain map.
func TestEntriesAsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := openTemp(t)
		type key struct {
			parent batch.FileID
			name   string
		}
		model := make(map[key]batch.FileID)
		name := rapid.SampledFrom([]string{"a", "b", "\xff", "a\x00b", "", "aa", strings.Repeat("n", 255)})
		for range rapid.IntRange(1, 5).Draw(rt, "transactions") {
			update(t, c, func(tx *Tx) error {
				for range rapid.IntRange(0, 12).Draw(rt, "operations") {
					k := key{batch.FileID(rapid.IntRange(1, 3).Draw(rt, "parent")), name.Draw(rt, "name")}
					var err error
					switch rapid.IntRange(0, 3).Draw(rt, "operation") {
					case 0:
						delete(model, k)
						err = tx.DeleteEntry(k.parent, k.name)
					case 1: // reaching bbolt in the middle of the transaction
						err = tx.Entries(k.parent, func(string, batch.FileID) error { return nil })
					default:
						model[k] = batch.FileID(rapid.IntRange(10, 13).Draw(rt, "id"))
						err = tx.PutEntry(k.parent, k.name, model[k])
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		view(t, c, func(tx *Tx) error {
			seen := 0
			for parent := range batch.FileID(4) {
				var names []string
				if err := tx.Entries(parent, func(n string, id batch.FileID) error {
					seen++
					names = append(names, n)
					if model[key{parent, n}] != id {
						rt.Errorf("(%d, %q) leads to %d, want %d", parent, n, id, model[key{parent, n}])
					}
					return nil
				}); err != nil {
					return err
				}
				if !slices.IsSorted(names) {
					rt.Errorf("%q", names)
				}
			}
			reverse := 0
			for id := batch.FileID(10); id < 14; id++ {
				if err := tx.Names(id, func(parent batch.FileID, n string) error {
					reverse++
					if model[key{parent, n}] != id {
						rt.Errorf("%d has the name (%d, %q)", id, parent, n)
					}
					return nil
				}); err != nil {
					return err
				}
			}
			if seen != len(model) || reverse != len(model) {
				rt.Errorf("%d entries, %d names, want %d", seen, reverse, len(model))
			}
			return nil
		})
	})
}

func FuzzDecode(f *testing.F) {
	var e enc
	e.inode(testInode(7))
	f.Add(e.b)
	f.Fuzz(func(_ *testing.T, data []byte) {
		for _, decode := range []func(*dec){
			func(d *dec) { d.inode(1) }, func(d *dec) { d.meta() }, func(d *dec) { d.batch(1) },
			func(d *dec) { d.pending() }, func(d *dec) { d.location() }, func(d *dec) { d.shardInfo() },
		} {
			d := dec{b: data}
			decode(&d)
			_ = d.done() // any error, no panic
		}
	})
}
