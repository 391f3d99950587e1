package intake

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/shard"
	"slipway/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// owner seals batches with a throw-away key.
type owner struct {
	key  string
	seal func(env batch.Envelope) (*batch.Sealed, error)
}

func newOwner(t *testing.T) owner {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	path := filepath.Join(t.TempDir(), "node.key")
	must(t, keys.NewNodeKey(path, "alpha"))
	signer, err := keys.LoadNodeKey(path)
	must(t, err)
	return owner{key: keys.PublicLine(signer), seal: func(env batch.Envelope) (*batch.Sealed, error) {
		return batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
	}}
}

// rig is a volume in a store, and its owner.
type rig struct {
	*Volume
	t     *testing.T
	owner owner
	chain Chain
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{})
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "projects"), 0o770))
	v := &Volume{
		Name: "projects", Dir: filepath.Join(dir, "projects"), Store: store.Sub(s, "projects"), ID: batch.NewVolumeID(),
		Pins: Pins(filepath.Join(t.TempDir(), "pins")), Now: time.Now,
	}
	return &rig{Volume: v, t: t, owner: newOwner(t)}
}

// envelope returns the one that would continue the chain.
func (r *rig) envelope() batch.Envelope {
	env := batch.Envelope{
		VolumeID: r.ID, Volume: "projects", Node: "alpha", Epoch: max(r.chain.Present().Epoch, 1), First: r.chain.Head + 1,
		Last: r.chain.Head + 1, Base: 1, SealedAt: time.Now(), Complete: true,
	}
	if r.chain.Head > 0 {
		d := r.chain.Digest
		env.Prev = &d
	}
	return env
}

// shard publishes a shard of random bytes.
func (r *rig) shard(size int) batch.Object {
	r.t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	o := batch.Object{Digest: shard.Sum(data), Size: int64(size)}
	must(r.t, r.Store.Publish(context.Background(), o.Digest.Path(), data))
	return o
}

// put seals and publishes.
func (r *rig) put(by owner, env batch.Envelope) *batch.Sealed {
	r.t.Helper()
	b, err := by.seal(env)
	must(r.t, err)
	must(r.t, r.Store.Publish(context.Background(), batch.Path(env.Epoch, env.First, env.Last), b.File))
	return b
}

// take puts the owner's next batch, checks it and extends the chain by it.
func (r *rig) take(edit func(*batch.Envelope)) *Arrival {
	r.t.Helper()
	env := r.envelope()
	if edit != nil {
		edit(&env)
	}
	r.put(r.owner, env)
	name, err := r.Next(context.Background(), &r.chain)
	must(r.t, err)
	a, err := r.Check(context.Background(), &r.chain, name)
	must(r.t, err)
	r.chain.Extend(a.Batch)
	return a
}
