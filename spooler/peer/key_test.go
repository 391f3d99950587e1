package peer

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/config"
	"slipway/internal/nodekey"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
)

func newPeer(t *testing.T, dir string) *Peer {
	t.Helper()
	cfg := &config.Peer{
		Node: "bravo", Name: "bravo", Store: filepath.Join(dir, "store"), State: filepath.Join(dir, "state"),
		Cache: config.Store{Name: "cache1", URL: filepath.Join(dir, "cache")},
	}
	for _, d := range []string{cfg.Store, cfg.State, cfg.Cache.URL} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestTellsItsKey: a peer keeps one key over restarts, and shows it in each volume as soon as there is one.
func TestTellsItsKey(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	p := newPeer(t, dir)
	if err := p.ensureKey(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "store", "projects"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.discover(ctx)
	v := p.all()[0]
	v.ArriveOnce(ctx)
	if _, err := nodekey.Read(ctx, v.keep.Store, "bravo"); err == nil {
		t.Error("a key in a directory that is no volume yet")
	}
	id := volumetest.New(t, "unused").ID
	if err := push.ClaimVolume(ctx, v.keep.Store, "test", state.Volume{Format: 1, Name: "projects", ID: id}); err != nil {
		t.Fatal(err)
	}
	v.ArriveOnce(ctx)
	got, err := nodekey.Read(ctx, v.keep.Store, "bravo")
	if err != nil || got != p.public {
		t.Fatalf("%q %v, want %q", got, err, p.public)
	}
	again := newPeer(t, dir)
	if err := again.ensureKey(); err != nil || again.public != p.public {
		t.Errorf("another key after a restart: %v", err)
	}
	// What somebody else wrote there does not outlive the next start.
	if err := store.Sub(again.root, "projects").Replace(ctx, nodekey.Path("bravo"), []byte("ssh-ed25519 forged\n")); err != nil {
		t.Fatal(err)
	}
	again.discover(ctx)
	again.all()[0].ArriveOnce(ctx)
	if got, err := nodekey.Read(ctx, v.keep.Store, "bravo"); err != nil || got != p.public {
		t.Errorf("%q %v", got, err)
	}
}
