package chain

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
)

// HoleError says that the line cannot be followed back to where a batch's state begins.
type HoleError struct {
	Limit int // slots before this one are not touched by it
	Err   error
}

func (e *HoleError) Error() string { return e.Err.Error() }
func (e *HoleError) Unwrap() error { return e.Err }

// windowBytes bounds the batches read ahead of the one being folded; bodies unpack to several times that.
const windowBytes = 12 << 20

// Visit gets the batches of a state, newest first. It returns true when it needs no older one.
type Visit func(e *batch.Envelope, body *batch.Body) (bool, error)

// Back visits a batch and those before it down to its base, or to a full batch. They are read side by side and visited in
// order. *HoleError: one of them cannot be read, or is not what the one after it is chained to.
func (l *Line) Back(ctx context.Context, c Choice, visit Visit) error {
	base, next := c.Batch.Envelope.Base, (*batch.Batch)(nil)
	for i, window := c.Index, 1; ; window = min(window*4, 256) {
		list, err := l.window(ctx, i, window)
		for k := range list {
			b := list[k].batch
			if next != nil {
				if b, err = l.link(ctx, i-k, b, next); err != nil {
					return err
				}
				if b != list[k].batch {
					list[k].body, list[k].err = l.Body(ctx, b)
				}
			}
			if list[k].err != nil {
				return &HoleError{i - k, list[k].err}
			}
			done, err := visit(&b.Envelope, list[k].body)
			if err != nil || done || b.Envelope.Full || b.Envelope.First <= base {
				return err
			}
			next, list[k] = b, opened{}
		}
		if err != nil {
			return err
		}
		if i -= len(list); i < 0 {
			return &HoleError{0, fmt.Errorf("batch %d refers back to batch %d: %w", c.Batch.Envelope.Last, base, ErrMissing)}
		}
	}
}

// opened is a batch with its body; err says why the body cannot be had.
type opened struct {
	batch *batch.Batch
	body  *batch.Body
	err   error
}

// window reads up to n batches, from slot i backwards, with their bodies. It returns those before the first that cannot be
// read, and the error of that one.
func (l *Line) window(ctx context.Context, i, n int) ([]opened, error) {
	n = min(n, i+1)
	for k, sum := 0, int64(0); k < n; k++ {
		if sum += l.Slots[i-k].Size; sum > windowBytes && k > 0 {
			n = k
		}
	}
	list := make([]opened, n)
	failed := make([]error, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for k := range n {
		g.Go(func() error {
			var err error
			if list[k].batch, err = l.Batch(gctx, &l.Slots[i-k]); err == nil {
				if list[k].body, err = l.Body(gctx, list[k].batch); err != nil && fatal(err) == nil {
					list[k].err, err = err, nil
				}
			}
			failed[k] = err
			return fatal(err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for k, err := range failed {
		if err != nil {
			return list[:k], &HoleError{i - k, err}
		}
	}
	return list, nil
}

// fatal returns the errors that no other batch can make good: the stores do not answer, the identity is the wrong one.
func fatal(err error) error {
	if err == nil || errors.Is(err, ErrMissing) || errors.Is(err, batch.ErrCorrupt) || errors.Is(err, batch.ErrFormat) {
		return nil
	}
	return err
}

// Exactly reads the batch of slot i with this digest, from whichever store has it.
func (l *Line) Exactly(ctx context.Context, i int, digest batch.Digest) (*batch.Batch, error) {
	s := &l.Slots[i]
	return l.batch(ctx, s, []string{l.keys[s.Epoch]}, &digest)
}

// Before returns the batch of slot i that next is chained to: b, or another store's where b is not that one.
func (l *Line) Before(ctx context.Context, i int, b, next *batch.Batch) (*batch.Batch, error) {
	return l.link(ctx, i, b, next)
}

// link checks that next is chained to b; where the store's b is another one, it looks for the right one in the other stores.
func (l *Line) link(ctx context.Context, i int, b, next *batch.Batch) (*batch.Batch, error) {
	e := &next.Envelope
	if e.Prev == nil || b.Envelope.Last+1 != e.First || b.Envelope.Epoch != e.Epoch && b.Envelope.Epoch+1 != e.Epoch {
		return nil, &HoleError{i + 1, fmt.Errorf("%w: batch %d is not chained to batch %d", ErrMissing, e.First, b.Envelope.Last)}
	}
	if links(b, e.Prev) {
		return b, nil
	}
	right, err := l.batch(ctx, &l.Slots[i], []string{l.keys[l.Slots[i].Epoch]}, e.Prev)
	if err != nil {
		if err := fatal(err); err != nil {
			return nil, err
		}
		return nil, &HoleError{i + 1, fmt.Errorf("batch %d is chained to another batch %d: %w", e.First, b.Envelope.Last, err)}
	}
	return right, nil
}
