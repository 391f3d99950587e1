package shipper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/carry"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/store"
)

const (
	maxMarks = 256
	// A damaged shard on a host is looked at again after so long: somebody may have put it right.
	damagedAgain = 10 * time.Minute
)

// errDamaged: what a backup host gives back is not what was sent.
var errDamaged = errors.New("the host's copy is damaged")

// markLocked notes since when the host has had a batch. Marks close to each other are one, the later time counts: so there are
// never many, and nothing is read back too soon.
func (c *cursor) markLocked(seq batch.Seq, now time.Time) {
	n := len(c.marks)
	if n > 0 && now.Sub(c.marks[n-1].At) < c.s.cfg.Ship.VerifyAfter/64 {
		c.marks[n-1].Seq = seq
		return
	}
	c.marks = append(c.marks, ack.Mark{Seq: seq, At: now})
	if len(c.marks) > maxMarks {
		kept := c.marks[:0]
		for i := 1; i < len(c.marks); i += 2 {
			kept = append(kept, c.marks[i])
		}
		if len(c.marks)%2 == 1 {
			kept = append(kept, c.marks[len(c.marks)-1])
		}
		c.marks = kept
	}
}

// flushEvery is how often the acks are written while a host is read back.
const flushEvery = time.Second

// toVerify returns up to where is to be read back now, and when more is.
func (c *cursor) toVerify() (upTo batch.Seq, next time.Time) {
	after := c.s.cfg.Ship.VerifyAfter + c.s.cfg.Ship.VerifyAfter/64
	now := c.s.now()
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	for _, m := range c.marks {
		if at := m.At.Add(after); at.After(now) {
			return upTo, at
		}
		upTo = m.Seq
	}
	return min(upTo, c.acks.Head), time.Time{}
}

// runVerify reads back until ctx ends.
func (c *cursor) runVerify(ctx context.Context) error {
	return loop.Every(ctx, time.Hour, c.again, func() time.Duration { return c.verifyStep(ctx) })
}

// verifyStep reads back what is due, and returns when to go on; 0: with the next batch.
func (c *cursor) verifyStep(ctx context.Context) time.Duration {
	err := c.verifyOnce(ctx)
	switch {
	case errors.Is(err, errDamaged):
		c.s.log.Error("read back", "volume", c.v.name, "host", c.h.name, "error", err)
		return damagedAgain
	case err != nil:
		return lastRetry
	}
	if _, next := c.toVerify(); !next.IsZero() {
		return max(next.Sub(c.s.now()), time.Millisecond)
	}
	return 0
}

// verifyOnce reads back every batch that has been on the host for verify_after, and compares digests.
func (c *cursor) verifyOnce(ctx context.Context) error {
	upTo, _ := c.toVerify()
	c.v.mu.Lock()
	from := max(c.acks.Verified+1, c.v.chain.Low)
	p := c.v.chain.Clone()
	usable := c.looked && c.v.fault == ""
	c.v.mu.Unlock()
	if !usable || p.Head == 0 {
		return nil
	}
	flushed := c.s.now()
	for seq := from; seq <= upTo && ctx.Err() == nil; seq++ {
		b, _, err := c.v.in.Load(ctx, &p, seq)
		if err == nil {
			err = c.readBack(ctx, b)
		}
		if err != nil {
			err = fmt.Errorf("read back batch %d from %s: %w", seq, c.h.name, err)
			c.setDamage(err)
			return errors.Join(err, c.s.flush(ctx, c.v))
		}
		c.verified(seq)
		if now := c.s.now(); now.Sub(flushed) > flushEvery || seq == upTo {
			flushed = now
			if err := c.s.flush(ctx, c.v); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// verified notes that a batch was read back as it was sent (commit point 7 with the acks that follow). The head may have gone back meanwhile; then it does not count.
func (c *cursor) verified(seq batch.Seq) {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	if seq > c.acks.Head || seq != max(c.acks.Verified+1, c.v.chain.Low) {
		return
	}
	c.acks.Verified, c.acksDirty, c.damage = seq, true, ""
	for len(c.marks) > 0 && c.marks[0].Seq <= seq {
		c.marks = c.marks[1:]
	}
}

// setDamage keeps what a person has to look after: what is published is never replaced, so that a damaged file has to be
// removed on that host before it can be sent again.
func (c *cursor) setDamage(err error) {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	if errors.Is(err, errDamaged) {
		c.damage = err.Error() + ": check that disk, and remove the damaged file there, so that it is sent again"
	}
}

// readBack reads one batch and its shards from the host, one at a time: sending goes first. What is missing is sent again.
func (c *cursor) readBack(ctx context.Context, b *batch.Batch) error {
	seq := b.Envelope.First
	for _, o := range b.Envelope.Introduces {
		err := c.readShard(ctx, o)
		if errors.Is(err, store.ErrNotExist) {
			err = c.replenish(ctx, seq, o)
		}
		if err != nil {
			return fmt.Errorf("shard %s: %w", o.Digest, err)
		}
	}
	there, err := c.holds(ctx, seq, b.Digest)
	if errors.Is(err, errFork) {
		err = errDamaged
	}
	if err == nil && !there {
		c.lostThere(seq)
		var data []byte
		if data, err = c.v.in.Store.Read(ctx, c.path(seq), batch.MaxFile); err == nil {
			err = c.store.Publish(ctx, c.path(seq), data)
		}
	}
	if err != nil {
		return fmt.Errorf("batch file: %w", err)
	}
	return nil
}

// readShard compares the host's copy of a shard.
func (c *cursor) readShard(ctx context.Context, o batch.Object) error {
	if err := c.h.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.h.slots.Release(1)
	buf := carry.Take()
	defer buf.Free()
	_, err := readShard(ctx, buf, c.store, o)
	var r *intake.Refusal
	if errors.As(err, &r) {
		return errDamaged
	}
	return err
}

// replenish sends a shard again that the host has lost.
func (c *cursor) replenish(ctx context.Context, seq batch.Seq, o batch.Object) error {
	c.lostThere(seq)
	buf := carry.Take()
	defer buf.Free()
	data, err := c.fetch(ctx, buf, seq, o)
	if err == nil {
		err = c.store.Publish(ctx, o.Digest.Path(), data)
	}
	return err
}

func (c *cursor) lostThere(seq batch.Seq) {
	c.s.log.Error("a backup host has lost something it had: it is sent again", "volume", c.v.name, "host", c.h.name, "batch", seq)
}
