package spooler

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
	"slipway/spooler/seal"
)

// TestSuperseded: the old owner that comes back and finds an epoch of a peer that it named yields: it says who owns the volume, begins
// nothing, and does not open any more.
func TestSuperseded(t *testing.T) {
	r, key := promotable(t)
	before := r.s.vol.history.Meta()
	r.close()
	n, _ := r.successor(key, true)
	n.mount()
	n.open()
	n.drain()
	n.accepted() // fills the cache
	first := n.first(before.Head + 1)
	n.close()
	r.open()
	r.s.troubled("cache1", &push.AheadError{Store: "cache1", Epoch: 2, Seq: first.Last})
	_, err := r.s.Step(t.Context())
	var now *state.Superseded
	var fatal *seal.Fatal
	if !errors.As(err, &now) || !errors.As(err, &fatal) || now.Node != "bravo" || now.Epoch != 2 || now.First != first.First {
		t.Fatalf("%v", err)
	}
	if r.s.vol.history.Meta() != before {
		t.Errorf("catalog was %+v, is %+v", before, r.s.vol.history.Meta())
	}
	r.close()
	if _, err := New(Options{Config: r.cfg, Source: r.root}); !errors.Is(err, state.ErrSuperseded) {
		t.Errorf("opened again: %v", err)
	}
	if old, _ := filepath.Glob(r.cfg.State + "/catalog.db.aside-*"); len(old) > 0 {
		t.Errorf("the catalog was set aside: %v", old)
	}
}

// TestNotSuperseded: an epoch ahead of a stranger's key, or of a peer's without this node's word, does not end the ownership.
func TestNotSuperseded(t *testing.T) {
	r, key := promotable(t)
	v := r.s.vol
	seal := volumetest.NewOwner(t, "mallory")
	signer, err := keys.LoadNodeKey(key)
	check(t, err)
	head, err := v.history.ReadBatch(batch.Path(1, v.history.Meta().Head, v.history.Meta().Head))
	check(t, err)
	digest := head.Digest
	env := batch.Envelope{
		VolumeID: v.id, Volume: "projects", Node: "bravo", Epoch: 2, First: v.history.Meta().Head + 1, Last: v.history.Meta().Head + 1, Prev: &digest,
		Base: v.history.Meta().Base, SealedAt: v.history.Meta().SealedAt.Add(1), Full: true, Complete: true,
	}
	put := func(sealed *batch.Sealed, err error) store.Store {
		t.Helper()
		check(t, err)
		s := mustOpen(t, t.TempDir())
		check(t, s.Publish(t.Context(), batch.Path(2, env.First, env.First), sealed.File))
		return s
	}
	stranger := env
	stranger.NamedBy = head.SignedEnvelope()
	unnamed := env
	for name, s := range map[string]store.Store{
		"stranger": put(seal.Seal(stranger, &batch.Body{}, v.recipients)),
		"unnamed":  put(batch.Seal(unnamed, &batch.Body{}, v.recipients, signer)),
	} {
		if now, err := v.history.SupersededAt(t.Context(), s, name); now != nil || err != nil {
			t.Errorf("%s: %v %v", name, now, err)
		}
	}
	named := put(batch.Seal(stranger, &batch.Body{}, v.recipients, signer))
	if now, err := v.history.SupersededAt(t.Context(), named, "named"); now == nil || err != nil {
		t.Errorf("the peer that was named: %v %v", now, err)
	}
}

// TestSupersededNoteDamaged: a note that cannot be read keeps the spooler from going on.
func TestSupersededNoteDamaged(t *testing.T) {
	r := newRig(t)
	check(t, os.WriteFile(filepath.Join(r.cfg.State, "superseded.json"), []byte("{"), 0o600))
	if _, err := New(Options{Config: r.cfg, Source: r.root}); err == nil {
		t.Error("opened")
	}
}
