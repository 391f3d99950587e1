// Package volumetest makes small volumes for tests: real keys, real shards and batches, in stores that are real directories.
// Its writer is simpler than the spooler and does what it is told, so that tests can make volumes that no spooler would.
//
// Nothing outlives the test: all lies in its temporary directory.
package volumetest

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/keys"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// Owner seals batches with a key of its own.
type Owner struct {
	Key  string // in authorized_keys form
	Seal func(batch.Envelope, *batch.Body, []age.Recipient) (*batch.Sealed, error)
}

// NewOwner makes a key.
func NewOwner(t testing.TB, node string) *Owner {
	t.Helper()
	return OwnerAt(t, filepath.Join(t.TempDir(), "node.key"), node)
}

// OwnerAt uses the key in a file, which is made if it is not there.
func OwnerAt(t testing.TB, path, node string) *Owner {
	t.Helper()
	signer, err := keys.EnsureNodeKey(path, node)
	if err != nil {
		t.Fatal(err)
	}
	return &Owner{Key: keys.PublicLine(signer), Seal: func(env batch.Envelope, body *batch.Body, to []age.Recipient) (*batch.Sealed, error) {
		return batch.Seal(env, body, to, signer)
	}}
}

// Volume is a volume being written. The fields may be changed between two batches.
type Volume struct {
	t        testing.TB
	ID       batch.VolumeID
	Owner    *Owner
	Identity *age.X25519Identity
	Secret   chunk.Secret
	Stores   []chain.NamedStore // every object is published to all of them
	Dirs     []string           // of the stores
	Epoch    batch.Epoch
	Next     batch.Seq
	Base     batch.Seq
	Prev     *batch.Digest
	Now      time.Time

	keys    chunk.Keys
	builder *shard.Builder
	open    []slot
	sealed  []batch.Object
}

// slot is a piece that gets its place when its shard is sealed.
type slot struct {
	piece *batch.Piece
	slot  *shard.Slot
}

// New makes an empty volume with stores of the given names.
func New(t testing.TB, names ...string) *Volume {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	v := &Volume{
		t: t, ID: batch.NewVolumeID(), Owner: NewOwner(t, "alpha"), Identity: id, Epoch: 1, Next: 1, Base: 1,
		Now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	}
	_, _ = rand.Read(v.Secret[:]) // never fails
	v.keys = chunk.DeriveKeys(v.Secret)
	if v.builder, err = shard.NewBuilder(v.recipients(), v.keys); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		dir := filepath.Join(t.TempDir(), "projects")
		s, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v.Stores = append(v.Stores, chain.NamedStore{Name: n, Store: s})
		v.Dirs = append(v.Dirs, dir)
	}
	return v
}

func (v *Volume) recipients() []age.Recipient { return []age.Recipient{v.Identity.Recipient()} }

// Source returns all stores with the right identity and owner.
func (v *Volume) Source() chain.Source {
	return chain.Source{Stores: v.Stores, IDs: []age.Identity{v.Identity}, Owners: []string{v.Owner.Key}}
}

// Pieces cuts data into chunks of at most size bytes and adds them to the open shard. The pieces are right after the next Seal.
func (v *Volume) Pieces(data []byte, size int) []batch.Piece {
	v.t.Helper()
	pieces := make([]batch.Piece, (len(data)+size-1)/size)
	for i := range pieces {
		part := data[i*size : min(len(data), (i+1)*size)]
		if !v.builder.Fits(len(part)) {
			v.flush()
		}
		id := v.keys.ID(part)
		s, err := v.builder.Add(id, part)
		if err != nil {
			v.t.Fatal(err)
		}
		v.open = append(v.open, slot{&pieces[i], s})
	}
	return pieces
}

// Content makes the content of a file without holes.
func (v *Volume) Content(data string) *batch.Content {
	v.t.Helper()
	return &batch.Content{Size: int64(len(data)), Pieces: v.Pieces([]byte(data), chunk.Max), Clean: true}
}

// flush seals the open shard and publishes it.
func (v *Volume) flush() {
	v.t.Helper()
	if v.builder.Len() == 0 {
		return
	}
	d, data, err := v.builder.Seal()
	if err != nil {
		v.t.Fatal(err)
	}
	for _, o := range v.open {
		*o.piece = batch.Piece{Shard: d, Slot: *o.slot}
	}
	v.open = nil
	v.sealed = append(v.sealed, batch.Object{Digest: d, Size: int64(len(data))})
	v.Publish(d.Path(), data)
}

// Flush ends the open shard, so that the pieces made so far have their places.
func (v *Volume) Flush() { v.t.Helper(); v.flush() }

// Publish puts an object into every store.
func (v *Volume) Publish(name string, data []byte) {
	v.t.Helper()
	for _, s := range v.Stores {
		if err := s.Store.Publish(context.Background(), name, data); err != nil {
			v.t.Fatal(err)
		}
	}
}

// Seal ends the shard and seals the next batch with what it is given. change, if not nil, has the last word on the envelope.
func (v *Volume) Seal(body *batch.Body, change func(*batch.Envelope)) *batch.Sealed {
	v.t.Helper()
	v.flush()
	v.Now = v.Now.Add(time.Second)
	env := batch.Envelope{
		VolumeID: v.ID, Volume: "projects", Node: "alpha", Epoch: v.Epoch, First: v.Next, Last: v.Next, Prev: v.Prev,
		Base: v.Base, SealedAt: v.Now, Introduces: v.sealed, Complete: true,
	}
	v.sealed = nil
	if v.Next == 1 && body.Secret == nil {
		body.Secret = &v.Secret
	}
	if change != nil {
		change(&env)
	}
	s, err := v.Owner.Seal(env, body, v.recipients())
	if err != nil {
		v.t.Fatal(err)
	}
	for d, data := range s.BodyShards {
		v.Publish(d.Path(), data)
	}
	v.Publish(batch.Path(env.Epoch, env.First, env.Last), s.File)
	v.Next, v.Prev = env.Last+1, &s.Digest
	return s
}
