package intake

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
)

// watched runs a Watcher of the rig's store.
func (r *rig) watched() (w *Watcher, woken <-chan string) {
	r.t.Helper()
	w = NewWatcher(filepath.Dir(r.Dir), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan string, 100)
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx, func(volume string) { c <- volume }) })
	r.t.Cleanup(func() { cancel(); must(r.t, g.Wait()) })
	r.await(w.Root) // it runs
	return w, c
}

func (r *rig) await(c <-chan struct{}) {
	r.t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		r.t.Fatal("nothing is told")
	}
}

func (r *rig) awaitVolume(woken <-chan string) {
	r.t.Helper()
	select {
	case name := <-woken:
		if name != "projects" {
			r.t.Fatalf("woken for %q", name)
		}
	case <-time.After(time.Minute):
		r.t.Fatal("nobody is woken")
	}
}

// TestWatch: each batch wakes its volume, also the first below directories that were not there yet, and those of a next epoch.
func TestWatch(t *testing.T) {
	r := newRig(t)
	w, woken := r.watched()
	arrive := func() {
		t.Helper()
		for r.take(nil); w.Follow(r.Volume, &r.chain); { // as a loop that looks again when there is more to watch
			continue
		}
		for len(woken) > 0 {
			<-woken
		}
	}
	if !w.Follow(r.Volume, &r.chain) || w.Follow(r.Volume, &r.chain) {
		t.Error("what is new among the watched directories is not told once")
	}
	r.put(r.owner, r.envelope()) // below three directories that are not there
	r.awaitVolume(woken)
	name, err := r.Next(t.Context(), &r.chain)
	must(t, err)
	a, err := r.Check(t.Context(), &r.chain, name)
	must(t, err)
	r.chain.Extend(a.Batch)
	arrive()
	for range 3 {
		r.put(r.owner, r.envelope())
		r.awaitVolume(woken)
		a, err := r.Check(t.Context(), &r.chain, batch.Path(1, r.chain.Head+1, r.chain.Head+1))
		must(t, err)
		r.chain.Extend(a.Batch)
		w.Follow(r.Volume, &r.chain)
	}
	env := r.envelope()
	env.Epoch = 2
	for dir := range strings.SplitSeq("batches/00000002 batches/00000002/00000000", " ") {
		must(t, os.Mkdir(filepath.Join(r.Dir, dir), 0o770))
		r.awaitVolume(woken)
		w.Follow(r.Volume, &r.chain)
	}
	r.put(r.owner, env)
	r.awaitVolume(woken)
}

// TestWatchRoot: a new volume is told, a half-written file is not.
func TestWatchRoot(t *testing.T) {
	r := newRig(t)
	w, woken := r.watched()
	w.Follow(r.Volume, &r.chain)
	must(t, os.Mkdir(filepath.Join(r.Dir, "batches"), 0o770))
	r.awaitVolume(woken)
	w.Follow(r.Volume, &r.chain)
	must(t, os.WriteFile(filepath.Join(r.Dir, "batches", ".half"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(r.Dir, "acks"), 0o750))
	must(t, os.WriteFile(filepath.Join(r.Dir, VolumeFile), nil, 0o600))
	r.awaitVolume(woken) // events come in order: neither of the others did it
	if len(woken) > 0 {
		t.Error("woken for a half-written file")
	}
	must(t, os.Mkdir(filepath.Join(filepath.Dir(r.Dir), "reports"), 0o750))
	r.await(w.Root)
}

// TestWatchLost: after an overflow everything is looked at.
func TestWatchLost(t *testing.T) {
	r := newRig(t)
	w, woken := r.watched()
	w.Follow(r.Volume, &r.chain)
	w.mu.Lock()
	n := w.notify
	w.mu.Unlock()
	n.Errors <- fsnotify.ErrEventOverflow
	r.awaitVolume(woken)
	r.await(w.Root)
	n.Errors <- errors.New("another fault")
	r.awaitVolume(woken)
}

// TestWatchBegins: a volume whose loop was quicker than the watcher is looked at again as soon as the watcher runs. What arrived in between would else be
// seen by the next listing only.
func TestWatchBegins(t *testing.T) {
	r := newRig(t)
	w := NewWatcher(filepath.Dir(r.Dir), slog.New(slog.DiscardHandler))
	if w.Follow(r.Volume, &r.chain) {
		t.Error("a watcher that does not run says that it watches")
	}
	ctx, cancel := context.WithCancel(t.Context())
	woken := make(chan string, 100)
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx, func(volume string) { woken <- volume }) })
	r.awaitVolume(woken)
	cancel()
	must(t, g.Wait())
}

// TestWatchNotRunning: before and after Run, and without a store, Follow harms nothing.
func TestWatchNotRunning(t *testing.T) {
	r := newRig(t)
	w := NewWatcher(filepath.Join(r.Dir, "none"), slog.New(slog.DiscardHandler))
	if w.Follow(r.Volume, &r.chain) {
		t.Error("something is watched")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, w.Run(ctx, func(string) {})) // woken for having asked too early
	if w.Follow(r.Volume, &r.chain) {
		t.Error("something is watched afterwards")
	}
}
