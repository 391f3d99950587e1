package history

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/keys"
	"slipway/internal/store"
)

// rig is one node's history; the test seals.
type rig struct {
	*History
	t       *testing.T
	catalog string
	key     key
	next    []string // keys that envelopes name
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key is a node's.
type key struct {
	line string
	sign func(batch.Envelope, *batch.Body, []age.Recipient) (*batch.Sealed, error)
}

func newKey(t *testing.T, name string) key {
	t.Helper()
	signer, err := keys.EnsureNodeKey(filepath.Join(t.TempDir(), "node.key"), name)
	check(t, err)
	return key{keys.PublicLine(signer), func(e batch.Envelope, b *batch.Body, to []age.Recipient) (*batch.Sealed, error) {
		return batch.Seal(e, b, to, signer)
	}}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, catalog: filepath.Join(dir, "catalog.db"), key: newKey(t, "alpha")}
	r.next = []string{r.key.line}
	own, err := store.Open(dir, store.Options{})
	check(t, err)
	t.Cleanup(func() { check(t, own.Close()) })
	r.History = New(Options{
		VolumeID: batch.NewVolumeID(), Own: store.Sub(own, "projects"), Dir: filepath.Join(dir, "projects"), Key: r.next[0],
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
	})
	return r
}

// open opens what lies there, and closes it at the end.
func (r *rig) open() {
	r.t.Helper()
	check(r.t, r.Open(r.catalog))
	r.t.Cleanup(func() { check(r.t, r.Close()) })
}

func (r *rig) close() {
	r.t.Helper()
	check(r.t, r.Close())
}

// sealed makes the next batch, as package seal would.
func (r *rig) sealed() *batch.Sealed {
	r.t.Helper()
	m := r.Meta()
	env := batch.Envelope{
		VolumeID: r.opt.VolumeID, Volume: "projects", Node: "alpha", Epoch: m.Epoch, First: m.Head + 1, Last: m.Head + 1, Base: m.Base,
		SealedAt: time.Now().UTC().Round(0), NextKeys: r.next, Complete: true,
	}
	body := &batch.Body{}
	if m.Head > 0 {
		env.Prev = &m.HeadDigest
	}
	if first := r.First(); first.Fresh {
		env.Full, env.NamedBy, env.Base = true, first.NamedBy, env.First
		secret, err := keys.NewSecret(filepath.Join(r.t.TempDir(), "secret"))
		check(r.t, err)
		body.Secret = &secret
	}
	recipient, err := keys.NewIdentity(filepath.Join(r.t.TempDir(), "identity"), "alpha", r.next[0])
	check(r.t, err)
	to, err := keys.ParseRecipients([]string{recipient})
	check(r.t, err)
	s, err := r.key.sign(env, body, to)
	check(r.t, err)
	return s
}

// commit writes a batch as far as the catalog's transaction.
func (r *rig) commit(s *batch.Sealed) {
	r.t.Helper()
	temp, err := r.WriteTemp(s)
	check(r.t, err)
	m := r.Meta()
	m.VolumeID, m.Head, m.HeadDigest, m.Base = r.opt.VolumeID, s.Envelope.Last, s.Digest, s.Envelope.Base
	m.SealedAt, m.HeadTemp = s.Envelope.SealedAt, filepath.Base(temp)
	check(r.t, r.cat.Update(func(tx *catalog.Tx) error {
		if err := r.SetMeta(tx, m); err != nil {
			return err
		}
		return tx.PutBatch(catalog.BatchInfo{Epoch: m.Epoch, Seq: m.Head, SealedAt: m.SealedAt, Digest: m.HeadDigest})
	}))
	r.Begun()
}

// seal commits and publishes so many batches.
func (r *rig) seal(n int) {
	r.t.Helper()
	for range n {
		r.commit(r.sealed())
		check(r.t, r.PublishHead())
	}
}

func (r *rig) expect(epoch batch.Epoch, head batch.Seq, fresh bool) {
	r.t.Helper()
	if m := r.Meta(); m.Epoch != epoch || m.Head != head || r.First().Fresh != fresh {
		r.t.Errorf("epoch %d, head %d, fresh: %v; want %d, %d, %v", m.Epoch, m.Head, r.First().Fresh, epoch, head, fresh)
	}
}

// TestGoesOn: a history that was closed is found where it was.
func TestGoesOn(t *testing.T) {
	r := newRig(t)
	r.open()
	r.expect(1, 0, true)
	r.seal(2)
	r.expect(1, 2, false)
	r.close()
	r.open()
	r.expect(1, 2, false)
	if at := r.SealedAt(2); !at.Equal(r.Meta().SealedAt) {
		t.Errorf("batch 2 was sealed at %v, the catalog says %v", r.Meta().SealedAt, at)
	}
}

// TestDyingAfterCommit: the batch that the catalog has gets its name at the next start.
func TestDyingAfterCommit(t *testing.T) {
	r := newRig(t)
	r.open()
	r.seal(1)
	s := r.sealed()
	r.commit(s)
	name := batch.Path(1, 2, 2)
	if _, err := r.ReadBatch(name); !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("it has its name already: %v", err)
	}
	for range 2 { // and a start that dies behind it repeats only this
		r.close()
		r.open()
		r.expect(1, 2, false)
		b, err := r.ReadBatch(name)
		check(t, err)
		if b.Digest != s.Digest {
			t.Error("it is another batch")
		}
	}
}

// TestEpochEnds: where catalog and own store do not fit together, the next epoch begins behind the newest batch, named by an envelope of the
// epoch before; what cannot be gone on with is kept.
func TestEpochEnds(t *testing.T) {
	var older []byte
	for _, tc := range []struct {
		name  string
		lose  func(r *rig) error
		head  batch.Seq
		aside bool
	}{
		{"no catalog", func(r *rig) error { return os.Remove(r.catalog) }, 3, false},
		{"a damaged catalog", func(r *rig) error { return os.WriteFile(r.catalog, make([]byte, 1<<16), 0o600) }, 3, true},
		{"an older catalog", func(r *rig) error { return os.WriteFile(r.catalog, older, 0o600) }, 3, true},
		{"no newest batch", func(r *rig) error { return os.Remove(r.batchFile(1, 3)) }, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.open()
			r.seal(2)
			r.close()
			var err error
			older, err = os.ReadFile(r.catalog)
			check(t, err)
			r.open()
			r.seal(1)
			r.close()
			check(t, tc.lose(r))
			r.open()
			r.expect(2, tc.head, true)
			if r.First().NamedBy == "" || r.First().Continued {
				t.Errorf("%+v", r.First())
			}
			kept, err := filepath.Glob(r.catalog + ".aside-*")
			if err != nil || (len(kept) == 1) != tc.aside {
				t.Errorf("set aside: %v, %v", kept, err)
			}
			r.seal(1)
			r.close()
			r.open()
			r.expect(2, tc.head+1, false)
		})
	}
}

// TestNotNamed: an epoch is not begun behind batches that do not name this node.
func TestNotNamed(t *testing.T) {
	r := newRig(t)
	r.open()
	r.seal(1)
	r.close()
	check(t, os.Remove(r.catalog))
	stranger := New(r.opt)
	stranger.opt.Key = newKey(t, "bravo").line
	if err := stranger.Open(r.catalog); err == nil {
		t.Error("a node that nobody named begins an epoch")
	}
	check(t, stranger.Close())
}

// TestOtherVolume: neither a catalog nor a batch of another volume is taken.
func TestOtherVolume(t *testing.T) {
	r := newRig(t)
	r.open()
	r.seal(1)
	other := New(r.opt)
	other.opt.VolumeID = batch.NewVolumeID()
	if _, err := other.ReadBatch(batch.Path(1, 1, 1)); err == nil {
		t.Error("a batch of another volume is taken")
	}
	r.close()
	if err := other.Open(r.catalog); err == nil {
		t.Error("a catalog of another volume is taken")
	}
	check(t, other.Close())
	r.open()
}

// TestAdoptForeign: what another store has newest takes the place of what was sealed here under its number, which is kept; a batch that no
// owner signed is refused.
func TestAdoptForeign(t *testing.T) {
	r := newRig(t)
	r.open()
	r.seal(1)
	theirs := r.sealed()
	r.seal(2) // 2 and 3, a side branch
	name := batch.Path(1, 2, 2)
	if err := r.AdoptForeign(t.Context(), name, theirs.File, []string{newKey(t, "bravo").line}); err == nil {
		t.Fatal("a batch that no owner signed is taken")
	}
	check(t, r.AdoptForeign(t.Context(), name, theirs.File, r.next))
	newest, data, err := Newest(t.Context(), r.opt.Own)
	check(t, err)
	if newest != name || !slices.Equal(data, theirs.File) {
		t.Errorf("the newest is %s, theirs: %v", newest, slices.Equal(data, theirs.File))
	}
	kept, err := filepath.Glob(filepath.Join(r.opt.Dir, "refused", "*.side-branch"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// TestSuperseded: an epoch that another node began, named by an envelope of this one, ends its ownership; its own epochs do not.
func TestSuperseded(t *testing.T) {
	r := newRig(t)
	bravo := newKey(t, "bravo")
	r.next = append(r.next, bravo.line)
	r.open()
	r.seal(1)
	looks := func(want bool, when string) {
		t.Helper()
		got, err := r.SupersededAt(t.Context(), r.opt.Own, "cache1")
		if err != nil || (got != nil) != want {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	looks(false, "nobody was promoted")
	head, err := r.ReadBatch(batch.Path(1, 1, 1))
	check(t, err)
	next := New(r.opt)
	next.meta, next.first = r.meta, First{Fresh: true, NamedBy: head.SignedEnvelope()}
	next.meta.Epoch = 2
	name := batch.Path(2, 2, 2)
	for _, begins := range []struct {
		by   key
		want bool
		when string
	}{{r.key, false, "it began the epoch itself, having lost its state"}, {bravo, true, "bravo was promoted"}, {newKey(t, "eve"), false, "nobody named eve"}} {
		x := &rig{History: next, t: t, key: begins.by, next: []string{begins.by.line}}
		check(t, r.opt.Own.Publish(t.Context(), name, x.sealed().File))
		looks(begins.want, begins.when)
		check(t, r.opt.Own.Remove(t.Context(), name))
	}
}
