package push

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/carry"
	"slipway/internal/store"
)

// sendRun sends the shards of all batches of the run in parallel, then the batch files in order.
func (p *Pusher) sendRun(ctx context.Context, run []outgoing) (int, error) {
	var objects []batch.Object
	for _, o := range run {
		for _, s := range o.objects {
			if !p.ahead[s.Digest] {
				objects = append(objects, s)
			}
		}
	}
	if p.fresh {
		missing, err := p.missing(ctx, objects)
		if err != nil {
			return 0, err
		}
		objects = missing
	}
	p.travel(run[0].seq, len(objects))
	if err := p.sendShards(ctx, objects); err != nil {
		return 0, err
	}
	for i, o := range run {
		p.travel(o.seq, -1)
		if err := p.sendBatch(ctx, o); err != nil {
			return i, err
		}
	}
	return len(run), nil
}

// sendBatch publishes the batch file and then looks once more for all its shards: until the batch named them, a daemon there
// was free to remove them as abandoned. Dying before the look repeats it at the next connect.
func (p *Pusher) sendBatch(ctx context.Context, o outgoing) error {
	if err := p.stopIfFull(); err != nil {
		return err
	}
	err := p.t.Dest.Publish(ctx, o.path, o.file)
	if errors.Is(err, store.ErrDiffers) {
		if err := p.compareFile(ctx, o.seq); err != nil {
			return err // another history, or a damaged file: it says which
		}
	}
	if err != nil {
		return fmt.Errorf("publish batch %d: %w", o.seq, err)
	}
	p.count(int64(len(o.file)))
	missing, err := p.missing(ctx, o.objects)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("batch %d: shard %s is not there after it was sent: %w", o.seq, missing[0].Digest, store.ErrNotExist)
	}
	p.forgetAhead(o.objects)
	p.deliver(o.seq)
	return p.compareClocks(ctx, o)
}

// maxSkew is how far the clock of a destination may be off before everybody is told.
const maxSkew = 5 * time.Minute

// compareClocks looks, once a connect, at the time which the destination gave to a batch: it was not written before the batch
// was sealed, nor after now. Nothing is ordered by clocks; people and `--at TIME` are misled by a wrong one.
func (p *Pusher) compareClocks(ctx context.Context, o outgoing) error {
	if p.clockRead {
		return nil
	}
	info, err := p.t.Dest.Stat(ctx, o.path)
	if err != nil {
		return fmt.Errorf("read the time of batch %d: %w", o.seq, err)
	}
	p.clockRead = true
	var skew time.Duration
	if ahead := time.Until(info.ModTime); ahead > maxSkew {
		skew = ahead
	} else if behind := o.sealedAt.Sub(info.ModTime); behind > maxSkew {
		skew = -behind
	}
	p.mu.Lock()
	was := p.report.Skew
	p.report.Skew = skew
	p.mu.Unlock()
	if skew != 0 && was == 0 {
		p.t.Logger.Warn("clock is off against this node's", "store", p.t.Name, "by", skew.Round(time.Second))
	}
	return nil
}

// forgetAhead drops what was noted of shards sent ahead, or about to be, once their batch is delivered.
func (p *Pusher) forgetAhead(objects []batch.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range objects {
		delete(p.ahead, s.Digest)
	}
	if len(p.announced) > 0 {
		p.announced = slices.DeleteFunc(p.announced, func(a batch.Object) bool { return slices.Contains(objects, a) })
	}
}

// deliver moves the cursor to a batch that is complete at the destination.
func (p *Pusher) deliver(seq batch.Seq) {
	p.cursor, p.looked = seq, seq
	p.mu.Lock()
	p.report.Published = seq
	p.report.Batch = 0
	p.fastTill = time.Now().Add(ackFastFor)
	p.mu.Unlock()
	p.readAcksSoon()
	p.tellDelivered()
}

// travel notes which batch is on its way, and how many shards travel with it (negative: as before).
func (p *Pusher) travel(seq batch.Seq, shards int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Batch = seq
	if shards >= 0 {
		p.report.Shards, p.report.Of = 0, shards
	}
}

// sendAhead sends a few announced shards, and tells whether it did.
func (p *Pusher) sendAhead(ctx context.Context) (bool, error) {
	p.mu.Lock()
	n := min(len(p.announced), maxFlight)
	some := slices.Clone(p.announced[:n])
	p.announced = slices.Delete(p.announced, 0, n)
	p.mu.Unlock()
	if n == 0 {
		return false, nil
	}
	p.enter(Sending, nil)
	if err := p.sendShards(ctx, some); err != nil {
		return false, err
	}
	for _, o := range some {
		p.ahead[o.Digest] = true
	}
	return true, nil
}

// sendShards sends shards, several in flight. "full" in the destination's acks stops it at the next one.
func (p *Pusher) sendShards(ctx context.Context, objects []batch.Object) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFlight)
	for _, o := range objects {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return p.sendShard(ctx, o) })
	}
	return g.Wait()
}

func (p *Pusher) sendShard(ctx context.Context, o batch.Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.stopIfFull(); err != nil {
		return err
	}
	buf := carry.Take()
	defer buf.Free()
	data, err := p.shardBytes(ctx, buf, o)
	if err != nil {
		return err
	}
	if err := p.t.Dest.Publish(ctx, o.Digest.Path(), data); err != nil {
		return fmt.Errorf("push shard %s: %w", o.Digest, err)
	}
	p.count(o.Size)
	p.mu.Lock()
	p.report.Shards = min(p.report.Shards+1, p.report.Of)
	p.mu.Unlock()
	return nil
}

// shardBytes reads a shard from the own store, checked, or from another store that still has it.
func (p *Pusher) shardBytes(ctx context.Context, buf *carry.Buffer, o batch.Object) ([]byte, error) {
	data, err := buf.Read(ctx, p.t.Own, o)
	if err == nil {
		return data, nil
	}
	errs := []error{err}
	for _, s := range p.t.Elsewhere {
		if data, err = buf.Read(ctx, s, o); err == nil {
			return data, p.mend(ctx, o, data, errs[0])
		}
		errs = append(errs, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, &LostShardError{Shard: o, Err: errors.Join(errs...)}
}

// Rotten is a shard that the own store has under its name, but not with its bytes.
type Rotten struct {
	Shard  batch.Object
	Err    error // what was wrong with it
	Mended bool  // the good copy was put in its place
}

// mend puts a good copy, read from another store, in the place of a rotten one, and reports it. One that was evicted, or lies in
// a store that this node must not change, is only sent.
func (p *Pusher) mend(ctx context.Context, o batch.Object, data []byte, was error) error {
	if errors.Is(was, store.ErrNotExist) {
		return nil
	}
	err := p.t.Own.Remove(ctx, o.Digest.Path())
	if err == nil {
		err = p.t.Own.Publish(ctx, o.Digest.Path(), data)
	}
	p.t.Logger.Error("a shard of the own store is damaged; it was read from another copy", "shard", o.Digest, "store", p.t.Name, "mended", err == nil, "cause", was)
	if p.t.OnRotten != nil {
		p.t.OnRotten(Rotten{Shard: o, Err: was, Mended: err == nil})
	}
	return ctx.Err() // a disk that takes no repair is no reason not to send
}
