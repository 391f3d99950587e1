package shipper

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/loop"
)

// shipTelling ships a batch, and tells meanwhile how quickly it goes: who sees only the acks could not tell a slow line from one on which
// nothing moves.
func (c *cursor) shipTelling(ctx context.Context, p *intake.Chain, seq batch.Seq) error {
	var group errgroup.Group
	telling, stop := context.WithCancel(ctx)
	began := time.Now()
	group.Go(func() error {
		return loop.Every(telling, ack.TellRateEvery, nil, func() time.Duration {
			now := time.Now()
			if rate := c.h.meter.Rate(now); now.Sub(began) >= ack.TellRateEvery { // small batches have no time for it
				c.tellRate(telling, rate)
			}
			return 0
		})
	})
	err := c.ship(ctx, p, seq)
	stop()
	_ = group.Wait() // never an error
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	c.acksDirty = c.acksDirty || c.acks.Rate > 0
	c.acks.Rate = 0
	return err
}

// tellRate is the step: it writes the present rate into the acks.
func (c *cursor) tellRate(ctx context.Context, rate float64) {
	c.v.mu.Lock()
	changed := rate != c.acks.Rate
	c.acks.Rate = rate
	c.acksDirty = c.acksDirty || changed
	c.v.mu.Unlock()
	if changed {
		c.flush(ctx)
	}
}
