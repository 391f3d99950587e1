package workers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/capture"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// rig is a pool whose worker is the test; its Reader brings what the test says.
type rig struct {
	*Pool
	t    *testing.T
	src  string
	root *os.File
	tree *tree.Tree
	set  *pending.Set
	read []string // paths
	err  error    // of every capture
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, src: t.TempDir()}
	var err error
	r.root, err = os.Open(r.src)
	check(t, err)
	t.Cleanup(func() { check(t, r.root.Close()) })
	cat, err := catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	check(t, err)
	t.Cleanup(func() { check(t, cat.Close()) })
	r.tree = tree.New(cat, 0)
	r.set = pending.NewSet(&pending.Timing{}, time.Now)
	opt := Options{Source: r.root, Packing: capture.NewPacking(chunk.Keys{}, nil, nil, nil, 1), MaxShards: 1, Wake: func() {}}
	for _, c := range change {
		c(&opt)
	}
	r.Pool = New(opt)
	check(t, r.tree.Within(func() error {
		ident, attr, err := source.Stat(int(r.root.Fd()), "")
		check(t, err)
		_, err = r.tree.SetRoot(ident, attr)
		return err
	}))
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Read implements Reader.
func (r *rig) Read(_ context.Context, j capture.Job) capture.Captured {
	r.read = append(r.read, j.Path)
	return capture.Captured{ID: j.ID, Clean: true, Err: r.err}
}

// create makes a file that is pending.
func (r *rig) create(name string) *pending.File {
	r.t.Helper()
	check(r.t, os.WriteFile(filepath.Join(r.src, name), []byte(name), 0o644))
	ident, attr, err := source.Stat(int(r.root.Fd()), name)
	check(r.t, err)
	var n *tree.Node
	check(r.t, r.tree.Within(func() error {
		n = r.tree.Add(ident, attr, "")
		return r.tree.Link(batch.Root, name, n.ID)
	}))
	return r.set.Mark(n.ID, pending.New, attr.Size, journal.Position{})
}

// sealed lets the tree have a file's content as it is now, and makes it pending again.
func (r *rig) sealed(f *pending.File, name string) *pending.File {
	r.t.Helper()
	_, attr, err := source.Stat(int(r.root.Fd()), name)
	check(r.t, err)
	check(r.t, r.tree.Within(func() error {
		n, err := r.tree.Edit(f.ID())
		n.Take(&batch.Content{Clean: true, Size: attr.Size}, attr, nil)
		return err
	}))
	r.set.Remove(f.ID())
	return r.set.Mark(f.ID(), pending.Written, attr.Size, journal.Position{})
}

func (r *rig) dispatch() {
	r.t.Helper()
	check(r.t, r.tree.Within(func() error { return r.Dispatch(r.tree, r.set, journal.Position{}) }))
}

func (r *rig) work() (captured []*pending.File) {
	r.t.Helper()
	r.dispatch()
	for r.Once(r.t.Context(), r, false) {
	}
	return r.Collect(r.set)
}

// TestBrought: what a worker brought waits for the seal; a capture that brought nothing leaves the file pending, with a reason.
func TestBrought(t *testing.T) {
	for _, tc := range []struct {
		err   error
		state string
		why   string
	}{
		{nil, pending.New, "read; waits for the next batch"},
		{source.ErrMoved, pending.Written, "waits until it is quiet"},
		{fs.ErrNotExist, pending.Written, "waits until it is quiet"},
		{capture.ErrBusy, pending.Open, "a mapping or a process of before the last mount still has it open"},
		{capture.ErrChanging, pending.Written, "tried again: " + capture.ErrChanging.Error()},
		{capture.ErrNoRoom, pending.Written, "tried again: " + capture.ErrNoRoom.Error()},
		{unix.EIO, pending.Unread, "tried again: " + unix.EIO.Error()},
	} {
		r := newRig(t)
		r.err = tc.err
		f := r.create("f")
		if tc.err != nil {
			f = r.sealed(f, "f")
			check(t, os.WriteFile(filepath.Join(r.src, "f"), []byte("another"), 0o644))
		}
		captured := r.work()
		if row := r.set.Row(f, true); row.State != tc.state || row.Why != tc.why || r.Busy() != 0 {
			t.Errorf("%v: %+v, %d busy", tc.err, row, r.Busy())
		}
		if (len(captured) == 1) != (tc.err == nil) {
			t.Errorf("%v: %d captured", tc.err, len(captured))
		}
	}
}

// TestRemovedWhileRead: what a worker brings of a file that is gone is not waited with.
func TestRemovedWhileRead(t *testing.T) {
	r := newRig(t)
	f := r.create("f")
	r.dispatch()
	r.Once(t.Context(), r, false)
	r.set.Remove(f.ID())
	if got := r.Collect(r.set); len(got) != 0 || r.Busy() != 0 {
		t.Errorf("%d captured, %d busy", len(got), r.Busy())
	}
}

// TestUnchanged: a file that is as it was sealed is not read, unless nobody knows whether that reached the disk.
func TestUnchanged(t *testing.T) {
	for _, tc := range []struct {
		name     string
		distrust bool
		change   bool
		reads    int
	}{{"as it was", false, false, 0}, {"changed", false, true, 1}, {"not trusted", true, false, 1}} {
		r := newRig(t, func(o *Options) { o.Distrust = tc.distrust })
		f := r.sealed(r.create("f"), "f")
		if tc.change {
			check(t, os.WriteFile(filepath.Join(r.src, "f"), []byte("longer than before"), 0o644))
		}
		r.work()
		if len(r.read) != tc.reads || f.Gone() != (tc.reads == 0) {
			t.Errorf("%s: read %v, settled: %v", tc.name, r.read, f.Gone())
		}
	}
}

// TestHiddenWriter: an unchanged file that somebody holds open without the journal's knowing is watched.
func TestHiddenWriter(t *testing.T) {
	r := newRig(t)
	f := r.sealed(r.create("f"), "f")
	open, err := os.OpenFile(filepath.Join(r.src, "f"), os.O_RDWR, 0)
	check(t, err)
	defer func() { check(t, open.Close()) }()
	r.work()
	if row := r.set.Row(f, true); len(r.read) != 0 || f.Gone() || row.State != pending.Open {
		t.Errorf("read %v, %+v", r.read, row)
	}
}

// TestHastyFirst: what an fsync waits for is read before all others, also by the worker that reads nothing else.
func TestHastyFirst(t *testing.T) {
	r := newRig(t)
	r.create("first")
	r.set.Hurry(r.create("hasty").Await())
	r.dispatch()
	if !r.Once(t.Context(), r, true) || r.Once(t.Context(), r, true) || !r.Once(t.Context(), r, false) {
		t.Error("the worker of the hasty ones did not read one file")
	}
	if fmt.Sprint(r.read) != "[hasty first]" {
		t.Errorf("read %v", r.read)
	}
}

// TestHasRoom: few large files are handed out at once, so that a small one need not wait long behind them; a hasty one always is.
func TestHasRoom(t *testing.T) {
	r := newRig(t)
	for i := range 10 {
		f := r.create(fmt.Sprintf("large %d", i))
		r.set.Mark(f.ID(), pending.New, jobsBytes, journal.Position{})
	}
	r.dispatch()
	if r.Busy() != 2*Count || r.HasRoom() {
		t.Errorf("%d large files are handed out", r.Busy())
	}
	r.set.Hurry(r.create("hasty").Await())
	r.dispatch()
	if r.Busy() != 2*Count+1 {
		t.Errorf("%d files are handed out, a hasty one among them", r.Busy())
	}
}

// TestLoop: a worker reads until its context ends.
func TestLoop(t *testing.T) {
	brought := make(chan struct{}, 1)
	r := newRig(t, func(o *Options) { o.Wake = func() { brought <- struct{}{} } })
	f := r.sealed(r.create("f"), "f")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Loop(ctx, false) }()
	r.dispatch()
	<-brought
	r.Collect(r.set)
	if !f.Gone() {
		t.Error("the file is pending still")
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
