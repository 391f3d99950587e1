package peer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/keys"
	"slipway/internal/progress"
	"slipway/internal/shard"
	"slipway/internal/state"
	"slipway/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is alpha, the owner of a volume, which pushes into the stores of its peers bravo and charlie, and a cache without a daemon.
// bravo is what is tested.
type rig struct {
	t      *testing.T
	cfg    *config.Peer
	stores map[string]store.Store // of bravo, charlie and cache1, rooted at the volume
	dirs   map[string]string
	volume state.Volume
	seal   func(env batch.Envelope) *batch.Sealed

	batches []*batch.Batch
	files   map[string][]byte // all that alpha has made
	told    uint64            // number of alpha's last progress file
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, stores: map[string]store.Store{}, dirs: map[string]string{}, files: map[string][]byte{},
		volume: state.Volume{Format: 1, Name: "projects", ID: batch.NewVolumeID()},
	}
	root := t.TempDir()
	for _, name := range []string{"bravo", "charlie", "cache1"} {
		dir := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Join(dir, "projects"), 0o770))
		s, err := store.Open(dir, store.Options{})
		must(t, err)
		r.stores[name], r.dirs[name] = store.Sub(s, "projects"), filepath.Join(dir, "projects")
	}
	r.cfg = &config.Peer{
		Node: "bravo", Name: "bravo", Store: filepath.Join(root, "bravo"), State: filepath.Join(root, "state"), Cap: 1 << 40,
		Cache: config.Store{Name: "cache1", URL: filepath.Join(root, "cache1")}, Replicas: []config.Store{{Name: "charlie", URL: filepath.Join(root, "charlie")}},
		StaleAfter: time.Minute, StallAfter: time.Minute, Step: 100 * time.Millisecond, PreferAfter: time.Minute,
	}
	key := filepath.Join(root, "node.key")
	must(t, keys.NewNodeKey(key, "alpha"))
	signer, err := keys.LoadNodeKey(key)
	must(t, err)
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	r.seal = func(env batch.Envelope) *batch.Sealed {
		sealed, err := batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
		must(t, err)
		return sealed
	}
	data, err := json.Marshal(r.volume)
	must(t, err)
	r.files["volume.json"] = data
	return r
}

// push lets alpha seal a batch of two shards and push all it has to the named stores.
func (r *rig) push(to ...string) *batch.Batch {
	r.t.Helper()
	seq := batch.Seq(len(r.batches) + 1)
	env := batch.Envelope{
		VolumeID: r.volume.ID, Volume: "projects", Node: "alpha", Epoch: 1, First: seq, Last: seq, Base: 1, SealedAt: time.Now(), Complete: true,
		Peers: []batch.Peer{{Name: "bravo"}, {Name: "charlie"}}, Counts: batch.Counts{Files: 2, Bytes: 300},
	}
	if seq > 1 {
		env.Prev = &r.batches[seq-2].Digest
	}
	for _, size := range []int{1000, 2000} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		o := batch.Object{Digest: shard.Sum(data), Size: int64(size)}
		env.Introduces = append(env.Introduces, o)
		r.files[o.Digest.Path()] = data
	}
	sealed := r.seal(env)
	b, err := batch.Parse(sealed.File)
	must(r.t, err)
	r.files[b.Path()] = sealed.File
	r.batches = append(r.batches, b)
	for _, name := range to {
		r.deliver(name)
	}
	return b
}

// deliver publishes what a store lacks of all batches.
func (r *rig) deliver(to string) {
	r.t.Helper()
	names := []string{"volume.json"}
	for _, b := range r.batches {
		for _, o := range b.Envelope.Introduces {
			names = append(names, o.Digest.Path())
		}
		names = append(names, b.Path())
	}
	for _, name := range names {
		must(r.t, r.stores[to].Publish(r.t.Context(), name, r.files[name]))
	}
}

// run runs a peer until the test ends, or until the function it returns is called.
func (r *rig) run() (p *Peer, stop func()) {
	r.t.Helper()
	p, err := New(Options{Config: r.cfg})
	must(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			r.t.Errorf("the peer ended: %v", err)
		}
		must(r.t, p.Close())
	}
	r.t.Cleanup(stop)
	return p, stop
}

// ill lets alpha say that it cannot deliver.
func (r *rig) ill() {
	r.t.Helper()
	r.told++
	must(r.t, progress.Write(r.t.Context(), r.stores["bravo"], progress.Progress{
		VolumeID: r.volume.ID, Volume: "projects", Node: "alpha", Run: "one", Number: r.told, Epoch: 1, Head: batch.Seq(len(r.batches)),
		State: progress.Failing, Error: "no route to cache1", At: time.Now(),
	}))
}

// await waits until something holds.
func (r *rig) await(what string, holds func() bool) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("it does not come: %s", what)
		}
	}
}

func (r *rig) status(p *Peer) control.Status {
	r.t.Helper()
	list, err := p.Status(r.t.Context())
	must(r.t, err)
	if len(list) == 0 {
		return control.Status{}
	}
	return list[0]
}

func (r *rig) warned(p *Peer, word string) bool {
	return strings.Contains(strings.Join(r.status(p).Warnings, "\n"), word)
}

// has tells whether a store has a file, with the bytes that alpha gave it.
func (r *rig) has(in, name string) bool {
	data, err := os.ReadFile(filepath.Join(r.dirs[in], name))
	return err == nil && string(data) == string(r.files[name])
}

// rot changes a byte of a shard and not its size.
func (r *rig) rot(in string, o batch.Object) {
	r.t.Helper()
	data := []byte(string(r.files[o.Digest.Path()]))
	data[7] ^= 1
	path := filepath.Join(r.dirs[in], o.Digest.Path())
	must(r.t, os.Remove(path))
	must(r.t, os.WriteFile(path, data, 0o660))
}
