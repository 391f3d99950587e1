package promote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/warm"
)

// TestWarm: the warm tree becomes the source as it lies there, brought to the newest batch. The peer that holds it lets go when the
// promotion is under way; what it had moved aside does not become part of the volume.
func TestWarm(t *testing.T) {
	c := newCluster(t, true)
	p := c.peers[0]
	p.Warm, p.Identity = t.TempDir(), c.ident
	dir, st := WarmDir(p, "projects"), WarmState(p, "projects")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.MkdirAll(st, 0o700))
	tree, err := warm.Open(warm.Options{Dir: dir, State: st, Source: func(context.Context) (chain.Source, error) { return c.v.Source(), nil }})
	must(t, err)
	_, err = tree.ApplyOnce(t.Context())
	must(t, err)
	before := inode(t, filepath.Join(dir, "file"))
	must(t, os.MkdirAll(filepath.Join(dir, ".slipway-warm", "aside"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, ".slipway-warm", "aside", "0-x"), []byte("in the way"), 0o600))
	now := time.Now().UnixNano()
	c.v.Seal(&batch.Body{
		Inodes: []batch.Inode{
			{ID: 3, Mode: 0o100644, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: now, Content: c.v.Content("newer")},
		},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "newer", ID: 3}},
	}, func(e *batch.Envelope) { e.NextKeys = c.next })

	o := c.options(0)
	o.Source = ""
	let := make(chan error, 1)
	if Owned(p, "projects") {
		t.Error("owned before")
	}
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for !Owned(p, "projects") {
			<-tick.C
		}
		let <- tree.Close()
	}()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	must(t, <-let)
	if r.Source != dir || r.Mount != dir || r.After != 2 || r.Files != 3 || len(r.Differ)+len(r.Missing) > 0 {
		t.Errorf("%+v", r)
	}
	if inode(t, filepath.Join(dir, "file")) != before {
		t.Error("a file was written again")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "newer")); err != nil || string(data) != "newer" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".slipway-warm")); !os.IsNotExist(err) {
		t.Error("what was moved aside is part of the volume:", err)
	}
	if data, err := os.ReadFile(dir + ".aside-epoch-2/aside/0-x"); err != nil || string(data) != "in the way" || !strings.Contains(strings.Join(r.Warnings, "\n"), "aside") {
		t.Errorf("%q, %v, %q", data, err, r.Warnings)
	}
	if _, err := os.Lstat(st); !os.IsNotExist(err) || !Owned(p, "projects") {
		t.Error("the warm tree's state:", err)
	}
}

// TestWarmBehind: a warm tree that is not at the newest batch is not taken for the volume.
func TestWarmBehind(t *testing.T) {
	c := newCluster(t, true)
	p := c.peers[0]
	p.Warm, p.Identity = t.TempDir(), c.ident
	must(t, os.MkdirAll(WarmDir(p, "projects"), 0o700))
	must(t, os.MkdirAll(WarmState(p, "projects"), 0o700))
	c.v.Seal(&batch.Body{}, func(e *batch.Envelope) { e.NextKeys, e.Complete, e.Why = c.next, false, "gap" })
	o := c.options(0)
	o.Source = ""
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrPartial) {
		t.Errorf("behind the newest batch: %v", err)
	}
	if Owned(p, "projects") {
		t.Error("the peer stays away from the volume")
	}
}
