package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// TestBesideWriter: whatever the spooler commits meanwhile, who reads beside it sees one state, and disturbs nothing.
func TestBesideWriter(t *testing.T) {
	c := openTemp(t)
	update(t, c, rewrite(1))
	if _, err := OpenReadOnly(c.path); !errors.Is(err, ErrBusy) {
		t.Fatalf("the lock is not held: %v", err)
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
	whole := 0
	for range 100 {
		b, err := OpenBeside(c.path)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Error(err)
			break
		}
		whole++
		if err := errors.Join(b.View(oneState), b.Close()); err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d transactions, %d of 100 copies", head, whole)
	if whole == 0 || head < 10 {
		t.Error("the two did not meet")
	}
	view(t, c, oneState)
}

// disturbed is a file that is written while it is read.
type disturbed struct {
	*os.File
	disturb func()
}

func (d disturbed) ReadAt(b []byte, at int64) (int, error) {
	half := len(b) / 2
	n, err := d.File.ReadAt(b[:half], at)
	if err != nil {
		return n, err
	}
	d.disturb()
	m, err := d.File.ReadAt(b[half:], at+int64(half))
	return n + m, err
}

// TestBesideCommits: a copy that a commit may have met is made anew, and given up when there is no end of them.
func TestBesideCommits(t *testing.T) {
	c := openTemp(t)
	update(t, c, rewrite(1))
	f, err := os.Open(c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var head batch.Seq = 1
	for _, tt := range []struct {
		commits, each int // copies that meet commits, and how many each
		want          error
	}{{0, 0, nil}, {1, 1, nil}, {3, 2, nil}, {4, 3, nil}, {besideTries, 1, ErrBusy}} {
		left := tt.commits
		whole, err := copyWhole(f, disturbed{f, func() {
			for range tt.each * min(left, 1) {
				head++
				update(t, c, rewrite(head))
			}
			left = max(0, left-1)
		}})
		if !errors.Is(err, tt.want) || left != 0 {
			t.Errorf("%d copies meet %d commits each: %v", tt.commits, tt.each, err)
		}
		if err != nil {
			continue
		}
		b, err := OpenReadOnly(fmt.Sprintf("/proc/self/fd/%d", whole.Fd()))
		if err == nil {
			err = errors.Join(b.View(oneState), b.Close())
		}
		if err := errors.Join(err, whole.Close()); err != nil {
			t.Errorf("%d copies met %d commits each: %v", tt.commits, tt.each, err)
		}
	}
}

func TestBesideNothing(t *testing.T) {
	if _, err := OpenBeside(filepath.Join(t.TempDir(), "catalog")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if c, err := OpenBeside(t.TempDir()); !errors.Is(err, ErrCorrupt) {
		t.Error(c, err)
	}
}
