package restore_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
	"slipway/internal/sshd"
	"slipway/internal/store"
)

// From a real OpenSSH server: many small batches side by side, and every kind of file.
func TestFromSFTP(t *testing.T) {
	v := volumetest.New(t, "vault1")
	zoo(t, v).seal()
	const n = 300
	spread(t, v, n)
	server, err := sshd.Start(t.TempDir(), sshd.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return server.Serve(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	s, err := store.Open(server.URL(v.Dirs[0]), store.Options{KeyFile: server.KeyFile, KnownHosts: []string{server.KnownHosts}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // only read
	src := v.Source()
	local := load(t, src, restore.At{})
	src.Stores = []restore.NamedStore{{Name: "vault1", Store: s}}
	start := time.Now()
	tree := load(t, src, restore.At{})
	loaded := time.Since(start)
	near, far := filepath.Join(t.TempDir(), "near"), filepath.Join(t.TempDir(), "far")
	res := clean(t, tree, restore.Options{Target: far})
	t.Logf("%d batches read in %v, %d files restored in %v", n+1, loaded, res.Files, time.Since(start)-loaded)
	clean(t, local, restore.Options{Target: near})
	same(t, scan(t, near), scan(t, far))
}
