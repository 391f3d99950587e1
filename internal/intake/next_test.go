package intake

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/batch"
)

func TestNextEpoch(t *testing.T) {
	begin := func(t *testing.T) (r *rig, bravo owner, named string) {
		r, bravo = newRig(t), newOwner(t)
		a := r.take(func(e *batch.Envelope) { e.NextKeys = []string{r.owner.key, bravo.key} })
		r.take(nil)
		return r, bravo, a.Batch.SignedEnvelope()
	}
	// second puts a first batch of epoch 2 and returns its name.
	second := func(r *rig, by owner, named string, edit func(*batch.Envelope)) string {
		env := r.envelope()
		env.Epoch, env.NamedBy = 2, named
		if edit != nil {
			edit(&env)
		}
		r.put(by, env)
		return batch.Path(env.Epoch, env.First, env.Last)
	}
	t.Run("the same owner", func(t *testing.T) {
		r, _, _ := begin(t)
		r.take(func(e *batch.Envelope) { e.Epoch = 2 })
		r.take(nil)
		if r.chain.Present().First != 3 || r.chain.Head != 4 {
			t.Errorf("the chain is %+v", r.chain)
		}
	})
	t.Run("a named one", func(t *testing.T) {
		r, bravo, named := begin(t)
		name := second(r, bravo, named, nil)
		next, err := r.Next(t.Context(), &r.chain)
		if next != name || err != nil {
			t.Fatalf("next is %q, %v", next, err)
		}
		a, err := r.Check(t.Context(), &r.chain, name)
		must(t, err)
		r.chain.Extend(a.Batch)
		old := r.envelope() // the owner before may not go on
		r.put(r.owner, old)
		r.wantRefusal(batch.Path(2, 4, 4), batch.Path(2, 4, 4), "owner")
	})
	t.Run("named in another volume", func(t *testing.T) {
		r, bravo, _ := begin(t)
		other := newRig(t)
		other.owner = r.owner
		a := other.take(func(e *batch.Envelope) { e.NextKeys = []string{bravo.key} })
		name := second(r, bravo, a.Batch.SignedEnvelope(), nil)
		r.wantRefusal(name, name, "owner")
	})
	t.Run("named, but another signs", func(t *testing.T) {
		r, _, named := begin(t)
		name := second(r, newOwner(t), named, nil)
		r.wantRefusal(name, name, "owner")
	})
	t.Run("in the same epoch", func(t *testing.T) {
		r, bravo, named := begin(t)
		name := second(r, bravo, named, func(e *batch.Envelope) { e.Epoch = 1 })
		r.wantRefusal(name, name, "owner")
	})
	t.Run("not among the configured", func(t *testing.T) {
		r, bravo, named := begin(t)
		r.Owners = []string{r.owner.key}
		name := second(r, bravo, named, nil)
		r.wantRefusal(name, name, "owner")
	})
	t.Run("configured", func(t *testing.T) {
		r, bravo, _ := begin(t)
		r.Owners = []string{bravo.key + " bravo"}
		name := second(r, bravo, "", nil)
		if _, err := r.Check(t.Context(), &r.chain, name); err != nil {
			t.Error(err)
		}
	})
	t.Run("taken out of the configuration", func(t *testing.T) {
		r, bravo, _ := begin(t)
		r.Owners = []string{bravo.key}
		r.put(r.owner, r.envelope())
		r.wantRefusal(batch.Path(1, 3, 3), batch.Path(1, 3, 3), "owner")
	})
	t.Run("an epoch later", func(t *testing.T) {
		r, _, _ := begin(t)
		second(r, r.owner, "", func(e *batch.Envelope) { e.Epoch = 3 })
		if name, err := r.Next(t.Context(), &r.chain); name != "" || err != nil {
			t.Errorf("next is %q, %v", name, err)
		}
	})
}

func TestForks(t *testing.T) {
	stray := func(r *rig, epoch batch.Epoch, seq batch.Seq) string {
		env := r.envelope()
		env.Epoch, env.First, env.Last = epoch, seq, seq
		r.put(r.owner, env)
		return batch.Path(epoch, seq, seq)
	}
	wantFork := func(t *testing.T, r *rig, name string) {
		t.Helper()
		_, err := r.Next(t.Context(), &r.chain)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Name != name || refusal.Reason != "fork" {
			t.Errorf("got %v", err)
		}
	}
	t.Run("before", func(t *testing.T) {
		r := newRig(t)
		r.take(nil)
		r.take(nil)
		wantFork(t, r, stray(r, 2, 2))
	})
	t.Run("behind", func(t *testing.T) {
		r := newRig(t)
		r.take(nil)
		r.take(nil)
		r.take(func(e *batch.Envelope) { e.Epoch = 2 })
		wantFork(t, r, stray(r, 2, 2))
	})
	t.Run("both", func(t *testing.T) {
		r := newRig(t)
		r.take(nil)
		r.take(nil)
		wrong := stray(r, 2, 2)
		right := stray(r, 2, 3)
		if _, err := r.Next(t.Context(), &r.chain); !errors.Is(err, ErrForked) {
			t.Errorf("got %v", err)
		}
		must(t, os.Remove(filepath.Join(r.Dir, wrong)))
		if name, err := r.Next(t.Context(), &r.chain); name != right || err != nil {
			t.Errorf("next is %q, %v", name, err)
		}
	})
}

// TestLowest: what lies in the directories besides batches is not seen.
func TestLowest(t *testing.T) {
	r := newRig(t)
	if e, low, err := r.Lowest(t.Context()); e != 0 || low != 0 || err != nil {
		t.Errorf("of nothing: %d, %d, %v", e, low, err)
	}
	env := r.envelope()
	env.First, env.Last, env.Prev, env.Base = 25_000, 25_000, &batch.Digest{1}, 20_000
	r.put(r.owner, env)
	env.Epoch, env.First, env.Last = 2, 30_000, 30_000
	r.put(r.owner, env)
	for _, name := range []string{
		"batches/00000001/00000002/notes.txt",
		"batches/00000001/00000002/000000000001-000000000001.batch", // in the wrong directory
		"batches/00000001/7/000000000007-000000000007.batch",
		"batches/old/00000000/000000000003-000000000003.batch",
	} {
		must(t, r.Store.Publish(t.Context(), name, []byte("x")))
	}
	if e, low, err := r.Lowest(t.Context()); e != 1 || low != 25_000 || err != nil {
		t.Errorf("got %d, %d, %v", e, low, err)
	}
	a, err := r.Check(t.Context(), &r.chain, batch.Path(1, 25_000, 25_000))
	must(t, err)
	r.chain.Extend(a.Batch)
	if r.chain.Low != 25_000 || r.chain.Whole() {
		t.Errorf("the chain is %+v", r.chain)
	}
}
