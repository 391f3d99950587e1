package spooler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// journalWatch tells when the journal grows. It is a hint that saves time: the loop looks every second all the same, since
// events can be lost.
type journalWatch struct {
	dir string
	w   *fsnotify.Watcher
}

func newJournalWatch(dir string) (*journalWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(dir); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	j := &journalWatch{dir: dir, w: w}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	for _, e := range entries {
		if e.IsDir() {
			j.follow(filepath.Join(dir, e.Name()))
		}
	}
	return j, nil
}

// follow watches one instance. One that is gone again needs no watch.
func (j *journalWatch) follow(instance string) {
	_ = j.w.Add(instance) // a failure (too many watches) only costs speed
}

// run calls grown at each event until ctx ends.
func (j *journalWatch) run(ctx context.Context, grown func()) error {
	for {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), j.w.Close())
		case e, ok := <-j.w.Events:
			if !ok {
				return fmt.Errorf("watch journal: %w", fsnotify.ErrClosed)
			}
			if e.Has(fsnotify.Create) && filepath.Dir(e.Name) == j.dir {
				j.follow(e.Name)
			}
			grown()
		case _, ok := <-j.w.Errors:
			if !ok {
				return fmt.Errorf("watch journal: %w", fsnotify.ErrClosed)
			}
			grown() // an overflow: look
		}
	}
}
