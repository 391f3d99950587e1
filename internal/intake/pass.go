package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/store"
)

const (
	// A batch that waits longer than this for its shards is complained about.
	lateAfter = 10 * time.Second
	// While shards are missing, they are looked for this often.
	missingEvery = 250 * time.Millisecond
	// During a long pass what was taken is written down this often.
	flushEvery = time.Second
)

// ErrOtherVolume means: volume.json names another volume than the one that this directory has been the place of.
var ErrOtherVolume = errors.New("the directory holds another volume")

// Taker keeps what a pass finds good.
type Taker interface {
	// Recall reads, once after a start, what is remembered of the volume, and sets its id: the remembered one, or else this.
	Recall(ctx context.Context, id batch.VolumeID) error
	// Chain returns a copy of the checked prefix.
	Chain() Chain
	// Closed says why nothing may be taken now; "": go on.
	Closed() string
	// Accept keeps a checked batch, by which the chain has grown.
	Accept(c *Chain, a *Arrival)
	// BeginAgain forgets the chain: a lower batch has come.
	BeginAgain()
	// Refused counts an object that failed its checks.
	Refused(r ack.Refusal)
	// SetNote says what the next batch waits for, SetFault why nothing of the volume is taken; "": nothing.
	SetNote(text string)
	SetFault(text string)
	// Flush writes down what was kept. Dying before it leaves batches to be checked again.
	Flush(ctx context.Context) error
}

// Pass takes what has come into a volume, in order of sequence, until something is missing. One at a time.
type Pass struct {
	*Volume
	Taker
	Log  *slog.Logger
	Wait *Waiting
}

// Waiting remembers from one pass to the next which batch has not all its shards.
type Waiting struct {
	seq  batch.Seq
	from time.Time // zero: it was complained about
}

// Recognise reads whose volume it is, and once after a start what is remembered of it.
func (p *Pass) Recognise(ctx context.Context) (ready bool, err error) {
	file, err := ReadVolumeFile(ctx, p.Store)
	if errors.Is(err, store.ErrNotExist) {
		p.SetNote("nothing has arrived: there is no " + VolumeFile)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := p.Recall(ctx, file.ID); err != nil {
		return false, err
	}
	if p.ID != file.ID {
		p.SetFault(fmt.Sprintf("%s names the volume with id %s, but this has been the place of %s: put %s back, or give the other volume another name",
			VolumeFile, file.ID, p.ID, VolumeFile))
		return false, fmt.Errorf("read volume %s: %w", p.Name, ErrOtherVolume)
	}
	p.SetFault("")
	return true, nil
}

// Take takes batch after batch. It returns how soon to look again by itself (0: when something happens).
func (p *Pass) Take(ctx context.Context) (again time.Duration, err error) {
	c := p.Chain()
	if err := p.beginLower(ctx, &c); err != nil {
		return 0, err
	}
	flushed := p.Now()
	for ctx.Err() == nil {
		if why := p.Closed(); why != "" {
			p.SetNote(why)
			return 0, nil
		}
		a, err := p.next(ctx, &c)
		var r *Refusal
		var m *Missing
		switch {
		case errors.As(err, &r):
			if err := p.Refuse(r); err != nil {
				return 0, err
			}
			continue
		case errors.As(err, &m):
			return p.waitFor(m), nil
		case errors.Is(err, ErrForked):
			p.SetFault(err.Error())
			return 0, nil
		case err != nil || a == nil:
			return 0, err
		}
		if err := p.welcome(&c, a); err != nil {
			return 0, err
		}
		c.Extend(a.Batch)
		p.Accept(&c, a)
		if now := p.Now(); now.Sub(flushed) > flushEvery {
			flushed = now
			if err := p.Flush(ctx); err != nil {
				return 0, err
			}
		}
	}
	return 0, ctx.Err()
}

// next returns the batch that continues the chain, checked; nil if it has not come.
func (p *Pass) next(ctx context.Context, c *Chain) (*Arrival, error) {
	name, err := p.Next(ctx, c)
	if err != nil || name == "" {
		return nil, err
	}
	return p.Check(ctx, c, name)
}

// beginLower begins the chain again when a lower batch has come, as long as it does not count: a store that is filled from the
// middle holds no copy before its batches refer to nothing outside it.
func (p *Pass) beginLower(ctx context.Context, c *Chain) error {
	if c.Low <= 1 || c.Whole() {
		return nil
	}
	_, low, err := p.Lowest(ctx)
	if err != nil {
		return err
	}
	if low == 0 || low >= c.Low {
		p.SetNote(fmt.Sprintf("the store begins at batch %d, but its batches refer back to batch %d", c.Low, c.Base))
		return nil
	}
	*c = Chain{}
	p.BeginAgain()
	return nil
}

// Refuse moves an object that failed its checks aside, where it is kept and counted.
func (p *Pass) Refuse(r *Refusal) error {
	p.Log.Error("refuse what arrived", "volume", p.Name, "object", r.Name, "reason", r.Reason, "cause", r.Cause)
	p.Refused(ack.Refusal{Name: r.Name, Reason: r.Reason + ": " + r.Cause.Error(), At: p.Now()})
	return p.SetAside(r)
}

// welcome says loudly, and notes, whose word counts from this batch on.
func (p *Pass) welcome(c *Chain, a *Arrival) error {
	env := &a.Batch.Envelope
	args := []any{"volume", p.Name, "node", env.Node, "key", env.OwnerKey, "epoch", env.Epoch, "batch", env.First}
	switch present := c.Present(); {
	case a.Pin:
		p.Log.Warn("pin the first owner key seen for this volume: compare it with node.key.pub of the primary, or set owners: in the configuration", args...)
	case present.Epoch == 0 || present.Epoch == env.Epoch:
		return nil
	default:
		p.Log.Warn("a new epoch begins", args...)
	}
	if len(p.Owners) > 0 {
		return nil
	}
	return p.Pins.Add(p.Name, env.OwnerKey, p.Now())
}

// waitFor notes a batch whose shards are not all there. That is no fault: they may be on their way.
func (p *Pass) waitFor(m *Missing) time.Duration {
	p.SetNote(m.Error())
	if p.Wait.seq != m.Seq {
		p.Wait.seq, p.Wait.from = m.Seq, p.Now()
	}
	if !p.Wait.from.IsZero() && p.Now().Sub(p.Wait.from) > lateAfter {
		p.Wait.from = time.Time{} // once
		p.Log.Warn("a batch waits for shards that do not come", "volume", p.Name, "batch", m.Seq, "missing", m.Count, "of", m.Of, "first", m.Digest)
	}
	return missingEvery
}

// CutBefore ends a chain before batch seq, or before an earlier one if that is gone too, and returns the digest of its new head.
func (v *Volume) CutBefore(ctx context.Context, c *Chain, seq batch.Seq) (head batch.Digest, err error) {
	var last *batch.Batch
	for seq--; last == nil && seq >= c.Low && seq > 0; seq-- {
		b, _, err := v.Load(ctx, c, seq)
		if err != nil && !Gone(err) {
			return head, err
		}
		last = b
	}
	if c.Cut(last); last != nil {
		head = last.Digest
	}
	return head, nil
}
