package push

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/state"
	"slipway/internal/store"
)

const maxVolumeFile = 64 << 10

// connect compares the destination with the own store and sets the cursor. At or below the head in its acks everything counts
// as delivered, evicted or not; above it, we look.
func (p *Pusher) connect(ctx context.Context) error {
	if err := ClaimVolume(ctx, p.t.Dest, p.t.Name, p.t.Volume); err != nil {
		return err
	}
	bounds, err := p.t.Log.Bounds()
	if err != nil {
		return err
	}
	acks, err := p.ownAcks(ctx)
	if err != nil {
		return err
	}
	acked, err := p.acknowledged(ctx, acks, bounds)
	if err != nil {
		return err
	}
	present, err := p.listBatches(ctx, bounds, acked)
	if err != nil {
		return err
	}
	if err := p.unclaimed(ctx, bounds.Epoch+1); err != nil {
		return err
	}
	from, err := p.start(acked, bounds, present)
	if err != nil {
		return err
	}
	head := from
	for present[head+1] {
		head++
	}
	if head > from {
		if err := p.compareFile(ctx, head); err != nil {
			return err
		}
	}
	if p.distrust.Swap(false) {
		p.looked = 0
	}
	if head, err = p.lookAgain(ctx, from, head); err != nil {
		return err
	}
	if acks.Epoch > bounds.Epoch && !p.t.Follower {
		acks = ack.Acks{} // of a batch that is not there
	}
	p.begin(head, acks)
	return nil
}

// unclaimed stops at a cache on which a node has claimed the next epoch: what were still pushed there would come between the batch
// which that node continues and its first one. When that has come the cache is ahead, and the owner knows for certain.
func (p *Pusher) unclaimed(ctx context.Context, next batch.Epoch) error {
	if p.t.Kind != "cache" {
		return nil
	}
	c, err := claim.Read(ctx, p.t.Dest, next, 0)
	switch {
	case errors.Is(err, store.ErrNotExist), errors.Is(err, claim.ErrFormat), err == nil && c.VolumeID != p.t.Volume.ID:
		return nil
	case err != nil:
		return fmt.Errorf("look for a claim: %w", err)
	}
	return fmt.Errorf("%w: epoch %d is %s's since %s", errClaimed, next, c.Node, c.At.Format(time.RFC3339))
}

// acknowledged returns the head in the destination's acks if it is one of our batches. One that is not, of the present epoch
// or a later one, means that the destination is ahead; of an earlier one, that it follows a side branch or a part of the
// history that this node lost: then it says nothing. Acks alone make no new epoch: the batch that they speak of has to be there.
func (p *Pusher) acknowledged(ctx context.Context, acks ack.Acks, bounds Bounds) (batch.Seq, error) {
	if acks.Head == 0 {
		return 0, nil
	}
	b, ok, err := p.t.Log.Sealed(acks.Head)
	switch {
	case err != nil:
		return 0, err
	case ok && b.Digest == acks.HeadDigest:
		return acks.Head, nil
	case acks.Epoch < bounds.Epoch:
		return 0, nil
	case p.t.Follower && !ok:
		return acks.Head, nil // it is ahead of us, as it should be
	}
	digest, genuine, err := p.readTheirs(ctx, acks.Epoch, acks.Head)
	if genuine && (!ok || digest != b.Digest) {
		return 0, &AheadError{Store: p.t.Name, Epoch: acks.Epoch, Seq: acks.Head, Digest: digest, Fork: ok}
	}
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return 0, err
	}
	p.t.Logger.Warn("acks name a batch that this node does not know and the store does not hold: they are not believed",
		"store", p.t.Name, "epoch", acks.Epoch, "batch", acks.Head, "digest", acks.HeadDigest)
	return 0, nil
}

// start returns the batch behind which delivery goes on. A store needs nothing below base, but what an earlier epoch left
// undelivered is history all the same: a destination that was in the middle of it goes on there.
func (p *Pusher) start(acked batch.Seq, bounds Bounds, present map[batch.Seq]bool) (batch.Seq, error) {
	if acked+1 >= bounds.Base {
		return acked, nil
	}
	from := acked
	for seq := range present {
		if seq < bounds.Base {
			from = max(from, seq)
		}
	}
	if from > 0 && from+1 < bounds.Base {
		_, known, err := p.t.Log.Sealed(from + 1)
		if known || err != nil {
			return from, err
		}
	}
	return bounds.Base - 1, nil
}

// begin takes over what connect found.
func (p *Pusher) begin(head batch.Seq, acks ack.Acks) {
	was := p.cursor
	p.cursor, p.fresh, p.clockRead = head, true, false
	p.looked = min(p.looked, head)
	clear(p.ahead)
	p.mu.Lock()
	p.announced = nil
	p.report.Published, p.report.Weak = head, store.Weak(p.t.Dest)
	p.mu.Unlock()
	p.noteOwn(acks)
	if head < was {
		p.t.Logger.Warn("store went back, it is filled again", "store", p.t.Name, "from", was, "to", head)
	}
	p.tellDelivered()
}

// ClaimVolume makes volume.json at first contact, and refuses a directory that another volume's file lies in.
func ClaimVolume(ctx context.Context, s store.Store, where string, v state.Volume) error {
	const file = "volume.json"
	data, err := s.Read(ctx, file, maxVolumeFile)
	if errors.Is(err, store.ErrNotExist) {
		mine, jerr := json.Marshal(state.Volume{Format: 1, Name: v.Name, ID: v.ID})
		if jerr != nil {
			return fmt.Errorf("encode %s: %w", file, jerr)
		}
		err = s.CreateExclusive(ctx, file, append(mine, '\n'))
		if err == nil {
			return nil
		}
		if errors.Is(err, store.ErrExist) { // somebody was first
			data, err = s.Read(ctx, file, maxVolumeFile)
		}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var theirs state.Volume
	if err := json.Unmarshal(data, &theirs); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if theirs.Format != 1 {
		return fmt.Errorf("%s has format %d, newer than this slipway: %w", file, theirs.Format, batch.ErrFormat)
	}
	if theirs.ID != v.ID {
		return fmt.Errorf("%w: %s holds %q (%s), not %q (%s)", errForeign, where, theirs.Name, theirs.ID, v.Name, v.ID)
	}
	return nil
}

// ownAcks reads what the daemon beside the destination says; zero when there is none.
func (p *Pusher) ownAcks(ctx context.Context) (ack.Acks, error) {
	a, err := ack.Read(ctx, p.t.Dest, p.t.Name)
	if errors.Is(err, store.ErrNotExist) {
		return ack.Acks{}, nil
	}
	if err == nil && a.VolumeID != p.t.Volume.ID {
		err = fmt.Errorf("%w: acks of volume %s", errForeign, a.VolumeID)
	}
	return a, err
}

// compareFile reads a batch that has the name of one of ours. By the chain, its digest speaks for those before it.
func (p *Pusher) compareFile(ctx context.Context, seq batch.Seq) error {
	b, _, err := p.t.Log.Sealed(seq)
	if err != nil {
		return err
	}
	digest, genuine, err := p.readTheirs(ctx, b.Epoch, seq)
	if err != nil {
		return err
	}
	switch {
	case digest == b.Digest:
		return nil
	case !genuine:
		return fmt.Errorf("batch %d: %w", seq, errDamaged)
	}
	return &AheadError{Store: p.t.Name, Epoch: b.Epoch, Seq: seq, Digest: digest, Fork: true}
}

// readTheirs reads a batch at the destination and tells whether it is a batch of this volume at all: a damaged file is no
// reason to begin a new epoch. Whether its key may own the volume is for the one who begins it to check.
func (p *Pusher) readTheirs(ctx context.Context, e batch.Epoch, seq batch.Seq) (d batch.Digest, genuine bool, err error) {
	file, err := p.t.Dest.Read(ctx, batch.Path(e, seq, seq), maxBatchFile)
	if err != nil {
		return d, false, fmt.Errorf("read batch %d: %w", seq, err)
	}
	b, err := batch.Parse(file)
	if err != nil {
		return sha256.Sum256(file), false, nil
	}
	env := &b.Envelope
	genuine = env.VolumeID == p.t.Volume.ID && env.Epoch == e && env.Last == seq && b.Verify([]string{env.OwnerKey}) == nil
	return b.Digest, genuine, nil
}

// listBatches returns which of our batches above from the destination has. One of the present epoch or a later one that is
// not ours means that it is ahead; one of an earlier epoch is a side branch and none of our business.
func (p *Pusher) listBatches(ctx context.Context, bounds Bounds, from batch.Seq) (map[batch.Seq]bool, error) {
	oldest := bounds.Epoch
	if b, ok, err := p.t.Log.Sealed(from + 1); err != nil {
		return nil, err
	} else if ok {
		oldest = b.Epoch
	}
	present := make(map[batch.Seq]bool)
	var ahead *AheadError
	err := EachBatchFile(ctx, p.t.Dest, oldest, from+1, func(e batch.Epoch, first, last batch.Seq) error {
		b, ok, err := p.t.Log.Sealed(last)
		switch {
		case err != nil:
			return err
		case ok && b.Epoch == e && first == last:
			present[last] = true
			return nil
		case first != last || e < bounds.Epoch || ahead != nil && ahead.Epoch == e && ahead.Seq > last:
			return nil
		}
		digest, genuine, err := p.readTheirs(ctx, e, last)
		if genuine {
			ahead = &AheadError{Store: p.t.Name, Epoch: e, Seq: last, Digest: digest, Fork: ok}
		} else if err == nil {
			p.t.Logger.Warn("a file under a batch's name is none, passed over", "store", p.t.Name, "epoch", e, "batch", last)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if ahead != nil && (!p.t.Follower || ahead.Fork) {
		return nil, ahead
	}
	return present, nil
}

// EachBatchFile calls fn for the batch files of epochs from oldest on that lie in the directory of from or a later one.
func EachBatchFile(ctx context.Context, s store.Store, oldest batch.Epoch, from batch.Seq,
	fn func(e batch.Epoch, first, last batch.Seq) error) error {
	lowest := path.Dir(batch.Path(oldest, from, from)) // "batches/00000001/00000000"
	epochs, err := s.List(ctx, "batches")
	if err != nil {
		return err
	}
	for _, e := range epochs {
		n, err := strconv.ParseUint(e.Name, 10, 32)
		if !e.Dir || err != nil || batch.Epoch(n) < oldest {
			continue
		}
		groups, err := s.List(ctx, path.Join("batches", e.Name))
		if err != nil {
			return err
		}
		for _, g := range groups {
			dir := path.Join("batches", e.Name, g.Name)
			if !g.Dir || path.Base(dir) < path.Base(lowest) {
				continue
			}
			if err := eachFileOf(ctx, s, dir, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func eachFileOf(ctx context.Context, s store.Store, dir string, fn func(e batch.Epoch, first, last batch.Seq) error) error {
	files, err := s.List(ctx, dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		e, first, last, err := batch.ParsePath(path.Join(dir, f.Name))
		if err != nil || f.Dir {
			continue // not a name of ours
		}
		if err := fn(e, first, last); err != nil {
			return err
		}
	}
	return nil
}
