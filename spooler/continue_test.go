package spooler

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/config"
	"slipway/internal/fill"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/promote"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// successor is a rig on another node that goes on with r's volume from r's own store.
func (r *rig) successor(key string, index bool) (*rig, *promote.Seeded) {
	r.t.Helper()
	t, ctx, dir := r.t, r.t.Context(), r.t.TempDir()
	n := &rig{t: t, src: filepath.Join(dir, "src"), cache: r.cache, ident: r.ident}
	st := state.Dir(filepath.Join(dir, "state"))
	check(t, os.Mkdir(string(st), 0o700))
	for _, ext := range []string{"", ".pub"} {
		data, err := os.ReadFile(key + ext)
		check(t, err)
		check(t, os.WriteFile(st.NodeKey()+ext, data, 0o600))
	}
	cfg := *r.cfg
	cfg.Node, cfg.Source, cfg.Mount, cfg.State, cfg.Spool.Dir, cfg.Replicas = "bravo", n.src, n.src, string(st), st.Spool(), nil
	n.cfg = &cfg
	id, err := keys.LoadIdentity(r.ident)
	check(t, err)
	from, err := store.Open(filepath.Join(r.cfg.Spool.Dir, "projects"), store.Options{})
	check(t, err)
	line, err := chain.Open(ctx, chain.Source{Stores: []chain.NamedStore{{Name: "alpha", Store: from}}, IDs: id.Identities, Owners: id.Owners["alpha"]})
	check(t, err)
	check(t, os.Mkdir(cfg.Spool.Dir, 0o750))
	root, err := store.Open(cfg.Spool.Dir, store.Options{})
	check(t, err)
	own := store.Sub(root, "projects")
	filled, err := fill.Fill(ctx, line, own, fill.Options{})
	check(t, err)
	tree, err := restore.FromLine(ctx, line, restore.At{Seq: filled.Head.Envelope.Last, Incomplete: true})
	check(t, err)
	res, err := tree.Restore(ctx, restore.Options{Target: n.src})
	check(t, err)
	if res.Partial() {
		t.Fatalf("%+v", res)
	}
	vol, err := state.Dir(r.cfg.State).ReadVolume()
	check(t, err)
	seed := &promote.Seed{State: st, Volume: vol, Source: n.src, Tree: tree, Head: filled.Head, Own: own, Index: index}
	seeded, err := seed.Make(ctx)
	check(t, err)
	n.root, err = os.Open(n.src)
	check(t, err)
	t.Cleanup(func() { check(t, n.root.Close()) })
	return n, seeded
}

// promotable is a rig with a varied tree, whose batches name the key of bravo; it returns the file of that key.
func promotable(t *testing.T) (*rig, string) {
	t.Helper()
	r := newRig(t)
	key := filepath.Join(t.TempDir(), "node.key")
	signer, err := keys.EnsureNodeKey(key, "bravo")
	check(t, err)
	r.cfg.Replicas = []config.Store{{Name: "bravo", URL: t.TempDir(), Key: keys.PublicLine(signer)}}
	r.mount()
	r.open()
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	r.mkdir("dir")
	r.mkdir("dir/deep")
	r.create("dir/big", string(big))
	r.create("dir/deep/small", "small")
	r.create("gone", "not for long")
	r.symlink("dir/big", "link")
	r.link("dir/deep/small", "second")
	r.drain()
	r.remove("gone")
	r.rename("dir/deep", "moved", 0)
	r.create("last", "last of alpha")
	r.drain()
	return r, key
}

// stored returns the bytes of the batches behind seq and of what they introduce.
func (r *rig) stored(seq batch.Seq) (sum int64) {
	r.t.Helper()
	check(r.t, r.s.vol.history.Catalog().View(func(tx *catalog.Tx) error {
		return tx.Batches(seq+1, func(b catalog.BatchInfo) error { sum += b.Stored; return nil })
	}))
	return sum
}

// TestContinue: a peer that is promoted goes on with the tree. Its first batch holds all of it, refers to what is there, and nothing
// is read again; the cache accepts the epoch, and a restore from the cache is what lies in the new source.
func TestContinue(t *testing.T) {
	r, key := promotable(t)
	before := r.head()
	ids := r.ids()
	r.close()
	n, seeded := r.successor(key, true)
	if len(seeded.Differ)+len(seeded.Missing) > 0 || seeded.Files != 7 {
		t.Errorf("%+v", seeded)
	}
	n.mount()
	n.open()
	n.drain()
	first := n.first(before.Last + 1)
	if first.Epoch != 2 || !first.Full || first.Base != before.Base || first.NamedBy == "" || first.Counts.Files != 0 {
		t.Errorf("first batch: %+v", first)
	}
	if got := n.stored(before.Last); got > 20<<10 {
		t.Errorf("%d bytes were sealed though nothing has changed", got)
	}
	if got := n.ids(); !equalIDs(got, ids) {
		t.Errorf("ids were %v, are %v", ids, got)
	}
	n.restored()
	seq := n.head().Last
	n.create("new", "a small file of bravo")
	n.drain()
	if got := n.stored(seq); got > 8<<10 {
		t.Errorf("a small file took %d bytes", got)
	}
	if id := n.ids()["new"]; id < catalog.FirstFile(2) {
		t.Errorf("id %d may have been used before", id)
	}
	// A copy of what is there costs no content: the index knows the chunks.
	seq = n.head().Last
	data, err := os.ReadFile(filepath.Join(n.src, "dir/big"))
	check(t, err)
	n.create("copy", string(data))
	n.drain()
	if got := n.stored(seq); got > 64<<10 {
		t.Errorf("a copy of a sealed file took %d bytes", got)
	}
	n.restored()
	n.accepted()
	// Once sealed, the epoch is begun: a restart goes on in it.
	n.close()
	n.open()
	if n.s.vol.history.First().Fresh || n.s.vol.history.Meta().Epoch != 2 {
		t.Error("a restart begins the epoch again")
	}
}

// TestContinueWithoutIndex: where the readers from now on may not be those of before, content is sealed anew when it is met.
func TestContinueWithoutIndex(t *testing.T) {
	r, key := promotable(t)
	r.close()
	n, _ := r.successor(key, false)
	n.mount()
	n.open()
	n.drain()
	seq := n.head().Last
	data, err := os.ReadFile(filepath.Join(n.src, "dir/big"))
	check(t, err)
	n.create("copy", string(data))
	n.drain()
	if got := n.stored(seq); got < int64(len(data)) {
		t.Errorf("a copy took %d bytes of %d", got, len(data))
	}
	n.restored()
}

// TestContinueFindsChanges: what was changed, added and removed in the directory before the first start is what the new owner seals.
func TestContinueFindsChanges(t *testing.T) {
	r, key := promotable(t)
	r.close()
	n, _ := r.successor(key, true)
	check(t, os.WriteFile(filepath.Join(n.src, "last"), []byte("changed behind its back"), 0o644))
	check(t, os.WriteFile(filepath.Join(n.src, "moved/more"), []byte("added"), 0o644))
	check(t, os.Remove(filepath.Join(n.src, "link")))
	n.mount()
	n.open()
	n.drain()
	n.restored()
	n.accepted()
}

// TestContinueUnnamed: a node that no envelope names begins nothing.
func TestContinueUnnamed(t *testing.T) {
	r, _ := promotable(t)
	r.close()
	stranger := filepath.Join(t.TempDir(), "node.key")
	check(t, keys.NewNodeKey(stranger, "bravo"))
	n, _ := r.successor(stranger, true)
	n.mount()
	if _, err := New(Options{Config: n.cfg, Source: n.root}); err == nil {
		t.Fatal("a stranger began an epoch")
	}
}

// first returns the envelope of a batch of epoch 2.
func (r *rig) first(seq batch.Seq) *batch.Envelope {
	r.t.Helper()
	b, err := r.s.vol.history.ReadBatch(batch.Path(2, seq, seq))
	check(r.t, err)
	return &b.Envelope
}

// ids returns the id of each path of the catalog.
func (r *rig) ids() map[string]batch.FileID {
	r.t.Helper()
	ids := map[string]batch.FileID{}
	v := r.s.vol
	check(r.t, v.history.Catalog().View(func(tx *catalog.Tx) error {
		return tx.Inodes(func(in *catalog.Inode) error {
			return tx.Names(in.ID, func(parent batch.FileID, name string) error {
				dir := ""
				for parent != batch.Root {
					check(r.t, tx.Names(parent, func(up batch.FileID, n string) error { dir, parent = n+"/"+dir, up; return nil }))
				}
				ids[dir+name] = in.ID
				return nil
			})
		})
	}))
	return ids
}

func equalIDs(a, b map[string]batch.FileID) bool {
	same := len(a) == len(b)
	for k := range a {
		same = same && a[k] == b[k]
	}
	return same
}

// accepted lets a cache that pinned the first owner check the whole history, and compares a restore from it.
func (r *rig) accepted() {
	r.t.Helper()
	t, ctx := r.t, context.Background()
	check(t, push.ClaimVolume(ctx, store.Sub(mustOpen(t, r.cache), "projects"), "cache", r.s.vol.identity))
	id, err := keys.LoadIdentity(r.ident)
	check(t, err)
	line, err := chain.Open(ctx, chain.Source{Stores: []chain.NamedStore{{Name: "own", Store: r.s.vol.own}}, Owners: id.Owners["alpha"]})
	check(t, err)
	cache := store.Sub(mustOpen(t, r.cache), "projects")
	_, err = fill.Fill(ctx, line, cache, fill.Options{})
	check(t, err)
	k := &intake.Keeper{
		Volume: intake.Volume{Name: "projects", Dir: filepath.Join(r.cache, "projects"), Store: cache, Now: time.Now, Pins: intake.Pins(t.TempDir())},
		Kind:   "replica", StoreName: "cache1", State: t.TempDir(), Log: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)),
	}
	_, err = k.Arrive(ctx)
	check(t, err)
	c := k.Chain()
	if k.Head() != r.s.vol.history.Meta().Head || c.Present().Epoch != 2 {
		t.Errorf("the cache holds up to batch %d of epoch %d, sealed is %d; %+v", k.Head(), c.Present().Epoch, r.s.vol.history.Meta().Head, k.Standing())
	}
	keysPinned, err := k.Pins.Read("projects")
	if err != nil || !slices.Contains(keysPinned, r.s.vol.ownKey) || len(keysPinned) != 2 {
		t.Errorf("pinned %v %v", keysPinned, err)
	}
	r.restoredFrom(r.cache, restore.At{})
}

func mustOpen(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.Open(dir, store.Options{})
	check(t, err)
	return s
}
