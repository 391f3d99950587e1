package chain_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/store"
)

// step is a batch that adds one empty file named after its number.
func step(v *volumetest.Volume) *batch.Body {
	id := batch.FileID(v.Next + 1)
	return &batch.Body{
		Inodes:  []batch.Inode{{ID: id, Mode: unix.S_IFREG | 0o644, Content: &batch.Content{Clean: true}}},
		Entries: []batch.Entry{{Parent: batch.Root, Name: fmt.Sprint(v.Next), ID: id}},
	}
}

func steps(v *volumetest.Volume, n int) {
	for range n {
		v.Seal(step(v), nil)
	}
}

// visited returns the batches that a moment is made of, oldest first, as text.
func visited(t *testing.T, src chain.Source, at chain.At) (string, *chain.Line, error) {
	t.Helper()
	ctx := context.Background()
	l, err := chain.Open(ctx, src)
	if err != nil {
		return "", nil, err
	}
	c, err := l.Choose(ctx, at, len(l.Slots))
	if err != nil {
		return "", l, err
	}
	var names []string
	err = l.Back(ctx, c, func(_ *batch.Envelope, body *batch.Body) (bool, error) {
		for _, e := range body.Entries {
			names = append(names, e.Name)
		}
		return false, nil
	})
	slices.Reverse(names)
	return strings.Join(names, " "), l, err
}

func remove(t *testing.T, dir string, e batch.Epoch, seq batch.Seq) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, batch.Path(e, seq, seq))); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMoments(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 3)
	v.Seal(step(v), func(e *batch.Envelope) { e.Complete, e.Why, e.LastWhole = false, "gap", 3 })
	v.Seal(step(v), func(e *batch.Envelope) { e.Complete, e.Why, e.LastWhole = false, "gap", 3 })
	begin := v.Now.Add(-5 * time.Second)
	for _, c := range []struct {
		at   chain.At
		want string
		err  error
	}{
		{chain.At{}, "1 2 3", nil},
		{chain.At{Incomplete: true}, "1 2 3 4 5", nil},
		{chain.At{Seq: 2}, "1 2", nil},
		{chain.At{Seq: 4}, "1 2 3", nil},
		{chain.At{Seq: 4, Incomplete: true}, "1 2 3 4", nil},
		{chain.At{Seq: 6}, "", chain.ErrNoBatch},
		{chain.At{Time: begin.Add(time.Second)}, "1", nil},
		{chain.At{Time: begin.Add(2999 * time.Millisecond)}, "1 2", nil},
		{chain.At{Time: begin}, "", chain.ErrNoBatch},
		{chain.At{Time: begin.Add(time.Hour)}, "1 2 3", nil},
	} {
		got, _, err := visited(t, v.Source(), c.at)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("at %+v: %q, %v; want %q, %v", c.at, got, err, c.want, c.err)
		}
	}
}

func TestNeverComplete(t *testing.T) {
	v := volumetest.New(t, "vault1")
	for range 2 {
		v.Seal(step(v), func(e *batch.Envelope) { e.Complete, e.Why = false, "adoption" })
	}
	got, l, err := visited(t, v.Source(), chain.At{})
	if got != "1 2" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	c, err := l.Choose(context.Background(), chain.At{}, len(l.Slots))
	if err != nil || c.Whole || len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "adoption") {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestFullBatchAndBaseEndTheWalk(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 3)
	v.Seal(step(v), func(e *batch.Envelope) { e.Full, e.Base = true, 3 })
	v.Base = 3
	steps(v, 1)
	remove(t, v.Dirs[0], 1, 1)
	if got, _, err := visited(t, v.Source(), chain.At{}); got != "4 5" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	v.Base = 5
	steps(v, 1)
	if got, _, err := visited(t, v.Source(), chain.At{}); got != "5 6" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Each of two stores lacks, or has damaged, what the other has.
func TestTwoStoresWithHoles(t *testing.T) {
	v := volumetest.New(t, "vault1", "vault2")
	steps(v, 9)
	remove(t, v.Dirs[0], 1, 1)
	remove(t, v.Dirs[0], 1, 9)
	remove(t, v.Dirs[1], 1, 4)
	flip(t, filepath.Join(v.Dirs[0], batch.Path(1, 6, 6)))
	got, l, err := visited(t, v.Source(), chain.At{})
	if got != "1 2 3 4 5 6 7 8 9" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	faults := l.Faults()
	if len(faults) != 1 || faults[0].Store != "vault1" || !errors.Is(faults[0].Err, batch.ErrCorrupt) {
		t.Errorf("faults: %v", faults)
	}
}

func TestHole(t *testing.T) {
	for _, damage := range []func(v *volumetest.Volume){
		func(v *volumetest.Volume) { remove(t, v.Dirs[0], 1, 4) },
		func(v *volumetest.Volume) { flip(t, filepath.Join(v.Dirs[0], batch.Path(1, 4, 4))) },
	} {
		v := volumetest.New(t, "vault1")
		steps(v, 6)
		damage(v)
		_, l, err := visited(t, v.Source(), chain.At{})
		var hole *chain.HoleError
		if !errors.As(err, &hole) {
			t.Fatalf("no hole: %v", err)
		}
		c, err := l.Choose(context.Background(), chain.At{}, hole.Limit)
		if err != nil || c.Batch.Envelope.Last != 3 {
			t.Errorf("the newest before the hole: %+v, %v", c, err)
		}
	}
}

func TestStrangersBatches(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 2)
	owner := v.Owner
	v.Owner = volumetest.NewOwner(t, "mallory")
	steps(v, 1) // signed by another key inside the epoch
	v.Epoch = 2
	steps(v, 2) // an epoch of its own
	src := v.Source()
	src.Owners = []string{owner.Key}
	_, l, err := visited(t, src, chain.At{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Choose(context.Background(), chain.At{}, len(l.Slots))
	if err != nil || c.Batch.Envelope.Last != 2 || c.Whole {
		t.Errorf("chose %+v, %v", c, err)
	}
	if len(l.Side) != 2 {
		t.Errorf("side branch: %v", l.Side)
	}
	if list, err := l.Branches(context.Background()); len(list) != 0 || err != nil {
		t.Errorf("a stranger's batches are a branch: %+v, %v", list, err)
	}
	src.Owners = []string{volumetest.NewOwner(t, "bravo").Key}
	if _, _, err := visited(t, src, chain.At{}); !errors.Is(err, chain.ErrOwner) {
		t.Errorf("nobody known signed anything: %v", err)
	}
	src.Owners = nil
	if _, _, err := visited(t, src, chain.At{}); !errors.Is(err, chain.ErrOwner) {
		t.Errorf("no owner known: %v", err)
	}
}

// A later owner's key is believed because the one before named it, in the batch it is chained to or in the envelope it carries.
func TestNextOwner(t *testing.T) {
	for _, embed := range []bool{false, true} {
		v := volumetest.New(t, "vault1")
		first, second := v.Owner, volumetest.NewOwner(t, "bravo")
		steps(v, 2)
		named := v.Seal(step(v), func(e *batch.Envelope) { e.NextKeys = []string{second.Key} })
		late := v.Next
		prev := v.Prev
		steps(v, 2) // what the first owner still sealed is a side branch
		v.Owner, v.Epoch, v.Next, v.Prev = second, 2, late, prev
		v.Seal(step(v), func(e *batch.Envelope) {
			if embed {
				b, err := batch.Parse(named.File)
				if err != nil {
					t.Fatal(err)
				}
				e.NamedBy = b.SignedEnvelope()
			}
		})
		src := v.Source()
		src.Owners = []string{first.Key}
		got, l, err := visited(t, src, chain.At{})
		if got != "1 2 3 4" || err != nil {
			t.Fatalf("embedded %v: %q, %v", embed, got, err)
		}
		list, err := l.Branches(context.Background())
		if err != nil || len(list) != 1 {
			t.Fatalf("branches: %+v, %v", list, err)
		}
		if b := list[0]; b.Epoch != 1 || b.Node != "alpha" || b.First != 4 || b.Last != 5 || !slices.Equal(b.Stores, []string{"vault1"}) || b.SealedAt.IsZero() {
			t.Errorf("branch: %+v", b)
		}
		src.Epoch = 1
		got, l, err = visited(t, src, chain.At{})
		if got != "1 2 3 4 5" || err != nil {
			t.Errorf("the branch itself: %q, %v", got, err)
		}
		if list, err := l.Branches(context.Background()); len(list) != 0 || err != nil {
			t.Errorf("beside the branch: %+v, %v", list, err)
		}
	}
}

// An envelope that names the key but comes from somebody else, or from another epoch or volume, is worth nothing.
func TestFalseNaming(t *testing.T) {
	v := volumetest.New(t, "vault1")
	owner, mallory := v.Owner, volumetest.NewOwner(t, "mallory")
	s := v.Seal(step(v), nil)
	v.Owner = mallory
	env := s.Envelope
	env.NextKeys = []string{mallory.Key}
	fake, err := mallory.Seal(env, step(v), []age.Recipient{v.Identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := batch.Parse(fake.File)
	if err != nil {
		t.Fatal(err)
	}
	v.Epoch = 2
	v.Seal(step(v), func(e *batch.Envelope) { e.NamedBy = b.SignedEnvelope() })
	src := v.Source()
	src.Owners = []string{owner.Key}
	if got, _, err := visited(t, src, chain.At{}); got != "1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBrokenChain(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 2)
	v.Prev = &batch.Digest{7}
	steps(v, 1)
	_, _, err := visited(t, v.Source(), chain.At{})
	var hole *chain.HoleError
	if !errors.As(err, &hole) || hole.Limit != 2 {
		t.Errorf("%v", err)
	}
}

// Two stores have different batches under one number; the one that the next names is right.
func TestForkIsResolvedByTheChain(t *testing.T) {
	v := volumetest.New(t, "vault1", "vault2")
	steps(v, 1)
	both := v.Stores
	v.Stores = both[:1]
	next, prev := v.Next, v.Prev
	v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: 1, Name: "wrong", ID: 2}}}, nil)
	v.Next, v.Prev, v.Stores = next, prev, both[1:]
	steps(v, 1)
	v.Stores = both
	steps(v, 1)
	if got, _, err := visited(t, v.Source(), chain.At{}); got != "1 2 3" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestThinnedBatchKeepsTheChain(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 3)
	prev := v.Prev
	for s := batch.Seq(1); s <= 3; s++ {
		remove(t, v.Dirs[0], 1, s)
	}
	v.Next, v.Prev = 1, nil
	v.Seal(step(v), func(e *batch.Envelope) { e.Last, e.StandsFor = 3, prev })
	v.Prev = prev
	steps(v, 1)
	if got, _, err := visited(t, v.Source(), chain.At{}); got != "1 4" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWrongIdentity(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 2)
	src := v.Source()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	src.IDs = []age.Identity{id}
	if _, _, err := visited(t, src, chain.At{}); !errors.Is(err, chain.ErrIdentity) {
		t.Errorf("another identity: %v", err)
	}
	src.IDs = nil
	if _, _, err := visited(t, src, chain.At{}); !errors.Is(err, chain.ErrIdentity) {
		t.Errorf("no identity: %v", err)
	}
}

func TestOtherVolumeUnderTheSameName(t *testing.T) {
	v, other := volumetest.New(t, "vault1"), volumetest.New(t, "vault2")
	other.Owner = v.Owner
	steps(v, 2)
	steps(other, 4)
	src := v.Source()
	src.Stores = append(src.Stores, other.Stores...)
	_, l, err := visited(t, src, chain.At{})
	if l == nil {
		t.Fatal(err)
	}
	c, err := l.Choose(context.Background(), chain.At{}, len(l.Slots))
	if err != nil || c.Batch.Envelope.Last != 2 || c.Batch.Envelope.VolumeID != v.ID {
		t.Errorf("%+v, %v", c, err)
	}
	if faults := l.Faults(); len(faults) == 0 || faults[0].Store != "vault2" {
		t.Errorf("faults: %v", faults)
	}
}

func TestManyBatches(t *testing.T) {
	v := volumetest.New(t, "vault1")
	const n = 600
	steps(v, n)
	start := time.Now()
	got, l, err := visited(t, v.Source(), chain.At{})
	if err != nil || len(strings.Fields(got)) != n {
		t.Fatalf("%d of %d, %v", len(strings.Fields(got)), n, err)
	}
	t.Logf("%d batches read in %v", n, time.Since(start))
	moments, err := l.History(context.Background())
	if err != nil || len(moments) != n || moments[0].Seq != 1 || moments[n-1].Seq != n {
		t.Errorf("%d moments, %v", len(moments), err)
	}
}

func TestLocate(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 1)
	ctx := context.Background()
	root, err := store.Open(filepath.Dir(v.Dirs[0]), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	roots := []chain.NamedStore{{Name: "cache1", Store: empty}, {Name: "vault1", Store: root}}
	for _, name := range []string{"", "projects"} {
		found, err := chain.Locate(ctx, roots, name)
		if err != nil || found.Volume != "projects" || len(found.Stores) != 1 || found.Stores[0].Name != "vault1" || found.Silent != nil {
			t.Errorf("locate %q: %+v, %v", name, found, err)
		}
	}
	if found, err := chain.Locate(ctx, v.Stores, ""); err != nil || len(found.Stores) != 1 {
		t.Errorf("a volume's own directory: %v, %v", found, err)
	}
	if _, err := chain.Locate(ctx, roots, "other"); !errors.Is(err, chain.ErrNoBatch) {
		t.Errorf("an absent volume: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(filepath.Dir(v.Dirs[0]), "second", "batches"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Locate(ctx, roots, ""); err == nil || !strings.Contains(err.Error(), "projects, second") {
		t.Errorf("two volumes: %v", err)
	}
	if err := root.Publish(ctx, "second/volume.json", []byte(`{"format":2}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Locate(ctx, roots, "second"); !errors.Is(err, batch.ErrFormat) {
		t.Errorf("a newer format: %v", err)
	}
}

// silent is a store whose host is off: nothing answers until the caller gives up.
type silent struct{ store.Store }

func (silent) List(ctx context.Context, _ string) ([]store.Info, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", store.ErrTemporary, ctx.Err())
}

// Stores that do not answer hold nobody up for long, and are among the faults of what is read from the others.
func TestLocateWithSilentStores(t *testing.T) {
	v := volumetest.New(t, "vault1")
	steps(v, 1)
	root, err := store.Open(filepath.Dir(v.Dirs[0]), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		roots := []chain.NamedStore{{Name: "bravo", Store: silent{}}, {Name: "vault1", Store: root}, {Name: "cache1", Store: silent{}}}
		began := time.Now()
		found, err := chain.Locate(t.Context(), roots, "")
		if err != nil || len(found.Stores) != 1 || found.Stores[0].Name != "vault1" {
			t.Fatalf("%+v, %v", found, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		src := v.Source()
		src.Stores, src.Silent = found.Stores, found.Silent
		line, err := chain.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		f := line.Faults()
		if len(f) != 2 || f[0].Store != "bravo" || f[1].Store != "cache1" || !errors.Is(f[0].Err, store.ErrTemporary) {
			t.Errorf("faults %v", f)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := chain.Locate(ctx, roots[:1], ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody answers: %v", err)
		}
	})
}
