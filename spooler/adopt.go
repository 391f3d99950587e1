package spooler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/internal/state"
	"slipway/spooler/workers"
)

// Adopt seals a directory as it stands into the node's own store, and returns when a batch holds the whole of it. Nothing is mounted and
// nothing is pushed, and nobody may change the directory meanwhile: doctor tries with it what comes back of a tree.
func Adopt(ctx context.Context, opt Options) (err error) {
	w, err := journal.Create(state.Dir(opt.Config.State).Journal())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	id, attr, err := source.Stat(int(opt.Source.Fd()), "")
	if err != nil {
		return fmt.Errorf("look at %s: %w", opt.Source.Name(), err)
	}
	s, err := New(opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	working, stop := context.WithCancel(ctx)
	g, working := errgroup.WithContext(working)
	g.Go(func() error { return w.Run(working) })
	for range workers.Count {
		g.Go(func() error { return s.vol.pool.Loop(working, false) })
	}
	w.Append(&journal.Record{Op: journal.OpStart, Node: id, Attr: attr})
	g.Go(func() error {
		defer stop()
		return s.steps(working, func(again time.Duration, err error) (time.Duration, bool, error) {
			return again, err != nil || s.whole(), err
		})
	})
	if err := g.Wait(); err != nil && (!errors.Is(err, context.Canceled) || ctx.Err() != nil) {
		return fmt.Errorf("seal %s: %w", opt.Source.Name(), err)
	}
	return nil
}

// whole tells whether the head holds everything that there is.
func (s *Spooler) whole() bool {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.history.Meta().Head > 0 && v.history.Meta().Complete && !v.mirror.Walking() && v.pending.Len() == 0 && !v.sealer.Held()
}
