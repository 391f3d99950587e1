package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/loop"
)

// Watcher tells which volumes to look at. It watches the store's root and, of each volume, only the directories in which the
// next batch may appear; events are hints, and lost ones are made up for by the periodic listing.
type Watcher struct {
	store string
	log   *slog.Logger
	Root  chan struct{} // something appeared in the store's own directory

	mu      sync.Mutex
	notify  *fsnotify.Watcher   // nil: not running
	watched map[string][]string // volume → its watched directories
	failed  bool                // said once that there are no more watches
}

// NewWatcher returns a watcher of a store's directory. Nothing is started.
func NewWatcher(store string, log *slog.Logger) *Watcher {
	return &Watcher{store: store, log: log, Root: make(chan struct{}, 1), watched: map[string][]string{}}
}

// Run hands events on until ctx ends: wake gets the name of the volume.
func (w *Watcher) Run(ctx context.Context, wake func(volume string)) error {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("watch the store: arrivals are only seen by listing", "error", err)
		<-ctx.Done()
		return nil
	}
	w.mu.Lock()
	w.notify = n
	w.mu.Unlock()
	if err := n.Add(w.store); err != nil {
		w.log.Warn("watch the store: arrivals are only seen by listing", "error", err)
	}
	w.everything(wake) // whoever asked before now is not watched
	// Errors have a reader of their own that waits for nothing: fsnotify hands them over under the lock that Add needs, and Add is
	// called with w.mu held.
	lost := make(chan struct{}, 1)
	var g errgroup.Group
	g.Go(func() error {
		for err := range n.Errors { // closed with the watcher
			w.log.Debug("watch the store: look at everything", "error", err)
			loop.Nudge(lost)
		}
		return nil
	})
	w.events(ctx, n, lost, wake)
	w.stop()
	return g.Wait()
}

func (w *Watcher) events(ctx context.Context, n *fsnotify.Watcher, lost <-chan struct{}, wake func(string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-n.Events:
			w.event(e, wake)
		case <-lost:
			w.everything(wake)
		}
	}
}

func (w *Watcher) stop() {
	w.mu.Lock()
	n := w.notify
	w.notify, w.watched = nil, map[string][]string{}
	w.mu.Unlock()
	_ = n.Close() // it only read
}

// event turns what appeared into a volume to look at. Files that are being written are not looked at: a batch appears by the
// rename that ends its publishing.
func (w *Watcher) event(e fsnotify.Event, wake func(string)) {
	if !e.Has(fsnotify.Create) || strings.HasPrefix(filepath.Base(e.Name), ".") {
		return
	}
	rel, err := filepath.Rel(w.store, e.Name)
	if err != nil {
		return
	}
	volume, below, deeper := strings.Cut(filepath.ToSlash(rel), "/")
	if !deeper {
		loop.Nudge(w.Root)
	}
	if below == "" || below == VolumeFile || below == "batches" || strings.HasPrefix(below, "batches/") {
		wake(volume)
	}
}

// everything wakes all volumes, after events were lost or before there were any.
func (w *Watcher) everything(wake func(string)) {
	w.mu.Lock()
	names := make([]string, 0, len(w.watched))
	for name := range w.watched {
		names = append(names, name)
	}
	w.mu.Unlock()
	for _, name := range names {
		wake(name)
	}
	loop.Nudge(w.Root)
}

// Follow watches the directories in which the volume's next batch may appear, and tells whether there is a new one among them:
// then something may have come into it before it was watched.
func (w *Watcher) Follow(v *Volume, c *Chain) (changed bool) {
	next, epoch := c.Head+1, max(c.Present().Epoch, 1)
	want := []string{v.Dir, filepath.Join(v.Dir, "batches")}
	for _, e := range []batch.Epoch{epoch, epoch + 1} {
		dir := path.Dir(batch.Path(e, next, next))
		want = append(want, filepath.Join(v.Dir, filepath.FromSlash(path.Dir(dir))), filepath.Join(v.Dir, filepath.FromSlash(dir)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notify == nil {
		w.watched[v.Name] = nil // woken when Run begins: until then nothing is seen
		return false
	}
	had := map[string]bool{}
	for _, dir := range w.watched[v.Name] {
		had[dir] = true
	}
	var now []string
	for _, dir := range want {
		if !had[dir] && !w.addLocked(dir) {
			continue
		}
		changed = changed || !had[dir]
		now = append(now, dir)
		delete(had, dir)
	}
	for dir := range had {
		_ = w.notify.Remove(dir) // it may be gone
	}
	w.watched[v.Name] = now
	return changed
}

// addLocked watches a directory, if it is there.
func (w *Watcher) addLocked(dir string) bool {
	err := w.notify.Add(dir)
	if err != nil && !w.failed && errors.Is(err, unix.ENOSPC) {
		w.failed = true
		w.log.Warn("watch the store: raise fs.inotify.max_user_watches; until then arrivals are only seen by listing",
			"error", fmt.Errorf("watch %s: %w", dir, err))
	}
	return err == nil
}
