package peer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/store"
)

// tellRig is a peer with one volume, and the cache's directory.
type tellRig struct {
	*volume
	t     *testing.T
	id    batch.VolumeID
	cache store.Store
	now   time.Time
	prev  *batch.Digest
	next  batch.Seq
	seal  func(batch.Envelope) (*batch.Sealed, error)
}

func newTellRig(t *testing.T) *tellRig {
	t.Helper()
	dir := t.TempDir()
	r := &tellRig{t: t, id: batch.NewVolumeID(), now: time.Now(), next: 1}
	cfg := &config.Peer{Node: "bravo", Name: "bravo", Store: filepath.Join(dir, "store"), State: filepath.Join(dir, "state"),
		Cache: config.Store{Name: "cache1", URL: filepath.Join(dir, "cache")}}
	must(t, durable.MkdirAll(cfg.Store, 0o755))
	must(t, durable.MkdirAll(cfg.Cache.URL, 0o755))
	p, err := New(Options{Config: cfg, Now: func() time.Time { return r.now }})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	r.volume = p.newVolume("projects")
	r.cache = r.tell.cache
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	path := filepath.Join(dir, "node.key")
	must(t, keys.NewNodeKey(path, "alpha"))
	signer, err := keys.LoadNodeKey(path)
	must(t, err)
	r.seal = func(env batch.Envelope) (*batch.Sealed, error) {
		return batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
	}
	r.claim(r.keep.Store, r.id)
	return r
}

func (r *tellRig) claim(s store.Store, id batch.VolumeID) {
	r.t.Helper()
	must(r.t, s.Replace(context.Background(), intake.VolumeFile, fmt.Appendf(nil, `{"format":1,"volume":"projects","volume_id":%q}`, id)))
}

// arrive puts the next batch into the peer's store and lets it be taken.
func (r *tellRig) arrive() batch.Digest {
	r.t.Helper()
	b, err := r.seal(batch.Envelope{VolumeID: r.id, Volume: "projects", Node: "alpha", Epoch: 1, First: r.next, Last: r.next, Prev: r.prev, Base: 1,
		SealedAt: r.now, Complete: true})
	must(r.t, err)
	must(r.t, r.keep.Store.Publish(context.Background(), batch.Path(1, r.next, r.next), b.File))
	r.ArriveOnce(context.Background())
	if r.keep.Head() != r.next {
		r.t.Fatalf("head %d, want %d", r.keep.Head(), r.next)
	}
	d := b.Digest
	r.prev, r.next = &d, r.next+1
	return d
}

// told compares what the cache was told with a head.
func (r *tellRig) told(seq batch.Seq, d batch.Digest) {
	r.t.Helper()
	a, err := ack.Read(context.Background(), r.cache, "bravo")
	must(r.t, err)
	if a.Kind != "replica" || a.VolumeID != r.id || a.Epoch != 1 || a.Head != seq || a.HeadDigest != d {
		r.t.Errorf("told kind %s, head %d %s, want %d %s", a.Kind, a.Head, a.HeadDigest, seq, d)
	}
}

// The cache is told of each head, at most once a second, and again after a fault.
func TestTell(t *testing.T) {
	r, ctx := newTellRig(t), t.Context()
	if again := r.TellOnce(ctx); again != 0 {
		t.Errorf("with nothing to tell: again after %v", again)
	}
	first := r.arrive()
	if again := r.TellOnce(ctx); again != tellAgain {
		t.Errorf("before the cache has the volume: again after %v", again)
	}
	r.claim(r.cache, r.id)
	if again := r.TellOnce(ctx); again != 0 {
		t.Errorf("told: again after %v", again)
	}
	r.told(1, first)
	second := r.arrive()
	if again := r.TellOnce(ctx); again <= 0 || again > tellEvery {
		t.Errorf("twice in a second: again after %v", again)
	}
	r.told(1, first)
	r.now = r.now.Add(tellEvery)
	r.TellOnce(ctx)
	r.told(2, second)
	must(t, r.keep.Lost(ctx, 2, &intake.Refusal{Name: batch.Path(1, 2, 2), Reason: "damaged", Cause: batch.ErrCorrupt}))
	r.now = r.now.Add(tellEvery)
	r.TellOnce(ctx)
	r.told(1, first)
}

// Nothing is written into another volume's directory, nor over the acks of a store of another kind.
func TestTellNotOurs(t *testing.T) {
	r, ctx := newTellRig(t), t.Context()
	r.arrive()
	r.claim(r.cache, batch.NewVolumeID())
	r.TellOnce(ctx)
	if _, err := r.cache.Stat(ctx, ack.Path("bravo")); err == nil {
		t.Error("acks were written into another volume's directory")
	}
	r.claim(r.cache, r.id)
	must(t, ack.Write(ctx, r.cache, ack.Acks{VolumeID: r.id, Store: "bravo", Kind: "backup", At: r.now}))
	r.TellOnce(ctx)
	if a, err := ack.Read(ctx, r.cache, "bravo"); err != nil || a.Kind != "backup" {
		t.Errorf("the acks of a backup host: kind %q, %v", a.Kind, err)
	}
}

// Where the cache holds another batch under a number than this node, this node's lies beside it as evidence; where it holds the same, or
// nothing can be said, none does.
func TestEvidence(t *testing.T) {
	r, ctx := newTellRig(t), t.Context()
	r.claim(r.cache, r.id)
	first := r.arrive()
	second := r.arrive()
	says := func(epoch batch.Epoch, head batch.Seq, d batch.Digest) time.Duration {
		t.Helper()
		must(t, ack.Write(ctx, r.cache, ack.Acks{VolumeID: r.id, Store: "cache1", Kind: "cache", Epoch: epoch, Head: head, HeadDigest: d, At: r.now}))
		r.now = r.now.Add(compareEvery)
		return r.CompareOnce(ctx)
	}
	evidence := func() []store.Info {
		t.Helper()
		list, err := r.cache.List(ctx, "refused")
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			t.Fatal(err)
		}
		return list
	}
	for _, about := range []struct {
		epoch batch.Epoch
		head  batch.Seq
		d     batch.Digest
	}{{1, 1, first}, {2, 2, batch.Digest{9}}, {1, 3, batch.Digest{9}}, {1, 0, batch.Digest{}}} {
		if again := says(about.epoch, about.head, about.d); again != compareEvery || len(evidence()) > 0 {
			t.Errorf("epoch %d, head %d: again after %v, %v", about.epoch, about.head, again, evidence())
		}
	}
	if again := says(1, 2, batch.Digest{9}); again != compareEvery {
		t.Errorf("another batch: again after %v", again)
	}
	name := "refused/" + filepath.Base(batch.Path(1, 2, 2)) + ".disagrees-bravo"
	data, err := r.cache.Read(ctx, name, batch.MaxFile)
	must(t, err)
	if b, err := batch.Parse(data); err != nil || b.Digest != second {
		t.Errorf("the evidence: %v", err)
	}
	must(t, r.cache.Remove(ctx, name))
	if again := says(1, 2, second); again != 0 || len(evidence()) > 0 {
		t.Errorf("the same batch: again after %v, %v", again, evidence())
	}
	if again := says(1, 2, batch.Digest{9}); again != 0 {
		t.Errorf("compared once more, after %v, though it was found to agree", again)
	}
}
