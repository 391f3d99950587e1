package shipper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/carry"
	"slipway/internal/intake"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// errCache marks what is wrong with the cache's own copy: the host is not to blame.
var errCache = errors.New("the cache cannot read its own copy")

var errBytes = errors.New("its bytes are not those that its name says")

func sum(data []byte) batch.Digest { return sha256.Sum256(data) }

// sending ships the next batch, and acknowledges it.
func (c *cursor) sending(ctx context.Context) State {
	c.v.mu.Lock()
	queue := c.queueLocked()
	p := c.v.chain.Clone()
	held := c.v.stopLocked(c.s.now()).from
	c.v.mu.Unlock()
	if len(queue) == 0 {
		return Idle
	}
	if held > 0 && queue[0].seq >= held {
		return c.decide(ctx)
	}
	err := c.shipTelling(ctx, &p, queue[0].seq)
	if errors.Is(err, errHeldNow) {
		return c.decide(ctx)
	}
	if err != nil {
		return c.failed(ctx, fmt.Errorf("ship batch %d to %s: %w", queue[0].seq, c.h.name, err))
	}
	c.fresh = false
	c.backoff.Reset()
	c.answered()
	c.flush(ctx)
	wakeUp(c.again)
	return c.decide(ctx)
}

// ship sends one batch: its shards, several at once, and when all are durable there, the batch file (commit point 6 with the
// acks that follow). Dying before the last
// step leaves shards that the next attempt finds; dying after it, a batch that the next look at the host finds.
func (c *cursor) ship(ctx context.Context, p *intake.Chain, seq batch.Seq) error {
	b, data, err := c.v.in.Load(ctx, p, seq)
	if err != nil {
		return c.cacheFault(ctx, seq, err)
	}
	c.v.mu.Lock()
	head, digest := c.acks.Head, c.acks.HeadDigest
	c.v.mu.Unlock()
	if head+1 == seq && digest != (batch.Digest{}) && (b.Envelope.Prev == nil || *b.Envelope.Prev != digest) {
		return fmt.Errorf("batch %d does not follow batch %d: %w", seq, head, errFork)
	}
	c.sent.Store(0)
	group, gctx := errgroup.WithContext(ctx)
	for _, o := range b.Envelope.Introduces {
		if c.h.slots.Acquire(gctx, 1) != nil {
			break // one has failed
		}
		group.Go(func() error {
			defer c.h.slots.Release(1)
			if c.v.heldBack(seq) {
				return errHeldNow
			}
			return c.shipShard(gctx, seq, o)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.publish(ctx, b, data); err != nil {
		return err
	}
	if c.fresh {
		c.clock(ctx, b.Path())
	}
	return nil
}

// publish gives the batch its file, without which nothing of it is there, and counts it. Whoever holds it meanwhile waits, and knows then
// whether it is there.
func (c *cursor) publish(ctx context.Context, b *batch.Batch, data []byte) error {
	c.v.publishing.RLock()
	defer c.v.publishing.RUnlock()
	if c.v.heldBack(b.Envelope.First) {
		return errHeldNow
	}
	if err := c.store.Publish(ctx, b.Path(), data); err != nil {
		return err
	}
	c.reached(b)
	return nil
}

// shipShard sends one shard. What the host has already is not sent again, but made sure of.
func (c *cursor) shipShard(ctx context.Context, seq batch.Seq, o batch.Object) error {
	buf := carry.Take()
	defer buf.Free()
	data, err := c.fetch(ctx, buf, seq, o)
	if err != nil {
		return err
	}
	if err := c.store.Publish(ctx, o.Digest.Path(), data); err != nil {
		return fmt.Errorf("push shard %s: %w", o.Digest, err)
	}
	c.sent.Add(o.Size)
	return nil
}

// fetch reads a shard from the cache, or, where it was evicted or has rotted, from another backup host that has it.
func (c *cursor) fetch(ctx context.Context, buf *carry.Buffer, seq batch.Seq, o batch.Object) ([]byte, error) {
	data, err := readShard(ctx, buf, c.v.in.Store, o)
	if err == nil {
		return data, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, other := range c.v.cursors {
		if other == c || other.Report().Head < seq {
			continue
		}
		if data, otherErr := readShard(ctx, buf, other.store, o); otherErr == nil {
			return data, nil
		}
	}
	return nil, c.cacheFault(ctx, seq, err)
}

// readShard reads a shard; one with other bytes is refused.
func readShard(ctx context.Context, buf *carry.Buffer, s store.Store, o batch.Object) ([]byte, error) {
	data, err := buf.Read(ctx, s, o)
	if errors.Is(err, shard.ErrCorrupt) {
		return nil, fmt.Errorf("read shard %s: %w", o.Digest, &intake.Refusal{Name: o.Digest.Path(), Reason: "digest", Cause: errBytes})
	}
	return data, err
}

// cacheFault tells an error of the cache's own copy: what is gone or damaged there takes the cache's head back, so that the
// sender fills it again.
func (c *cursor) cacheFault(ctx context.Context, seq batch.Seq, err error) error {
	if ctx.Err() == nil && intake.Gone(err) {
		if lostErr := c.s.lost(ctx, c.v, seq, err); lostErr != nil {
			err = errors.Join(err, lostErr)
		}
	}
	return fmt.Errorf("%w: %w", errCache, err)
}

// clock compares the host's clock with this one's, by the time of a file that was made just now. It is asked once for each
// look at the host, and only for people: nothing depends on it.
func (c *cursor) clock(ctx context.Context, name string) {
	before := c.s.now()
	info, err := c.store.Stat(ctx, name)
	if err != nil {
		return
	}
	skew := info.ModTime.Sub(before)
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	c.skew = 0
	if skew > clockOff || skew < -clockOff {
		c.skew = skew
	}
}
