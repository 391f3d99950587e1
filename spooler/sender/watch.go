package sender

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"slipway/internal/durable"
	"slipway/internal/loop"
	"slipway/internal/store"
)

// watchEach is how often this node's own copy of the progress is read even when no event came: events can be lost.
const watchEach = time.Second

// watch wakes the loop when another node writes its progress into this node's own store.
func (s *Sender) watch(ctx context.Context) error {
	w, err := s.newWatcher()
	if err != nil {
		s.opt.Log.Warn("progress is only looked at every second", "volume", s.opt.Volume, "error", err)
	}
	if w == nil {
		return s.events(ctx, nil)
	}
	var g errgroup.Group
	g.Go(func() error {
		for range w.Errors { // an overflow: look
			loop.Nudge(s.wake)
		}
		return nil
	})
	g.Go(func() error {
		err := s.events(ctx, w.Events)
		return errors.Join(err, w.Close())
	})
	return g.Wait()
}

// newWatcher watches the directory of progress files; nil where the store is not local.
func (s *Sender) newWatcher() (*fsnotify.Watcher, error) {
	dir, local := store.LocalPath(s.opt.Own)
	if !local {
		return nil, nil
	}
	dir = filepath.Join(dir, "progress")
	if err := durable.MkdirAll(dir, 0o770); err != nil {
		return nil, fmt.Errorf("watch progress: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch progress: %w", err)
	}
	if err := w.Add(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("watch progress: %w", err), w.Close())
	}
	return w, nil
}

func (s *Sender) events(ctx context.Context, events <-chan fsnotify.Event) error {
	tick := time.NewTicker(watchEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events:
		case <-tick.C:
		}
		loop.Nudge(s.wake)
	}
}
