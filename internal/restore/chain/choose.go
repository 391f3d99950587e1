package chain

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"slipway/internal/batch"
)

// At chooses the moment: the newest complete batch at or before it. Zero: the newest.
type At struct {
	Time       time.Time
	Seq        batch.Seq
	Incomplete bool // take the newest batch at or before it, complete or not
}

// Choice is the batch that a moment led to.
type Choice struct {
	Index int // in Slots
	Batch *batch.Batch
	Notes []string // why it is not the newest, or not whole; empty: nothing to say
	Whole bool     // complete, and nothing newer that was asked for had to be left out
}

// Choose finds the batch for a moment among the first `limit` slots.
func (l *Line) Choose(ctx context.Context, at At, limit int) (Choice, error) {
	i, err := l.newest(ctx, at, limit)
	if err != nil {
		return Choice{}, err
	}
	c := Choice{Whole: true}
	for ; i >= 0; i-- {
		b, err := l.Batch(ctx, &l.Slots[i])
		if errors.Is(err, ErrMissing) {
			c.Whole = false
			c.Notes = append(c.Notes, fmt.Sprintf("batch %d cannot be used: %v", l.Slots[i].Last, err))
			continue
		}
		if err != nil {
			return Choice{}, err
		}
		c.Index, c.Batch = i, b
		break
	}
	if i < 0 {
		return Choice{}, fmt.Errorf("choose a batch: %w: %s", ErrNoBatch, c.Notes[len(c.Notes)-1])
	}
	if c.Batch.Envelope.Complete {
		return c, nil
	}
	return l.whole(ctx, at, c)
}

// whole goes from an incomplete batch back to the last complete one, if there is one and the incomplete was not asked for.
func (l *Line) whole(ctx context.Context, at At, c Choice) (Choice, error) {
	e := &c.Batch.Envelope
	if !at.Incomplete && e.LastWhole > 0 && e.LastWhole < e.First {
		j := sort.Search(c.Index, func(k int) bool { return l.Slots[k].Last >= e.LastWhole })
		if j < c.Index && l.Slots[j].Last == e.LastWhole {
			b, err := l.Batch(ctx, &l.Slots[j])
			if err == nil && b.Envelope.Complete {
				c.Notes = append(c.Notes, fmt.Sprintf("batches %d to %d are not complete (%s) and were left out", e.LastWhole+1, e.Last, e.Why))
				c.Index, c.Batch = j, b
				return c, nil
			}
			if err != nil && !errors.Is(err, ErrMissing) {
				return Choice{}, err
			}
		}
	}
	c.Whole = false
	c.Notes = append(c.Notes, fmt.Sprintf("batch %d is not complete (%s): files that it does not hold yet are absent", e.Last, e.Why))
	return c, nil
}

// newest returns the slot that a moment leads to, complete or not.
func (l *Line) newest(ctx context.Context, at At, limit int) (int, error) {
	if limit == 0 {
		return 0, fmt.Errorf("choose a batch: %w", ErrNoBatch)
	}
	i := limit - 1
	switch {
	case at.Seq != 0:
		i = sort.Search(limit, func(k int) bool { return l.Slots[k].Last > at.Seq }) - 1
		if newest := l.Slots[len(l.Slots)-1].Last; at.Seq > newest {
			return 0, fmt.Errorf("choose batch %d: %w: the newest is %d", at.Seq, ErrNoBatch, newest)
		}
		if i < 0 {
			return 0, fmt.Errorf("choose batch %d: %w: the oldest is %d", at.Seq, ErrNoBatch, l.Slots[0].Last)
		}
	case !at.Time.IsZero():
		return l.newestAt(ctx, at.Time, limit)
	}
	return i, nil
}

// newestAt looks for the last batch sealed at or before a time. Sealing times only ever grow along the chain.
func (l *Line) newestAt(ctx context.Context, t time.Time, limit int) (int, error) {
	var failed error
	oldest := time.Time{}
	i := sort.Search(limit, func(k int) bool {
		for ; k >= 0 && failed == nil; k-- { // a batch that cannot be read: its neighbour tells nearly as well
			b, err := l.Batch(ctx, &l.Slots[k])
			if err == nil {
				if k == 0 {
					oldest = b.Envelope.SealedAt
				}
				return b.Envelope.SealedAt.After(t)
			}
			if !errors.Is(err, ErrMissing) {
				failed = err
			}
		}
		return false
	}) - 1
	switch {
	case failed != nil:
		return 0, failed
	case i < 0:
		return 0, fmt.Errorf("choose the state of %s: %w: the oldest is of %s", t.Format(time.RFC3339), ErrNoBatch, oldest.Format(time.RFC3339Nano))
	}
	return i, nil
}
