package intake

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// Next returns the name of the batch file that would continue the chain, or "" if it has not come. The error may be a
// *Refusal of another file that is in its way, or ErrForked.
func (v *Volume) Next(ctx context.Context, c *Chain) (string, error) {
	if c.Head == 0 {
		epoch, low, err := v.Lowest(ctx)
		if err != nil || low == 0 {
			return "", err
		}
		return batch.Path(epoch, low, low), nil
	}
	next := c.Head + 1
	name := batch.Path(c.Present().Epoch, next, next)
	_, err := v.Store.Stat(ctx, name)
	if err == nil || v.regular(name) != nil {
		return name, nil
	}
	if !errors.Is(err, store.ErrNotExist) {
		return "", fmt.Errorf("look for batch %d: %w", next, err)
	}
	if err := v.stray(ctx, c); err != nil {
		return "", err
	}
	return v.nextEpoch(ctx, c)
}

// stray refuses a batch that would have begun the present epoch earlier than the one that did.
func (v *Volume) stray(ctx context.Context, c *Chain) error {
	begin := c.Present()
	if begin.First <= 1 {
		return nil
	}
	seqs, err := v.list(ctx, begin.Epoch, begin.First-1)
	if err != nil || len(seqs) == 0 {
		return err
	}
	return refuse(batch.Path(begin.Epoch, seqs[0], seqs[0]), "fork", "epoch %d began at batch %d", begin.Epoch, begin.First)
}

// nextEpoch looks for the first batch of the epoch after the present one. One that is chained to an older batch than the last is
// a fork and refused. Two at once are one too, and neither is taken.
func (v *Volume) nextEpoch(ctx context.Context, c *Chain) (string, error) {
	next, epoch := c.Head+1, c.Present().Epoch+1
	firsts, err := v.list(ctx, epoch, next)
	if err != nil || len(firsts) == 0 {
		return "", err
	}
	stray := firsts[0]
	switch {
	case stray == next:
		return batch.Path(epoch, next, next), nil
	case firsts[len(firsts)-1] == next:
		return "", fmt.Errorf("batches %d and %d both would begin epoch %d; remove the wrong one from the store: %w", stray, next, epoch, ErrForked)
	}
	return "", refuse(batch.Path(epoch, stray, stray), "fork",
		"epoch %d would begin at batch %d, but epoch %d has gone on to %d", epoch, stray, epoch-1, c.Head)
}

// Lowest finds the lowest batch of the store, where a chain begins; 0 if there is none.
func (v *Volume) Lowest(ctx context.Context) (in batch.Epoch, low batch.Seq, err error) {
	epochs, err := v.numbered(ctx, "batches")
	if err != nil {
		return 0, 0, err
	}
	for _, e := range epochs {
		seqs, err := v.list(ctx, batch.Epoch(e), batch.MaxSeq)
		if err != nil {
			return 0, 0, err
		}
		if len(seqs) > 0 && (low == 0 || seqs[0] < low) {
			in, low = batch.Epoch(e), seqs[0]
		}
	}
	return in, low, nil
}

// list returns the sequence numbers of an epoch's batch files up to a number, in order.
func (v *Volume) list(ctx context.Context, e batch.Epoch, upTo batch.Seq) ([]batch.Seq, error) {
	dir := path.Dir(path.Dir(batch.Path(e, 1, 1)))
	groups, err := v.numbered(ctx, dir)
	if err != nil {
		return nil, err
	}
	var seqs []batch.Seq
	for _, n := range groups {
		if batch.Seq(n)*perDirectory > upTo {
			break
		}
		group := path.Join(dir, fmt.Sprintf("%08d", n))
		infos, err := v.Store.List(ctx, group)
		if err != nil {
			return nil, fmt.Errorf("list batches: %w", err)
		}
		for _, info := range infos {
			_, first, last, err := batch.ParsePath(path.Join(group, info.Name))
			if err == nil && first == last && first <= upTo {
				seqs = append(seqs, first)
			}
		}
	}
	return seqs, nil
}

// perDirectory is how many sequence numbers share a directory.
const perDirectory = 10000

// numbered returns the directories below dir whose names are numbers of eight digits, in order.
func (v *Volume) numbered(ctx context.Context, dir string) ([]uint64, error) {
	infos, err := v.Store.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list batches: %w", err)
	}
	var list []uint64
	for _, info := range infos {
		n, err := strconv.ParseUint(info.Name, 10, 32)
		if err == nil && info.Dir && len(info.Name) == 8 {
			list = append(list, n)
		}
	}
	return list, nil
}
