package chain

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/batch"
)

// trust finds out which epochs count, oldest first, and notes the key of each. An epoch's key is one of the given owners', or
// a key that a valid batch named for it: the one it is chained to, or the signed envelope that its first batch carries.
func (l *Line) trust(ctx context.Context, epochs [][]Slot) error {
	var why []error
	for i := range epochs {
		var before []Slot
		if i > 0 {
			before = epochs[i-1]
		}
		err := l.trustEpoch(ctx, epochs[i], before)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			why = append(why, fmt.Errorf("epoch %d: %w", epochs[i][0].Epoch, err))
		}
	}
	if len(l.keys) == 0 {
		if len(l.src.Owners) == 0 {
			return fmt.Errorf("read volume: %w: no owner's key is known; the identity file or the configuration names it", ErrOwner)
		}
		return fmt.Errorf("read volume: %w: %w", ErrOwner, errors.Join(why...))
	}
	return nil
}

// trustEpoch looks at the first batches of an epoch until one can be read.
func (l *Line) trustEpoch(ctx context.Context, slots, before []Slot) (err error) {
	const look = 8 // a few damaged batches at the beginning must not hide the epoch
	for i := range slots[:min(look, len(slots))] {
		if err = l.trustBatch(ctx, &slots[i], before); err == nil || errors.Is(err, ErrOwner) {
			return err
		}
	}
	return err
}

func (l *Line) trustBatch(ctx context.Context, s *Slot, before []Slot) error {
	var stranger error
	err := l.read(ctx, s.Path(), batch.MaxFile, s.stores, func(data []byte) error {
		b, err := Check(data, s)
		if err != nil {
			return err
		}
		if err := b.Verify([]string{b.Envelope.OwnerKey}); err != nil {
			return err
		}
		if l.VolumeID != (batch.VolumeID{}) && b.Envelope.VolumeID != l.VolumeID {
			return fmt.Errorf("%w: it belongs to volume %s, not %s", batch.ErrCorrupt, b.Envelope.VolumeID, l.VolumeID)
		}
		if b.Verify(l.src.Owners) != nil && !l.namedBefore(ctx, b, before) {
			stranger = fmt.Errorf("%w: %s is signed by %s", ErrOwner, s.Path(), b.Envelope.OwnerKey)
			return stranger
		}
		if l.VolumeID == (batch.VolumeID{}) {
			l.VolumeID = b.Envelope.VolumeID
		}
		l.keys[s.Epoch] = b.Envelope.OwnerKey
		return nil
	})
	if err != nil && stranger != nil {
		return stranger
	}
	return err
}

// namedBefore tells whether the epoch before named the key of b for the one that b begins: in the signed envelope that b
// carries, or in the batch that it is chained to.
func (l *Line) namedBefore(ctx context.Context, b *batch.Batch, before []Slot) bool {
	e := &b.Envelope
	trusted := l.src.Owners
	if len(before) > 0 && before[0].Epoch+1 == e.Epoch && l.keys[before[0].Epoch] != "" {
		trusted = []string{l.keys[before[0].Epoch]} // who owned that epoch is known: nobody else could name the next owner
	}
	if e.NamedBy != "" {
		p, err := batch.ParseSigned(e.NamedBy)
		return err == nil && p.Envelope.VolumeID == e.VolumeID && p.Envelope.Epoch+1 == e.Epoch && p.Verify(trusted) == nil && names(p, b)
	}
	if e.Prev == nil {
		return false
	}
	for i := range before {
		if before[i].Epoch+1 != e.Epoch || before[i].Last+1 != e.First {
			continue
		}
		if p, err := l.batch(ctx, &before[i], trusted, e.Prev); err == nil && names(p, b) {
			return true
		}
	}
	return false
}

// names tells whether p names the key that signed b.
func names(p, b *batch.Batch) bool {
	return b.Verify(append([]string{p.Envelope.OwnerKey}, p.Envelope.NextKeys...)) == nil
}

// FirstKey returns the owner's key that the oldest readable batch names. It says nothing about whether that owner is the
// right one; it is for a check without any knowledge of the owner.
func FirstKey(ctx context.Context, src Source) (string, error) {
	l := &Line{Reader: newReader(src), src: src, keys: make(map[batch.Epoch]string)}
	all, err := l.list(ctx)
	if err != nil {
		return "", err
	}
	key := ""
	for i := range all {
		err = l.read(ctx, all[i].Path(), batch.MaxFile, all[i].stores, func(data []byte) error {
			b, err := Check(data, &all[i])
			if err != nil {
				return err
			}
			key = b.Envelope.OwnerKey
			return b.Verify([]string{key})
		})
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrMissing) {
			return "", err
		}
	}
	return "", fmt.Errorf("look for an owner: %w", errors.Join(ErrNoBatch, err))
}
