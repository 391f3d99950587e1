package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// compareEvery is how soon the cache's head is compared again, as long as it is not known to agree with this node's.
const compareEvery = 2 * time.Second

// CompareOnce compares what the cache says that its newest batch is with this node's batch of that number. Where they differ, this node's
// own, which verifies, is laid beside the cache's as evidence: the cache host then holds the batch back for an operator to decide
// (docs/sending.md). It returns how soon to come again (0: when the head has moved).
func (v *volume) CompareOnce(ctx context.Context) time.Duration {
	if v.owned() { // what lies here speaks of an earlier epoch
		return 0
	}
	t, c := &v.tell, v.keep.Chain()
	mine := headOf{c.Present().Epoch, v.keep.Head()}
	if mine.seq == 0 || t.agreed == mine {
		return 0
	}
	now := v.p.now()
	if since := now.Sub(t.compared); since >= 0 && since < compareEvery {
		return compareEvery - since
	}
	t.compared = now
	seq, err := v.compare(ctx)
	switch {
	case err != nil:
		// It is compared again; the cache that is away is said elsewhere.
		v.p.log.Debug("compare with the cache", "volume", v.name, "error", err)
	case seq == mine.seq:
		t.agreed = mine
		return 0
	}
	return compareEvery
}

// compare returns up to where this node and the cache were found to agree; 0: nothing can be said.
func (v *volume) compare(ctx context.Context) (batch.Seq, error) {
	a, err := ack.Read(ctx, v.tell.cache, v.p.cfg.Cache.Name)
	if errors.Is(err, store.ErrNotExist) {
		return 0, nil
	}
	c := v.keep.Chain()
	if err != nil || a.VolumeID != v.keep.ID || a.Epoch != c.Present().Epoch || a.Head < max(c.Low, 1) || a.Head > v.keep.Head() {
		return 0, err
	}
	b, _, err := v.keep.Load(ctx, &c, a.Head)
	if err != nil {
		return 0, err
	}
	if intake.Is(b, a.HeadDigest) {
		return a.Head, nil
	}
	name := intake.Evidence(b, v.p.cfg.Name)
	if err := v.tell.cache.Publish(ctx, name, b.File()); err != nil {
		return 0, fmt.Errorf("show this node's batch %d: %w", a.Head, err)
	}
	if name != v.tell.shown {
		v.tell.shown = name
		v.p.log.Error("the cache holds another batch than this node under a number: this node's lies beside it as evidence",
			"volume", v.name, "batch", a.Head, "evidence", name)
	}
	return 0, nil
}
