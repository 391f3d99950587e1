package spooler

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/state"
	"slipway/internal/store"
)

const maxVolumeFile = 64 << 10

// connect compares the destination with the own store and sets the cursor. At or below the head in its acks everything counts
// as delivered, evicted or not; above it, we look.
func (p *pusher) connect(ctx context.Context) error {
	if err := claimVolume(ctx, p.t.Dest, p.t.Name, p.t.Volume); err != nil {
		return err
	}
	bounds, err := p.t.Log.bounds()
	if err != nil {
		return err
	}
	acks, err := p.ownAcks(ctx)
	if err != nil {
		return err
	}
	if acks.Head > 0 {
		if err := p.sameBatch(acks.Epoch, acks.Head, acks.HeadDigest); err != nil {
			return err
		}
	}
	from := acks.Head
	if bounds.Base > 0 {
		from = max(from, bounds.Base-1)
	}
	present, err := p.listBatches(ctx, bounds, from)
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
	head, err = p.lookAgain(ctx, from, head)
	if err != nil {
		return err
	}
	p.begin(head, acks)
	return nil
}

// begin takes over what connect found.
func (p *pusher) begin(head batch.Seq, acks ack.Acks) {
	was := p.cursor
	p.cursor, p.fresh = head, true
	p.looked = min(p.looked, head)
	clear(p.ahead)
	p.mu.Lock()
	p.report.Published, p.report.Weak = head, store.Weak(p.t.Dest)
	p.mu.Unlock()
	p.noteOwn(acks)
	if head < was {
		p.t.Logger.Warn("store went back, it is filled again", "store", p.t.Name, "from", was, "to", head)
	}
	p.tellDelivered()
}

// claimVolume makes volume.json at first contact, and refuses a directory that another volume's file lies in.
func claimVolume(ctx context.Context, s store.Store, where string, v state.Volume) error {
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
func (p *pusher) ownAcks(ctx context.Context) (ack.Acks, error) {
	a, err := ack.Read(ctx, p.t.Dest, p.t.Name)
	if errors.Is(err, store.ErrNotExist) {
		return ack.Acks{}, nil
	}
	if err == nil && a.VolumeID != p.t.Volume.ID {
		err = fmt.Errorf("%w: acks of volume %s", errForeign, a.VolumeID)
	}
	return a, err
}

// sameBatch tells that a batch which the destination names is the one that we have under that number.
func (p *pusher) sameBatch(e batch.Epoch, seq batch.Seq, d batch.Digest) error {
	b, ok, err := p.t.Log.sealed(seq)
	if err != nil {
		return err
	}
	if ok && b.Digest == d {
		return nil
	}
	return &aheadError{Store: p.t.Name, Epoch: e, Seq: seq, Digest: d, Fork: ok}
}

// compareFile reads a batch that has the name of one of ours. By the chain, its digest speaks for those before it.
func (p *pusher) compareFile(ctx context.Context, seq batch.Seq) error {
	b, _, err := p.t.Log.sealed(seq)
	if err != nil {
		return err
	}
	digest, genuine, err := p.readTheirs(ctx, b.Epoch, seq)
	if err != nil {
		return err
	}
	if digest != b.Digest && !genuine {
		return fmt.Errorf("batch %d: %w", seq, errDamaged)
	}
	return p.sameBatch(b.Epoch, seq, digest)
}

// readTheirs reads a batch at the destination and tells whether it is a batch of this volume at all: a damaged file is no
// reason to begin a new epoch. Whether its key may own the volume is for the one who begins it to check.
func (p *pusher) readTheirs(ctx context.Context, e batch.Epoch, seq batch.Seq) (d batch.Digest, genuine bool, err error) {
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
func (p *pusher) listBatches(ctx context.Context, bounds sealedBounds, from batch.Seq) (map[batch.Seq]bool, error) {
	oldest := bounds.Epoch
	if b, ok, err := p.t.Log.sealed(from + 1); err != nil {
		return nil, err
	} else if ok {
		oldest = b.Epoch
	}
	present := make(map[batch.Seq]bool)
	var ahead *aheadError
	err := eachBatchFile(ctx, p.t.Dest, oldest, from+1, func(e batch.Epoch, first, last batch.Seq) error {
		b, ok, err := p.t.Log.sealed(last)
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
			ahead = &aheadError{Store: p.t.Name, Epoch: e, Seq: last, Digest: digest, Fork: ok}
		} else if err == nil {
			p.t.Logger.Warn("a file under a batch's name is none, passed over", "store", p.t.Name, "epoch", e, "batch", last)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if ahead != nil {
		return nil, ahead
	}
	return present, nil
}

// eachBatchFile calls fn for the batch files of epochs from oldest on that lie in the directory of from or a later one.
func eachBatchFile(ctx context.Context, s store.Store, oldest batch.Epoch, from batch.Seq, fn func(e batch.Epoch, first, last batch.Seq) error) error {
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
