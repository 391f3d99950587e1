package spooler

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/keys"
	"slipway/internal/nodekey"
	"slipway/internal/store"
)

func newPublicKey(t *testing.T) string {
	t.Helper()
	signer, err := keys.EnsureNodeKey(filepath.Join(t.TempDir(), "node.key"), "bravo")
	check(t, err)
	return keys.PublicLine(signer)
}

// head returns the newest envelope of the own store.
func (r *rig) head() *batch.Envelope {
	r.t.Helper()
	v := r.s.vol
	b, err := v.history.ReadBatch(batch.Path(v.history.Meta().Epoch, v.history.Meta().Head, v.history.Meta().Head))
	check(r.t, err)
	return &b.Envelope
}

// TestPeersKey: the key that a replica peer shows at first contact is named by the very next batch, which there is even when nothing
// else changes, and by those after a restart; another key later is a warning and is not named.
func TestPeersKey(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "bravo")
	check(t, os.Mkdir(dir, 0o755))
	r.cfg.Replicas = []config.Store{{Name: "bravo", URL: dir}}
	check(t, os.WriteFile(filepath.Join(r.src, "file"), []byte("one"), 0o600))
	r.mount()
	r.open()
	r.drain()
	if got := r.s.MeetPeersOnce(ctx); got != keyMissing {
		t.Errorf("asks again after %v", got)
	}
	before := r.head()
	if len(before.NextKeys) != 1 || before.Peers[0].Key != "" {
		t.Fatalf("%v %v", before.NextKeys, before.Peers)
	}
	root, err := store.Open(dir, store.Options{})
	check(t, err)
	there := store.Sub(root, "projects")
	first := newPublicKey(t)
	check(t, nodekey.Publish(ctx, there, "bravo", first))
	if got := r.s.MeetPeersOnce(ctx); got != keyKnown {
		t.Errorf("asks again after %v", got)
	}
	r.drain()
	after := r.head()
	if after.Last != before.Last+1 || after.Peers[0].Key != first || !slices.Contains(after.NextKeys, first) {
		t.Fatalf("batch %d of %d names %v %v", after.Last, before.Last, after.NextKeys, after.Peers)
	}
	check(t, nodekey.Publish(ctx, there, "bravo", newPublicKey(t)))
	r.close()
	r.open()
	r.s.MeetPeersOnce(ctx)
	if w := r.s.keyWarnings(); len(w) != 1 || !strings.Contains(w[0], "bravo") {
		t.Errorf("warnings %q", w)
	}
	check(t, os.WriteFile(filepath.Join(r.src, "more"), []byte("two"), 0o600))
	r.umount()
	r.mount()
	r.drain()
	if last := r.head(); last.Last <= after.Last || last.Peers[0].Key != first || len(last.NextKeys) != 2 {
		t.Fatalf("batch %d names %v %v", last.Last, last.NextKeys, last.Peers)
	}
	check(t, nodekey.Publish(ctx, there, "bravo", first))
	r.s.MeetPeersOnce(ctx)
	if w := r.s.keyWarnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// TestPeersKeyNamedAfterRestart: a key that was recorded just before the spooler ended is named by the next run.
func TestPeersKeyNamedAfterRestart(t *testing.T) {
	r := newRig(t)
	r.cfg.Replicas = []config.Store{{Name: "bravo", URL: t.TempDir()}}
	r.mount()
	r.open()
	r.drain()
	key := newPublicKey(t)
	check(t, r.s.knownPeers().Meet("bravo", key))
	before := r.head().Last
	r.close()
	r.open()
	r.drain()
	if e := r.head(); e.Last != before+1 || e.Peers[0].Key != key {
		t.Errorf("batch %d behind %d names %v", e.Last, before, e.Peers)
	}
	r.close()
	r.open()
	r.drain()
	if e := r.head(); e.Last != before+1 {
		t.Errorf("one more batch, %d, though nothing has changed", e.Last)
	}
}
