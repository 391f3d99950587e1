package peer

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/promote"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
	"slipway/spooler/sender"
)

// volume is one volume of another node.
type volume struct {
	p       *Peer
	name    string
	keep    *intake.Keeper
	arrived chan struct{} // capacity one
	warm    *warmer       // nil: none is kept
	moved   chan struct{} // capacity one: the head has
	tell    teller

	mu     sync.Mutex     // guards what follows
	told   bool           // this node's public key lies in the volume's directory
	sender *sender.Sender // nil until it is known whose volume it is
	pusher *push.Pusher   // the sender's; set with it, and never again
	stored batch.Seq      // `copies` backup hosts have everything up to here
	stages []ack.Acks
	rots   []push.Rotten
}

func (p *Peer) newVolume(name string) *volume {
	v := &volume{p: p, name: name, arrived: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	v.tell.cache = store.Sub(p.cache, name)
	v.keep = &intake.Keeper{
		Volume: intake.Volume{
			Name: name, Dir: filepath.Join(p.cfg.Store, name), Store: store.Sub(p.root, name), Now: p.now,
			Owners: p.cfg.Owners[name], Pins: intake.Pins(filepath.Join(p.cfg.State, "pins")),
		},
		Kind: "replica", StoreName: p.cfg.Name, URL: p.cfg.Store, State: filepath.Join(p.cfg.State, "volumes"),
		Full: p.full, OnHead: v.headMoved, Log: p.log,
	}
	if p.cfg.Warm != "" {
		v.warm = newWarmer(v)
	}
	return v
}

// start runs the volume's loops.
func (v *volume) start(ctx context.Context, g *errgroup.Group) {
	if w := v.warm; w != nil {
		g.Go(func() error {
			return loop.Every(ctx, listEvery, w.wake, func() time.Duration { return w.WarmOnce(ctx) })
		})
	}
	g.Go(func() error {
		return loop.Every(ctx, tellPause, v.moved, func() time.Duration { return sooner(v.TellOnce(ctx), v.CompareOnce(ctx)) })
	})
	g.Go(func() error {
		sending := false
		return loop.Every(ctx, listEvery, v.arrived, func() time.Duration {
			again := v.ArriveOnce(ctx)
			if s := v.senderIfKnown(); s != nil && !sending {
				sending = true
				g.Go(func() error { return s.Run(ctx) })
			}
			return again
		})
	})
}

// sooner returns the shorter of two pauses; 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// ownedPause is how soon it is seen that this node has become the volume's owner, or is it no longer.
const ownedPause = time.Second

// ArriveOnce takes what has come, and returns how soon to look again. While this node is the owner nothing is taken: what comes is a
// former owner's, who does not know yet.
func (v *volume) ArriveOnce(ctx context.Context) time.Duration {
	if v.owned() {
		return ownedPause
	}
	again, err := v.keep.Arrive(ctx)
	if err != nil && ctx.Err() == nil {
		v.p.log.Error("check what arrived", "volume", v.name, "error", err)
	}
	c := v.keep.Chain()
	if v.p.watch.Follow(&v.keep.Volume, &c) {
		loop.Nudge(v.arrived) // something may have come before it was watched
	}
	if err := v.tellKey(ctx); err != nil && ctx.Err() == nil {
		v.p.log.Warn("tell the owner this node's key", "volume", v.name, "error", err)
	}
	return again
}

func (v *volume) headMoved() {
	if v.warm != nil {
		loop.Nudge(v.warm.wake)
	}
	loop.Nudge(v.moved)
	if s := v.senderIfKnown(); s != nil {
		s.Wake()
		v.pusher.Wake() // idle while this node sends, it would look again only after a while
	}
}

// senderIfKnown returns this node's part in sending the volume; nil until a first batch has said whose it is.
func (v *volume) senderIfKnown() *sender.Sender {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sender == nil && v.keep.Head() > 0 {
		v.sender = v.newSenderLocked()
	}
	return v.sender
}

// newSenderLocked makes the sender and its pusher.
func (v *volume) newSenderLocked() *sender.Sender {
	p := v.p
	cache := store.Sub(p.cache, v.name)
	var others []sender.Place
	var elsewhere []store.Store
	for _, o := range p.others {
		s := store.Sub(o.s, v.name)
		others = append(others, sender.Place{Name: o.name, Store: s})
		elsewhere = append(elsewhere, s)
	}
	v.pusher = push.New(push.Target{
		Name: p.cfg.Cache.Name, Kind: "cache", URL: p.cfg.Cache.URL, Dest: cache, Own: v.keep.Store, Elsewhere: elsewhere,
		Volume: state.Volume{Format: 1, Name: v.name, ID: v.keep.ID}, Log: history{v.keep}, Follower: true, RetryMax: 2 * time.Second,
		OnAcks: func(_ string, list []ack.Acks) { v.acked(list) }, OnRotten: v.rotten, OnTrouble: v.troubled, Logger: p.log,
	})
	return sender.New(sender.Options{
		Node: p.cfg.Node, VolumeID: v.keep.ID, Volume: v.name, Present: v.present, Own: v.keep.Store,
		Cache: sender.Place{Name: p.cfg.Cache.Name, Store: cache}, Others: others, Pusher: v.pusher,
		StaleAfter: p.cfg.StaleAfter, StallAfter: p.cfg.StallAfter, Step: p.cfg.Step, PreferAfter: p.cfg.PreferAfter,
		Owner: v.owned, OnThere: v.pusher.Seen, Now: p.now, Log: p.log,
	})
}

// owned tells whether this peer was promoted, or is being, and is the volume's owner.
func (v *volume) owned() bool { return promote.Owned(v.p.cfg, v.name) }

func (v *volume) present() sender.Present {
	c, n := v.keep.Chain(), v.keep.Naming()
	return sender.Present{Epoch: c.Present().Epoch, Owner: n.Node, Peers: n.Peers, Held: v.keep.Head()}
}

// acked takes over what the acks on the cache say of the backup hosts.
func (v *volume) acked(list []ack.Acks) {
	stored := ack.Stored(list)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stored, v.stages = stored, list
}

// drop removes the shards of what the backup hosts hold.
func (v *volume) drop(ctx context.Context) {
	v.mu.Lock()
	stored := v.stored
	v.mu.Unlock()
	if err := v.keep.Drop(ctx, stored); err != nil && ctx.Err() == nil {
		v.p.log.Error("drop what is stored", "volume", v.name, "error", err)
	}
}

// maxRots bounds how many damaged shards are remembered.
const maxRots = 100

func (v *volume) rotten(r push.Rotten) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.rots) < maxRots {
		v.rots = append(v.rots, r)
	}
}

// history is the volume as this node holds it, for its pusher.
type history struct{ k *intake.Keeper }

// Bounds implements push.Log.
func (h history) Bounds() (push.Bounds, error) {
	c := h.k.Chain()
	return push.Bounds{Epoch: c.Present().Epoch, Head: h.k.Head(), Base: c.Base}, nil
}

// Sealed implements push.Log.
func (h history) Sealed(seq batch.Seq) (push.Batch, bool, error) {
	c := h.k.Chain()
	if seq < c.Low || seq > h.k.Head() || seq == 0 {
		return push.Batch{}, false, nil
	}
	b, _, err := h.k.Load(context.Background(), &c, seq)
	if err != nil {
		return push.Batch{}, false, err
	}
	return push.Batch{Epoch: b.Envelope.Epoch, Seq: seq, Digest: b.Digest}, true, nil
}
