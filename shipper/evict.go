package shipper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// runMaintain keeps the store within bounds until ctx ends.
func (s *Shipper) runMaintain(ctx context.Context) error {
	return loop.Every(ctx, maintainEvery, nil, func() time.Duration {
		if s.usage.due(s.now()) {
			s.count(ctx)
		}
		if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("maintain the store", "error", err)
		}
		return 0
	})
}

// maintain is the step: evict what may go, remove what was abandoned, and say whether the store is full.
func (s *Shipper) maintain(ctx context.Context) error {
	var faults []error
	for _, v := range s.all() {
		faults = append(faults, s.evict(ctx, v), s.sweep(ctx, v))
	}
	limit := s.cfg.Ship.Cap
	full := limit > 0 && s.usage.total() >= limit
	for _, v := range s.all() {
		v.mu.Lock()
		if v.acks.Full != full {
			v.acks.Full, v.acksDirty = full, true
			if full {
				s.log.Warn("the store has reached its cap: senders stop until something was shipped and kept long enough", "volume", v.name, "cap", limit)
			}
		}
		v.mu.Unlock()
		v.wakeCursors() // conditions may ask how full it is
		faults = append(faults, s.flush(ctx, v))
	}
	return errors.Join(faults...)
}

// evictAtOnce batches are noted as evicted by one write of the checkpoint.
const evictAtOnce = 256

// evict removes from the cache, oldest first, the shards that every backup host has and that were kept long enough. Batch files
// stay. What is about to go is noted first, so that a restart does not take it for a loss; dying before all of it has gone
// leaves it to the next pass, which goes over everything from the last batch that is known to be gone.
func (s *Shipper) evict(ctx context.Context, v *volume) error {
	v.mu.Lock()
	p := v.chain.Clone()
	from := max(v.gone+1, p.Low)
	v.mu.Unlock()
	for ctx.Err() == nil {
		to := s.evictable(v, &p, from)
		if to < from {
			return nil
		}
		v.mu.Lock()
		v.evicted, v.stateDirty = max(v.evicted, to), true
		v.mu.Unlock()
		if err := s.flush(ctx, v); err != nil {
			return err
		}
		for seq := from; seq <= to; seq++ {
			if err := s.evictBatch(ctx, v, &p, seq); err != nil {
				return fmt.Errorf("evict batch %d of %s: %w", seq, v.name, err)
			}
		}
		v.mu.Lock()
		v.gone, v.stateDirty = to, true
		v.mu.Unlock()
		from = to + 1
	}
	return ctx.Err()
}

// evictable returns the last batch of a run from a number on that may go.
func (s *Shipper) evictable(v *volume, p *intake.Chain, from batch.Seq) batch.Seq {
	last := min(v.everywhere(), from+evictAtOnce-1)
	for seq := from; seq <= last; seq++ {
		received := v.in.ReceivedAt(p.Path(seq))
		if s.now().Sub(received) < s.cfg.Ship.Keep {
			return seq - 1
		}
	}
	return last
}

func (s *Shipper) evictBatch(ctx context.Context, v *volume, p *intake.Chain, seq batch.Seq) error {
	b, _, err := v.in.Load(ctx, p, seq)
	if err != nil {
		return err
	}
	for _, o := range b.Envelope.Introduces {
		if err := v.in.Store.Remove(ctx, o.Digest.Path()); err != nil {
			return err
		}
		s.usage.add(v.name, -o.Size, s.now())
	}
	return nil
}

// everywhere returns up to where every backup host has everything, as it said itself since this process started. Without
// backup hosts nothing ever goes.
func (v *volume) everywhere() batch.Seq {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.cursors) == 0 || v.fault != "" {
		return 0
	}
	low := v.acks.Head
	for _, c := range v.cursors {
		if !c.looked {
			return 0
		}
		low = min(low, c.acks.Head)
	}
	return low
}

// sweep removes the shards that batches say were given up.
func (s *Shipper) sweep(ctx context.Context, v *volume) error {
	v.mu.Lock()
	p, todo := v.chain.Clone(), append([]batch.Seq(nil), v.toSweep...)
	v.mu.Unlock()
	for _, seq := range todo {
		if seq <= p.Head {
			b, _, err := v.in.Load(ctx, &p, seq)
			if err != nil {
				return fmt.Errorf("remove abandoned shards: %w", err)
			}
			if err := s.abandoned(ctx, v, &p, b); err != nil {
				return err
			}
		}
		v.mu.Lock()
		v.toSweep, v.stateDirty = v.toSweep[1:], true
		v.mu.Unlock()
	}
	return nil
}

// abandoned removes the shards that a batch says were given up, unless a batch of the chain introduces them after all: the
// owner's word is checked against what it said before.
func (s *Shipper) abandoned(ctx context.Context, v *volume, p *intake.Chain, b *batch.Batch) error {
	here := map[shard.Digest]bool{}
	for _, o := range b.Envelope.Abandons {
		_, err := v.in.Store.Stat(ctx, o.Digest.Path())
		if err == nil {
			here[o.Digest] = true
		} else if !errors.Is(err, store.ErrNotExist) {
			return fmt.Errorf("remove abandoned shard %s: %w", o.Digest, err)
		}
	}
	for seq := p.Low; seq <= p.Head && len(here) > 0; seq++ {
		old, _, err := v.in.Load(ctx, p, seq)
		if err != nil {
			return fmt.Errorf("look for abandoned shards: %w", err)
		}
		for _, o := range old.Envelope.Introduces {
			delete(here, o.Digest)
		}
	}
	for d := range here {
		if err := v.in.Store.Remove(ctx, d.Path()); err != nil {
			return fmt.Errorf("remove abandoned shard %s: %w", d, err)
		}
	}
	return nil
}
