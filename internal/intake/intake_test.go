package intake

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/store"
)

func TestTakesAChain(t *testing.T) {
	r := newRig(t)
	if name, err := r.Next(t.Context(), &r.chain); name != "" || err != nil {
		t.Errorf("an empty store offers %q, %v", name, err)
	}
	first := r.take(func(e *batch.Envelope) { e.Introduces = []batch.Object{r.shard(10), r.shard(1 << 20)} })
	if !first.Pin || first.Size == 0 || time.Since(first.Received) > time.Minute {
		t.Errorf("the first is %+v", first)
	}
	must(t, r.Pins.Add("projects", r.owner.key, time.Now()))
	if second := r.take(nil); second.Pin {
		t.Error("the second would be pinned too")
	}
	if r.chain.Low != 1 || r.chain.Head != 2 || !r.chain.Whole() || r.chain.Present().Key != r.owner.key {
		t.Errorf("the chain is %+v", r.chain)
	}
	if name, err := r.Next(t.Context(), &r.chain); name != "" || err != nil {
		t.Errorf("at the end: %q, %v", name, err)
	}
}

// wantRefusal checks the file as the chain's next.
func (r *rig) wantRefusal(name, object, reason string) Refusal {
	r.t.Helper()
	_, err := r.Check(context.Background(), &r.chain, name)
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != reason || refusal.Name != object {
		r.t.Fatalf("got %v, want %s refused for its %s", err, object, reason)
	}
	return *refusal
}

func TestRefusesEnvelopes(t *testing.T) {
	other := newOwner(t)
	tests := []struct {
		name, reason string
		by           *owner
		edit         func(e *batch.Envelope)
	}{
		{"stranger", "owner", &other, nil},
		{"other volume", "volume", nil, func(e *batch.Envelope) { e.VolumeID = batch.NewVolumeID() }},
		{"other batch before it", "chain", nil, func(e *batch.Envelope) { e.Prev = &batch.Digest{7} }},
		{"base goes back", "base", nil, func(e *batch.Envelope) { e.Base = 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.take(nil)
			r.take(func(e *batch.Envelope) { e.Base = 2 })
			env := r.envelope()
			env.Base = 2
			if tt.edit != nil {
				tt.edit(&env)
			}
			by := r.owner
			if tt.by != nil {
				by = *tt.by
			}
			r.put(by, env)
			name := batch.Path(env.Epoch, env.First, env.Last)
			r.wantRefusal(name, name, tt.reason)
		})
	}
	t.Run("other name", func(t *testing.T) {
		r := newRig(t)
		r.take(nil)
		env := r.envelope()
		env.First, env.Last = 5, 5
		b, err := r.owner.seal(env)
		must(t, err)
		name := batch.Path(1, 2, 2)
		must(t, r.Store.Publish(t.Context(), name, b.File))
		r.wantRefusal(name, name, "name")
	})
	t.Run("too large", func(t *testing.T) {
		r := newRig(t)
		name := batch.Path(1, 1, 1)
		must(t, r.Store.Publish(t.Context(), name, make([]byte, batch.MaxFile+1)))
		r.wantRefusal(name, name, "size")
	})
	t.Run("newer", func(t *testing.T) {
		r := newRig(t)
		name := batch.Path(1, 1, 1)
		must(t, r.Store.Publish(t.Context(), name, []byte("slipway-batch 2\n")))
		if refusal := r.wantRefusal(name, name, "format"); !errors.Is(refusal.Cause, batch.ErrFormat) {
			t.Errorf("the cause is %v", refusal.Cause)
		}
	})
}

func TestShardsOfABatch(t *testing.T) {
	with := func(t *testing.T, spoil func(path string)) (*rig, string, batch.Object) {
		r := newRig(t)
		env := r.envelope()
		o := r.shard(5000)
		env.Introduces = []batch.Object{r.shard(10), o}
		r.put(r.owner, env)
		spoil(filepath.Join(r.Dir, o.Digest.Path()))
		return r, batch.Path(1, 1, 1), o
	}
	t.Run("missing", func(t *testing.T) {
		r, name, o := with(t, func(path string) { must(t, os.Remove(path)) })
		_, err := r.Check(t.Context(), &r.chain, name)
		var m *Missing
		if !errors.As(err, &m) || m.Count != 1 || m.Of != 2 || m.Digest != o.Digest || m.Seq != 1 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("flipped", func(t *testing.T) {
		r, name, o := with(t, func(path string) { rewrite(t, path, func(d []byte) { d[4999] ^= 1 }, 5000) })
		r.wantRefusal(name, o.Digest.Path(), "digest")
	})
	t.Run("shorter", func(t *testing.T) {
		r, name, o := with(t, func(path string) { rewrite(t, path, nil, 4999) })
		r.wantRefusal(name, o.Digest.Path(), "size")
	})
	t.Run("longer", func(t *testing.T) {
		r, name, o := with(t, func(path string) { rewrite(t, path, nil, 5001) })
		r.wantRefusal(name, o.Digest.Path(), "size")
	})
	t.Run("link", func(t *testing.T) {
		r, name, o := with(t, func(path string) {
			must(t, os.Rename(path, path+"x")) //nolint:forbidigo // a test spoils a store
			must(t, os.Symlink(path+"x", path))
		})
		r.wantRefusal(name, o.Digest.Path(), "type")
	})
	t.Run("directory", func(t *testing.T) {
		r, name, o := with(t, func(path string) { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o770)) })
		refusal := r.wantRefusal(name, o.Digest.Path(), "type")
		must(t, r.SetAside(&refusal))
		if _, err := os.Lstat(filepath.Join(r.Dir, o.Digest.Path())); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	})
}

func rewrite(t *testing.T, path string, change func([]byte), size int) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data = append(data, 0)
	if change != nil {
		change(data)
	}
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, data[:size], 0o660))
}

func TestSetAsideKeepsAll(t *testing.T) {
	r := newRig(t)
	name := batch.Path(1, 1, 1)
	for i := range 3 {
		must(t, r.Store.Publish(t.Context(), name, []byte{byte(i)}))
		must(t, r.SetAside(&Refusal{name, "format", errors.New("no batch")}))
	}
	must(t, r.Store.Publish(t.Context(), name, []byte{0})) // one that is kept already
	must(t, r.SetAside(&Refusal{name, "format", errors.New("no batch")}))
	must(t, r.SetAside(&Refusal{name, "format", errors.New("it has gone")}))
	kept, err := os.ReadDir(filepath.Join(r.Dir, "refused"))
	must(t, err)
	if len(kept) != 3 {
		t.Errorf("%d files are kept, want 3: %v", len(kept), kept)
	}
}

// TestReceivedByOurClock: a sender may set the modification time to what it likes.
func TestReceivedByOurClock(t *testing.T) {
	r := newRig(t)
	r.take(nil)
	name := batch.Path(1, 1, 1)
	begin := time.Now()
	must(t, os.Chtimes(filepath.Join(r.Dir, name), time.Unix(0, 0), time.Unix(1, 0)))
	if at := r.ReceivedAt(name); at.Before(begin.Add(-time.Minute)) {
		t.Errorf("received at %v", at)
	}
	r.Now = func() time.Time { return begin.Add(-time.Hour) } // our own clock was set back
	if at := r.ReceivedAt(name); at.After(r.Now()) {
		t.Errorf("received in the future, at %v", at)
	}
}

func TestLoadChecksAgain(t *testing.T) {
	r := newRig(t)
	r.take(nil)
	want := r.take(func(e *batch.Envelope) { e.Introduces = []batch.Object{r.shard(100)} })
	b, data, err := r.Load(t.Context(), &r.chain, 2)
	if err != nil || b.Digest != want.Batch.Digest || int64(len(data)) != want.Size {
		t.Fatalf("got %v, %v", b, err)
	}
	must(t, r.Recheck(t.Context(), b))
	if _, _, err := r.Load(t.Context(), &r.chain, 3); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("beyond the head: %v", err)
	}
	path := filepath.Join(r.Dir, batch.Path(1, 2, 2))
	for name, change := range map[string]func() []byte{
		"flipped":    func() []byte { return bytes.Replace(data, []byte(`"base":1`), []byte(`"base":2`), 1) },
		"older one":  func() []byte { old, _ := os.ReadFile(filepath.Join(r.Dir, batch.Path(1, 1, 1))); return old },
		"stranger's": func() []byte { s, err := newOwner(t).seal(b.Envelope); must(t, err); return s.File },
	} {
		must(t, os.WriteFile(path, change(), 0o660))
		var refusal *Refusal
		if _, _, err := r.Load(t.Context(), &r.chain, 2); !errors.As(err, &refusal) || refusal.Reason != "damaged" {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := want.Batch.Envelope.Introduces[0]
	must(t, os.Truncate(filepath.Join(r.Dir, o.Digest.Path()), 99))
	var refusal *Refusal
	if err := r.Recheck(t.Context(), want.Batch); !errors.As(err, &refusal) {
		t.Errorf("another size: %v", err)
	}
	must(t, os.Remove(filepath.Join(r.Dir, o.Digest.Path())))
	if err := r.Recheck(t.Context(), want.Batch); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}

func TestPins(t *testing.T) {
	pins := Pins(filepath.Join(t.TempDir(), "pins"))
	if keys, err := pins.Read("projects"); err != nil || keys != nil {
		t.Errorf("none: %v, %v", keys, err)
	}
	must(t, pins.Add("projects", "ssh-ed25519 AAAA alpha", time.Now()))
	must(t, pins.Add("projects", "ssh-ed25519 AAAA", time.Now()))
	must(t, pins.Add("projects", "ssh-ed25519 BBBB", time.Now()))
	keys, err := pins.Read("projects")
	if err != nil || strings.Join(keys, ",") != "ssh-ed25519 AAAA,ssh-ed25519 BBBB" {
		t.Errorf("got %q, %v", keys, err)
	}
	must(t, os.WriteFile(pins.path("projects"), []byte("{}"), 0o600))
	r := newRig(t)
	r.Pins = pins
	r.put(r.owner, r.envelope())
	var refusal *Refusal
	if _, err := r.Check(t.Context(), &r.chain, batch.Path(1, 1, 1)); err == nil || errors.As(err, &refusal) {
		t.Errorf("with a damaged pin: %v", err) // neither taken nor set aside: an operator has to look
	}
}

func TestChainCut(t *testing.T) {
	r := newRig(t)
	r.take(nil)
	second := r.take(nil)
	r.take(func(e *batch.Envelope) { e.Epoch = 2 })
	r.take(nil)
	if r.chain.At(2).Epoch != 1 || r.chain.At(3).Epoch != 2 || r.chain.At(9).Epoch != 2 || r.chain.At(0).Epoch != 0 {
		t.Errorf("epochs: %+v", r.chain.Epochs)
	}
	c := r.chain.Clone()
	c.Cut(second.Batch)
	if c.Head != 2 || c.Digest != second.Batch.Digest || len(c.Epochs) != 1 {
		t.Errorf("cut to 2: %+v", c)
	}
	c.Cut(nil)
	if c.Head != 0 || c.Low != 0 || len(c.Epochs) != 0 {
		t.Errorf("cut to nothing: %+v", c)
	}
	if r.chain.Head != 4 || len(r.chain.Epochs) != 2 {
		t.Error("the clone shared something")
	}
}

// TestMerged: a batch that stands for others hands their last digest on.
func TestMerged(t *testing.T) {
	r := newRig(t)
	digest := batch.Digest{42}
	a := r.take(func(e *batch.Envelope) { e.StandsFor = &digest })
	if r.chain.Digest != digest || a.Batch.Digest == digest {
		t.Errorf("the next has to name %s", r.chain.Digest)
	}
}
