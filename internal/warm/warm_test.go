package warm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/restore/volumetest"
	"slipway/internal/warm"
)

// place is where a warm tree lies.
type place struct {
	dir, state string
	log        *strings.Builder
}

func newPlace(t testing.TB) place {
	t.Helper()
	p := place{t.TempDir(), t.TempDir(), &strings.Builder{}}
	return p
}

func (p place) options(m *model) warm.Options {
	return warm.Options{
		Dir: p.dir, State: p.state, Log: slog.New(slog.NewTextHandler(p.log, nil)),
		Source: func(context.Context) (chain.Source, error) { return m.v.Source(), nil },
	}
}

func open(t testing.TB, m *model, p place) *warm.Tree {
	t.Helper()
	w, err := warm.Open(p.options(m))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func shut(t testing.TB, w *warm.Tree) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func apply(t testing.TB, w *warm.Tree) warm.Moment {
	t.Helper()
	at, err := w.ApplyOnce(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// restored describes a fresh restore of a moment.
func restored(t testing.TB, m *model, at batch.Seq) map[string]string {
	t.Helper()
	tree, err := restore.Load(context.Background(), m.v.Source(), restore.At{Seq: at})
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	if _, err := tree.Restore(context.Background(), restore.Options{Target: target}); err != nil {
		t.Fatal(err)
	}
	return volumetest.Scan(t, target)
}

func equal(t testing.TB, want, got map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("wanted, got:\n%s", d)
	}
}

// same is equal for tests that end there.
func same(t testing.TB, want, got map[string]string) {
	t.Helper()
	if equal(t, want, got); t.Failed() {
		t.FailNow()
	}
}

// After any changes in any number of batches the directory is what a restore would make.
func TestRandomBatches(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m, p := newModel(t, seed), newPlace(t)
	w := open(t, m, p)
	defer func() { shut(t, w) }()
	for range 40 {
		m.act()
	}
	for range 25 {
		for range 1 + m.rng.IntN(3) {
			for range m.rng.IntN(12) {
				m.act()
			}
			switch {
			case m.rng.IntN(9) == 0:
				m.sealFull(nil)
			default:
				m.seal(m.rng.IntN(4) > 0, nil)
			}
		}
		if m.whole == 0 {
			continue
		}
		for range m.rng.IntN(3) {
			shut(t, w)
			crashed(t, m, p, &crash{left: m.rng.IntN(40)})
			w = open(t, m, p)
		}
		at := apply(t, w)
		if at.Seq != m.whole {
			t.Fatalf("at batch %d, the newest complete is %d", at.Seq, m.whole)
		}
		same(t, restored(t, m, at.Seq), volumetest.Scan(t, p.dir))
	}
	m.seal(true, nil)
	apply(t, w)
	t.Logf("%d files in the end, compared as a whole %d times", len(m.entries), strings.Count(p.log.String(), "as a whole"))
	if found, err := w.Verify(context.Background()); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	if strings.Contains(p.log.String(), "level=ERROR") {
		t.Errorf("%s", p.log)
	}
	holds(t, w, m, p)
}

// holds compares what the tree says it holds with the volume and with the directory.
func holds(t *testing.T, w *warm.Tree, m *model, p place) {
	t.Helper()
	entries := 0
	err := w.Each(context.Background(), func(f *warm.File) error {
		if f.Path == "" {
			return nil
		}
		entries++
		if m.entries[key{f.Parent, f.Name}] != f.Inode.ID {
			return fmt.Errorf("%q is inode %d", f.Path, f.Inode.ID)
		}
		st, err := os.Lstat(filepath.Join(p.dir, f.Path))
		if f.There != (err == nil) {
			return fmt.Errorf("%q: there %v, %w", f.Path, f.There, err)
		}
		if err == nil && st.Sys().(*syscall.Stat_t).Ino != f.Ident.Ino {
			return fmt.Errorf("%q is another object", f.Path)
		}
		return nil
	})
	if err != nil || entries != len(m.entries) {
		t.Errorf("%d of %d entries, %v", entries, len(m.entries), err)
	}
}

// Batches that are not complete are left alone.
func TestIncomplete(t *testing.T) {
	m, p := newModel(t, 1), newPlace(t)
	w := open(t, m, p)
	defer shut(t, w)
	m.file(batch.Root, "one", "1")
	m.seal(false, nil)
	if at := apply(t, w); at.Seq != 0 {
		t.Fatalf("at %+v", at)
	}
	m.file(batch.Root, "two", "2")
	m.seal(true, nil)
	m.file(batch.Root, "three", "3")
	m.seal(false, nil)
	for range 2 {
		if at := apply(t, w); at.Seq != 2 {
			t.Fatalf("at %+v", at)
		}
		same(t, restored(t, m, 2), volumetest.Scan(t, p.dir))
	}
	if at, whole, err := w.At(); at.Seq != 2 || at.Epoch != 1 || !whole || err != nil || at.Volume != m.v.ID {
		t.Errorf("at %+v, %v, %v", at, whole, err)
	}
}

func TestRefused(t *testing.T) {
	m, p := newModel(t, 1), newPlace(t)
	m.file(batch.Root, "one", "1")
	m.seal(true, nil)
	w := open(t, m, p)
	apply(t, w)
	if _, err := warm.Open(p.options(m)); err == nil {
		t.Error("opened twice")
	}
	shut(t, w)
	before := volumetest.Scan(t, p.dir)

	foreign := p
	foreign.state = t.TempDir()
	if _, err := warm.Open(foreign.options(m)); !errors.Is(err, warm.ErrNotOwn) {
		t.Errorf("with another state: %v", err)
	}
	foreign = p
	foreign.dir = t.TempDir()
	if _, err := warm.Open(foreign.options(m)); !errors.Is(err, warm.ErrNotOwn) {
		t.Errorf("with another directory: %v", err)
	}
	other := newModel(t, 2)
	other.file(batch.Root, "other", "2")
	other.seal(true, nil)
	other.seal(true, nil)
	w = open(t, other, p)
	defer shut(t, w)
	if _, err := w.ApplyOnce(context.Background()); !errors.Is(err, warm.ErrVolume) {
		t.Errorf("with another volume: %v", err)
	}
	same(t, before, volumetest.Scan(t, p.dir))
}
