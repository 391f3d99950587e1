package push

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/shard"
	"slipway/internal/sshd"
	"slipway/internal/state"
	"slipway/internal/store"
)

// rig is a node's own store with batches in it, and one destination.
type rig struct {
	t       *testing.T
	own     store.Store
	ownDir  string
	dest    *tappedStore
	destDir string
	server  *sshd.Server // nil: the destination is a directory
	volume  state.Volume
	log     *fakeLog
	sealEnv func(batch.Envelope) (*batch.Sealed, error) // with the node's key and an empty body
	target  Target
}

// fakeLog is a history in memory.
type fakeLog struct {
	mu      sync.Mutex
	b       Bounds
	batches map[batch.Seq]Batch
}

func (l *fakeLog) Bounds() (Bounds, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b, nil
}

func (l *fakeLog) Sealed(seq batch.Seq) (Batch, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.batches[seq]
	return b, ok, nil
}

// tappedStore is a real store with a hook before each publish, and a list of what was published.
type tappedStore struct {
	store.Store

	mu        sync.Mutex
	before    func(name string) error
	published []string
}

func (s *tappedStore) Publish(ctx context.Context, name string, data []byte) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.published = append(s.published, name)
	s.mu.Unlock()
	return s.Store.Publish(ctx, name, data)
}

func (s *tappedStore) tap(before func(name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.published = before, nil
}

func (s *tappedStore) sent() (shards, batches []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.published {
		if strings.HasPrefix(name, "shards/") {
			shards = append(shards, name)
		} else {
			batches = append(batches, name)
		}
	}
	return shards, batches
}

// eachDestination runs a test against a directory and against OpenSSH.
func eachDestination(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, kind := range []string{"directory", "sshd"} {
		t.Run(kind, func(t *testing.T) { test(t, newRig(t, kind == "sshd")) })
	}
}

func newRig(t *testing.T, remote bool) *rig {
	t.Helper()
	r := &rig{
		t: t, ownDir: t.TempDir(), destDir: filepath.Join(t.TempDir(), "data"),
		volume: state.Volume{Name: "projects", ID: batch.NewVolumeID()},
		log:    &fakeLog{b: Bounds{Epoch: 1, Base: 1}, batches: map[batch.Seq]Batch{}},
	}
	r.own = openLocal(t, r.ownDir)
	key := filepath.Join(t.TempDir(), "node.key")
	if err := keys.NewNodeKey(key, "alpha"); err != nil {
		t.Fatal(err)
	}
	signer, err := keys.LoadNodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r.sealEnv = func(env batch.Envelope) (*batch.Sealed, error) {
		return batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
	}
	r.dest = &tappedStore{Store: r.openDest(remote)}
	r.target = Target{
		Name: "cache1", Kind: "cache", URL: "sftp://cache1/data",
		Dest: r.dest, Volume: r.volume, Own: r.own, Log: r.log,
	}
	return r
}

func (r *rig) openDest(remote bool) store.Store {
	r.t.Helper()
	if !remote {
		return openLocal(r.t, r.destDir)
	}
	if err := os.MkdirAll(r.destDir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if r.server, err = sshd.Start(r.t.TempDir(), sshd.Options{}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.server.Serve(ctx) })
	s, err := store.Open(r.server.URL(r.destDir), store.Options{
		KeyFile: r.server.KeyFile, KnownHosts: []string{r.server.KnownHosts}, StallAfter: 5 * time.Second,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.t.Error(err)
		}
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	})
	return s
}

// object puts a shard of n bytes into the own store. What it holds is no pusher's business.
func (r *rig) object(n int) batch.Object {
	r.t.Helper()
	data := noise(uint64(time.Now().UnixNano()), n)
	o := batch.Object{Digest: shard.Sum(data), Size: int64(n)}
	if err := r.own.Publish(context.Background(), o.Digest.Path(), data); err != nil {
		r.t.Fatal(err)
	}
	return o
}

// encode makes a batch.
func (r *rig) encode(e batch.Epoch, seq batch.Seq, objects []batch.Object) *batch.Sealed {
	r.t.Helper()
	env := batch.Envelope{
		VolumeID: r.volume.ID, Volume: r.volume.Name, Node: "alpha", Epoch: e, First: seq, Last: seq,
		Base: r.log.b.Base, SealedAt: time.Now(), Introduces: objects, Complete: true,
	}
	if prev, ok := r.log.batches[seq-1]; ok {
		env.Prev = &prev.Digest
	}
	sealed, err := r.sealEnv(env)
	if err != nil {
		r.t.Fatal(err)
	}
	return sealed
}

// seal makes the next batch, introducing these shards.
func (r *rig) seal(objects ...batch.Object) Batch {
	r.t.Helper()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	seq := r.log.b.Head + 1
	sealed := r.encode(r.log.b.Epoch, seq, objects)
	env := &sealed.Envelope
	if err := r.own.Publish(context.Background(), batch.Path(env.Epoch, seq, seq), sealed.File); err != nil {
		r.t.Fatal(err)
	}
	b := Batch{Epoch: env.Epoch, Seq: seq, Digest: sealed.Digest}
	r.log.batches[seq] = b
	r.log.b.Head = seq
	return b
}

func (r *rig) pusher() *Pusher { return New(r.target) }

func (r *rig) push(p *Pusher, want int) {
	r.t.Helper()
	n, err := p.PushOnce(context.Background())
	if err != nil || n != want {
		r.t.Fatalf("pushed %d batches, %v; want %d", n, err, want)
	}
}

// complete checks that the destination has every batch from first on, and all their shards, with the own store's bytes.
func (r *rig) complete(first batch.Seq) {
	r.t.Helper()
	for seq := first; seq <= r.log.b.Head; seq++ {
		o, ok, err := readSealed(context.Background(), r.own, r.log, seq)
		if err != nil || !ok {
			r.t.Fatalf("batch %d: %v", seq, err)
		}
		names := []string{o.path}
		for _, s := range o.objects {
			names = append(names, s.Digest.Path())
		}
		for _, name := range names {
			got, err := os.ReadFile(filepath.Join(r.destDir, filepath.FromSlash(name)))
			if err != nil {
				r.t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(r.ownDir, filepath.FromSlash(name)))
			if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
				r.t.Fatalf("%s differs (%v)", name, err)
			}
		}
	}
}

// acks writes what the daemon beside the destination would.
func (r *rig) acks(name, kind string, head batch.Seq, full bool) {
	r.t.Helper()
	b := r.log.batches[head]
	a := ack.Acks{
		VolumeID: r.volume.ID, Store: name, Kind: kind, Epoch: b.Epoch, Head: head, HeadDigest: b.Digest, Full: full,
		Copies: 1, At: time.Now(),
	}
	if err := ack.Write(context.Background(), openLocal(r.t, r.destDir), a); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) removeAt(dir, name string) {
	r.t.Helper()
	if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
		r.t.Fatal(err)
	}
}

func openLocal(t testing.TB, dir string) store.Store {
	t.Helper()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func noise(seed uint64, n int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}
