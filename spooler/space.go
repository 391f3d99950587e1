package spooler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/batch"
	"slipway/spooler/evict"
)

// evictEvery is how often the own store is looked through for what may go.
const evictEvery = 5 * time.Second

// abandonUnnamed removes the shards that the last run published and did not live to name; the next envelope lists them, so
// that a store they were pushed to can remove them as well.
func (v *volume) abandonUnnamed(ctx context.Context) ([]batch.Object, error) {
	unnamed, err := evict.Unnamed(ctx, v.own, v.history.Catalog())
	if err != nil {
		return nil, err
	}
	for _, o := range unnamed {
		if err := v.own.Remove(ctx, o.Digest.Path()); err != nil {
			return nil, fmt.Errorf("remove shard %s, which no batch names: %w", o.Digest, err)
		}
	}
	v.evictor, err = evict.Open(ctx, v.own, v.history.Catalog(), v.capBytes, &v.usage)
	return unnamed, err
}

// openBackups opens the backup hosts that this node has an account on, to look up what it may evict.
func (s *Spooler) openBackups() error {
	for _, b := range s.opt.Config.Backups {
		st, err := s.openStore(b)
		if err != nil {
			return err
		}
		s.backups = append(s.backups, st)
	}
	return nil
}

// evictLoop runs EvictOnce now and then.
func (s *Spooler) evictLoop(ctx context.Context) error {
	t := time.NewTicker(evictEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		freed, err := s.EvictOnce(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("local copies stay", "error", err)
		}
		if freed > 0 {
			s.nudge() // files may wait for room
		}
	}
}

// EvictOnce removes local copies of what is safe elsewhere and returns the bytes freed.
func (s *Spooler) EvictOnce(ctx context.Context) (int64, error) {
	e := s.vol.evictor
	if need := s.stages.Need(); len(s.backups) > 0 && need > 0 {
		e.Confirm = evict.HeldBy(s.backups, min(need, len(s.backups)))
	}
	var total int64
	for {
		freed, err := e.Once(ctx, s.stages.EvictHeads())
		total += freed
		if freed == 0 || err != nil {
			return total, err
		}
	}
}

func (s *Spooler) closeStores() error {
	var errs []error
	for _, p := range s.pushers {
		errs = append(errs, p.Close())
	}
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
