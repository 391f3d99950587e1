// Package watch tells the spooler that the journal grows.
//
// It keeps nothing: after a crash the spooler looks at the journal's end anyway.
package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"
)

// Watch follows one journal directory. It is a hint that saves time: the loop looks every second all the same, since
// events can be lost.
type Watch struct {
	dir string
	w   *fsnotify.Watcher
}

// New watches a journal directory and the instances in it.
func New(dir string) (*Watch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(dir); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	j := &Watch{dir: dir, w: w}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	for _, e := range entries {
		if e.IsDir() && isInstance(e.Name()) {
			j.follow(filepath.Join(dir, e.Name()))
		}
	}
	return j, nil
}

// isInstance tells an instance's directory from one that is still being made under another name and renamed in a moment.
func isInstance(name string) bool { return name != "" && name[0] >= '0' && name[0] <= '9' }

// follow watches one instance. One that is gone again needs no watch.
func (j *Watch) follow(instance string) {
	_ = j.w.Add(instance) // a failure (too many watches) only costs speed
}

// Run calls grown at each event until ctx ends. Errors have a reader of their own: fsnotify hands them over under the lock that
// Add needs, so one goroutine for both would wait for itself.
func (j *Watch) Run(ctx context.Context, grown func()) error {
	var g errgroup.Group
	g.Go(func() error {
		for range j.w.Errors { // closed with the watcher
			grown() // an overflow: look
		}
		return nil
	})
	g.Go(func() error {
		err := j.events(ctx, grown)
		return errors.Join(err, j.w.Close())
	})
	return g.Wait()
}

func (j *Watch) events(ctx context.Context, grown func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-j.w.Events:
			if !ok {
				return fmt.Errorf("watch journal: %w", fsnotify.ErrClosed)
			}
			switch {
			case filepath.Dir(e.Name) != j.dir:
				if err := j.burst(ctx, e.Name, grown); err != nil {
					return err
				}
			case e.Has(fsnotify.Create) && isInstance(filepath.Base(e.Name)):
				j.follow(e.Name)
			}
			grown()
		}
	}
}

const (
	// lookEvery is how often a journal that grows is looked at.
	lookEvery = 20 * time.Millisecond
	// quietLooks is how many looks in vain end a burst.
	quietLooks = 5
)

// burst follows a file of the journal by its size until it stops growing, and takes the watch away meanwhile: with it, every append would
// wake this process, which takes processor time from those who write.
func (j *Watch) burst(ctx context.Context, file string, grown func()) error {
	instance := filepath.Dir(file)
	_ = j.w.Remove(instance)
	defer j.follow(instance) // what comes before that is looked at after it
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for last, quiet := int64(-1), 0; quiet < quietLooks; quiet++ {
		info, err := os.Stat(file)
		if err != nil {
			return nil // trimmed
		}
		if info.Size() != last {
			last, quiet = info.Size(), 0
			grown()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
