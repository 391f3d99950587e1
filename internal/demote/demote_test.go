package demote

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/promote"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// former is alpha, which owned the volume in epoch 1, with a spool that has its first batch and one that nobody else has; bravo, named
// by that first batch, owns epoch 2, of which cache1 alone knows.
type former struct {
	t     *testing.T
	v     *volumetest.Volume
	opt   Options
	bravo *volumetest.Owner
	first *batch.Sealed
}

func newFormer(t *testing.T) *former {
	v := volumetest.New(t, "cache1", "alpha")
	dir := t.TempDir()
	f := &former{t: t, v: v, bravo: volumetest.NewOwner(t, "bravo")}
	f.opt = Options{
		Primary: &config.Primary{
			Node: "alpha", Volume: "projects", State: dir, Spool: config.Spool{Dir: filepath.Dir(v.Dirs[1])},
			Cache: config.Store{Name: "cache1", URL: filepath.Dir(v.Dirs[0])},
		},
		Path: filepath.Join(dir, "alpha.yml"), Store: filepath.Join(t.TempDir(), "account", "data"),
	}
	v.Owner = volumetest.OwnerAt(t, state.Dir(dir).NodeKey(), "alpha")
	f.first = v.Seal(f.body("of alpha"), func(e *batch.Envelope) { e.NextKeys = []string{f.bravo.Key} })
	return f
}

func (f *former) body(data string) *batch.Body {
	return &batch.Body{
		Inodes: []batch.Inode{
			{ID: batch.Root, Mode: 0o040755},
			{ID: 2, Mode: 0o100644, Content: f.v.Content(data)},
		},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "file", ID: 2}},
	}
}

// promoted has bravo begin epoch 2 behind alpha's first batch, beside a second one that alpha alone has.
func (f *former) promoted() {
	f.t.Helper()
	all, next, prev := f.v.Stores, f.v.Next, f.v.Prev
	f.v.Stores = all[1:]
	f.v.Seal(f.body("of alpha alone"), nil)
	f.v.Stores, f.v.Next, f.v.Prev = all[:1], next, prev
	first, err := batch.Parse(f.first.File)
	must(f.t, err)
	f.v.Owner, f.v.Epoch = f.bravo, 2
	f.v.Seal(f.body("of bravo"), func(e *batch.Envelope) { e.Node, e.NamedBy = "bravo", first.SignedEnvelope() })
	f.v.Stores = all
}

// TestDemote: the peer's store begins with what the owner had, only what it lacks comes from elsewhere, the key is the same, and the
// new owner's word counts.
func TestDemote(t *testing.T) {
	f := newFormer(t)
	f.promoted()
	r, err := Run(t.Context(), f.opt)
	if err != nil {
		t.Fatal(err)
	}
	if r.From != "alpha" || r.To != "bravo" || r.Epoch != 2 || r.Head != 2 || r.Shards == 0 {
		t.Errorf("%+v", r)
	}
	c, err := config.Load(r.Config)
	must(t, err)
	p := c.Peer
	if p == nil || p.Node != "alpha" || p.Store != f.opt.Store || p.Cache.Name != "cache1" {
		t.Fatalf("%+v", p)
	}
	for _, path := range []string{batch.Path(1, 1, 1), batch.Path(2, 2, 2)} {
		if _, err := os.Stat(filepath.Join(p.Store, "projects", path)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(p.Store, "projects", batch.Path(1, 2, 2))); !os.IsNotExist(err) {
		t.Error("the side branch is among the copies:", err)
	}
	if _, err := os.Stat(filepath.Join(f.v.Dirs[1], batch.Path(1, 2, 2))); err != nil {
		t.Error("the side branch has left the spool:", err)
	}
	signer, err := keys.LoadNodeKey(state.Dir(p.State).NodeKey())
	must(t, err)
	pins, err := intake.Pins(filepath.Join(p.State, "pins")).Read("projects")
	if err != nil || len(pins) != 2 || pins[0] != keys.PublicLine(signer) || pins[1] != f.bravo.Key {
		t.Errorf("pinned %q: %v", pins, err)
	}
	if r, err := Run(t.Context(), f.opt); err != nil || r.Shards != 0 {
		t.Errorf("once more: %+v, %v", r, err)
	}
}

// TestExistingPeer: a node that was a peer before it was promoted is one again, and can be promoted again.
func TestExistingPeer(t *testing.T) {
	f := newFormer(t)
	f.promoted()
	st := t.TempDir()
	data, err := os.ReadFile(state.Dir(f.opt.Primary.State).NodeKey())
	must(t, err)
	must(t, os.WriteFile(state.Dir(st).NodeKey(), data, 0o600))
	f.opt.Peer = &config.Peer{Node: "alpha", Name: "alpha", Store: f.opt.Store, State: st, Cache: f.opt.Primary.Cache}
	f.opt.Path = promote.ConfigPath(f.opt.Peer, "projects")
	f.opt.Peer.Warm = t.TempDir()
	f.opt.Primary.Source = promote.WarmDir(f.opt.Peer, "projects")
	warm := promote.WarmState(f.opt.Peer, "projects")
	must(t, os.MkdirAll(warm, 0o700))
	must(t, os.WriteFile(f.opt.Path, []byte("as it was"), 0o600))
	side := filepath.Join(f.opt.Store, "projects", batch.Path(1, 2, 2)) // pushed by a former owner who did not know
	must(t, os.MkdirAll(filepath.Dir(side), 0o750))
	was, err := os.ReadFile(filepath.Join(f.v.Dirs[1], batch.Path(1, 2, 2)))
	must(t, err)
	must(t, os.WriteFile(side, was, 0o600))
	r, err := Run(t.Context(), f.opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(warm); !os.IsNotExist(err) {
		t.Error("the state of the warm tree that people have written is still there:", err)
	}
	if _, err := os.Stat(side); !os.IsNotExist(err) {
		t.Error("a batch of the side branch would count:", err)
	}
	if kept, err := os.ReadFile(filepath.Join(f.opt.Store, "projects", "refused", filepath.Base(side)+".side-branch")); err != nil || !bytes.Equal(kept, was) {
		t.Error("it was not kept:", err)
	}
	if _, err := os.Stat(f.opt.Path); !os.IsNotExist(err) {
		t.Error("the owner's configuration is still there:", err)
	}
	if text, err := os.ReadFile(r.Retired); err != nil || string(text) != "as it was" {
		t.Errorf("%s: %q, %v", r.Retired, text, err)
	}
	must(t, os.Remove(state.Dir(st).NodeKey()))
	must(t, os.Remove(state.Dir(st).NodeKey()+".pub"))
	_, err = keys.EnsureNodeKey(state.Dir(st).NodeKey(), "alpha")
	must(t, err)
	if _, err := Run(t.Context(), f.opt); !errors.Is(err, ErrOtherKey) {
		t.Error("a peer with another key:", err)
	}
}

func TestRefuses(t *testing.T) {
	t.Run("still the owner", func(t *testing.T) {
		f := newFormer(t)
		if _, err := Run(t.Context(), f.opt); !errors.Is(err, ErrStillOwner) {
			t.Error(err)
		}
		if _, err := os.Stat(f.opt.Store); !os.IsNotExist(err) {
			t.Error("something was copied:", err)
		}
	})
	t.Run("mounted", func(t *testing.T) {
		f := newFormer(t)
		f.promoted()
		lock, err := durable.Lock(state.Dir(f.opt.Primary.State).Lock())
		must(t, err)
		defer func() { must(t, lock.Close()) }()
		if _, err := Run(t.Context(), f.opt); !errors.Is(err, durable.ErrLocked) {
			t.Error(err)
		}
	})
}
