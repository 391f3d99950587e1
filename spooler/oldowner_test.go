package spooler

import (
	"errors"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// cachePusher is the pusher to the cache.
func (r *rig) cachePusher() *push.Pusher { return r.s.pushers[len(r.s.pushers)-1] }

// TestClaimedElsewhere: the old owner is back before the new one has sealed anything. What it pushed now would come between the batch
// that is continued and the first one of the new epoch, which the cache would refuse as a fork.
func TestClaimedElsewhere(t *testing.T) {
	r, key := promotable(t)
	cache := store.Sub(mustOpen(t, r.cache), "projects")
	_, err := r.cachePusher().PushOnce(t.Context())
	check(t, err)
	head := r.s.vol.history.Meta().Head
	n, _ := r.successor(key, true)
	check(t, claim.Create(t.Context(), cache, claim.New(r.s.vol.id, 2, 0, "bravo", "bravo", "test", time.Now())))
	r.create("late", "sealed by alpha, not delivered")
	r.drain()
	r.close()
	r.open()
	if _, err := r.cachePusher().PushOnce(t.Context()); err == nil {
		t.Error("the old owner pushes to a cache on which the next epoch is claimed")
	}
	if _, err := cache.Stat(t.Context(), batch.Path(1, head+1, head+1)); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("batch %d of the old owner came to the cache: %v", head+1, err)
	}
	n.mount()
	n.open()
	n.drain()
	_, err = n.cachePusher().PushOnce(t.Context())
	check(t, err)
	n.accepted()
}

// TestAheadWhileConnected: the old owner never lost its connection. The acks tell it that another epoch goes on there, and are no
// word about its own batches.
func TestAheadWhileConnected(t *testing.T) {
	r, key := promotable(t)
	cache := store.Sub(mustOpen(t, r.cache), "projects")
	_, err := r.cachePusher().PushOnce(t.Context())
	check(t, err)
	n, _ := r.successor(key, true)
	n.mount()
	n.open()
	n.drain()
	n.accepted()
	m := n.s.vol.history.Meta()
	check(t, ack.Write(t.Context(), cache, ack.Acks{
		VolumeID: r.s.vol.id, Store: "cache1", Kind: "cache", Epoch: 2, Head: m.Head, HeadDigest: m.HeadDigest, Copies: 1,
	}))
	r.create("late", "sealed by alpha beside it")
	r.drain()
	p := r.cachePusher()
	check(t, p.PollAcks(t.Context()))
	if a := p.Report().Acked; a >= m.Head {
		t.Errorf("the head of another epoch, %d, counts as this node's", a)
	}
	_, err = p.PushOnce(t.Context())
	var ahead *push.AheadError
	if !errors.As(err, &ahead) {
		t.Errorf("pushed beside the new owner: %v", err)
	}
}
