package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
)

const inodes = 500

// rewrite is a transaction that leaves no inode as it was: each carries the number of the head.
func rewrite(head batch.Seq) func(*Tx) error {
	return func(tx *Tx) error {
		for id := range batch.FileID(inodes) {
			in := testInode(id + 2)
			in.Seq = head
			if err := tx.PutInode(in); err != nil {
				return err
			}
		}
		return tx.SetMeta(Meta{Head: head})
	}
}

// oneState is an error unless everything is of one transaction.
func oneState(tx *Tx) error {
	m, err := tx.Meta()
	if err != nil {
		return err
	}
	for id := range batch.FileID(inodes) {
		in, ok, err := tx.Inode(id + 2)
		if err != nil {
			return err
		}
		if !ok || in.Seq != m.Head {
			return fmt.Errorf("inode %d (%v) is of transaction %d, the head of %d", id+2, ok, in.Seq, m.Head)
		}
	}
	return nil
}

// TestReaderBesideWriter: whatever the spooler commits meanwhile, who reads beside it sees one state, and disturbs nothing.
func TestReaderBesideWriter(t *testing.T) {
	c := openTemp(t)
	update(t, c, rewrite(1))
	r := reader(t, c.path)
	if !r.InUse() {
		t.Fatal("the lock is not held")
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	var head batch.Seq = 1
	g.Go(func() error {
		for ctx.Err() == nil {
			head++
			if err := c.Update(rewrite(head)); err != nil {
				return err
			}
		}
		return nil
	})
	whole, begun := 0, 0
	for range 300 {
		err := r.View(func(tx *Tx) error { begun++; return oneState(tx) })
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Error(err)
			break
		}
		whole++
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d transactions, %d of 300 views in %d tries", head, whole, begun)
	if whole == 0 || head < 10 {
		t.Error("the two did not meet")
	}
	view(t, c, oneState)
}

// TestReaderMeetsCommits: a view that commits meet is begun anew, and given up when there is no end of them.
func TestReaderMeetsCommits(t *testing.T) {
	c := openTemp(t)
	update(t, c, rewrite(1))
	r := reader(t, c.path)
	var head batch.Seq = 1
	for _, tt := range []struct {
		views, each int // views that meet commits, and how many each
		want        error
	}{{0, 0, nil}, {1, 1, nil}, {3, 2, nil}, {4, 3, nil}, {readTries, 1, ErrBusy}} {
		left := tt.views
		err := r.View(func(tx *Tx) error {
			if _, err := tx.Meta(); err != nil {
				return err
			}
			if left > 0 {
				for range tt.each {
					head++
					update(t, c, rewrite(head))
				}
				left--
				_ = oneState(tx) // of a state that is gone
				return fs.ErrInvalid
			}
			return oneState(tx)
		})
		if !errors.Is(err, tt.want) || left != 0 {
			t.Errorf("%d views meet %d commits each: %v", tt.views, tt.each, err)
		}
	}
}

// TestReaderReadsTheSame: read page by page, a catalog holds what it holds for bbolt, and nothing else.
func TestReaderReadsTheSame(t *testing.T) {
	c := openTemp(t)
	r := reader(t, c.path)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 24 {
		update(t, c, func(tx *Tx) error {
			for range random.IntN(1000) {
				id := batch.FileID(random.IntN(2000) + 2)
				name := strings.Repeat(fmt.Sprint(id), random.IntN(300)%60*(round%2)+1)
				var err error
				if random.IntN(3) < round/8 { // fewer in the end
					err = errors.Join(tx.DeleteInode(id), tx.DeleteEntry(id%7, name), tx.DeletePending(id))
				} else {
					err = errors.Join(tx.PutInode(testInode(id)), tx.PutEntry(id%7, name, id), tx.PutPending(id, Pending{Reason: name}))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		var theirs, ours []string
		view(t, c, func(tx *Tx) error { theirs = everything(t, tx); return nil })
		if err := r.View(func(tx *Tx) error { ours = everything(t, tx); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ours, theirs) {
			t.Fatalf("round %d: %d records, bbolt has %d", round, len(ours), len(theirs))
		}
		if round == 12 && len(theirs) < 5000 {
			t.Fatalf("only %d records", len(theirs))
		}
	}
}

// everything returns all records, each asked for by its key as well, and some that are not there.
func everything(t *testing.T, tx *Tx) (all []string) {
	t.Helper()
	for b := range buckets {
		err := tx.each(b, nil, nil, func(k, v []byte) error {
			all = append(all, fmt.Sprintf("%d %x %x", b, k, v))
			got, ok, err := tx.get(b, k)
			if !ok || !bytes.Equal(got, v) {
				t.Errorf("record %x of bucket %d: %v, %x", k, b, ok, got)
			}
			if _, ok, err := tx.get(b, append(bytes.Clone(k), 0)); ok || err != nil {
				t.Errorf("a record behind %x: %v %v", k, ok, err)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return all
}

// TestReaderStopsAtDamage: keys out of order are damage, where a look-up would have found nothing.
func TestReaderStopsAtDamage(t *testing.T) {
	sound := small(t)
	path := filepath.Join(t.TempDir(), "catalog")
	if err := os.WriteFile(path, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	root := rootPage(t, path, "inodes")
	_, child, err := branch(sound[root:], 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	leafPage := int64(child) * int64(os.Getpagesize())
	keyOf := func(b []byte, page int64, i int, pos int) []byte {
		e := b[page+pageHeader+int64(i)*elementSize:]
		at := order.Uint32(e[pos:])
		return e[at : at+8]
	}
	for name, damage := range map[string]func(b []byte){
		"a branch's key moved up":    func(b []byte) { copy(keyOf(b, root, 1, 0), idKey(70)) },
		"a branch's keys in a knot":  func(b []byte) { copy(keyOf(b, root, 1, 0), idKey(1)) },
		"a leaf's key moved up":      func(b []byte) { copy(keyOf(b, leafPage, 0, 4), idKey(1<<40)) },
		"a leaf's key moved down":    func(b []byte) { copy(keyOf(b, leafPage, 0, 4), idKey(1)) },
		"a leaf calls itself bucket": func(b []byte) { order.PutUint32(b[leafPage+pageHeader:], leafBucket) },
	} {
		data := bytes.Clone(sound)
		damage(data)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r := reader(t, path)
		met := false
		for id := range batch.FileID(402) {
			err := r.View(func(tx *Tx) error {
				_, ok, err := tx.Inode(id)
				if err == nil && !ok && id >= 2 {
					t.Errorf("%s: inode %d is not there", name, id)
				}
				return err
			})
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
			met = met || err != nil
		}
		if !met {
			t.Errorf("%s: is not met", name)
		}
	}
}

// TestReaderFault: the file is cut short under the reader.
func TestReaderFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	if err := os.WriteFile(path, small(t), 0o600); err != nil {
		t.Fatal(err)
	}
	r := reader(t, path)
	err := r.View(func(tx *Tx) error {
		if err := os.Truncate(path, 8192); err != nil {
			t.Fatal(err)
		}
		return readAll(tx)
	})
	if !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if err := r.View(readAll); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

func reader(t *testing.T, path string) *Reader {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestReaderOfNothing(t *testing.T) {
	if _, err := OpenReader(filepath.Join(t.TempDir(), "catalog")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if c, err := OpenReader(t.TempDir()); !errors.Is(err, ErrCorrupt) {
		t.Error(c, err)
	}
}

// TestInUse: a writer is told, while it lasts.
func TestInUse(t *testing.T) {
	c := openTemp(t)
	r := reader(t, c.path)
	if !r.InUse() {
		t.Error("it is not said to be in use")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r.InUse() {
		t.Error("it is said to be in use after its end")
	}
	if c, err := Open(c.path); err != nil { // and the reader does not hold it
		t.Error(err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}
}
