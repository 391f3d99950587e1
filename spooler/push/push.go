// Package push brings what is sealed in the node's own store to one destination, the cache or a replica peer, and reads the
// acks there. One Pusher a destination follows the history; no pusher waits for another.
//
// After a crash of this node or of the destination: nothing is lost and nothing is undone. A pusher keeps no state on disk. A
// shard is there whole or not at all, a batch file only behind all shards it introduces, batches in order of sequence. The next
// connect compares what is durable there with the own store and goes on behind it; what is sent twice is equal and harmless.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/shard"
	"slipway/internal/state"
	"slipway/internal/store"
)

// Target says where one pusher pushes to, from where, and who is told.
type Target struct {
	Name, Kind, URL string      // Kind: "cache", "replica"
	Dest            store.Store // rooted at the volume
	Volume          state.Volume
	Own             store.Store // the node's own store, rooted at the volume
	Log             Log

	// Elsewhere are stores that are asked for a shard which the own store has not any more, nearest first.
	Elsewhere []store.Store
	// Follower: this node is not the volume's owner. A destination that is ahead of it is as it should be.
	Follower bool
	// RetryMax bounds the back-off after a fault; 0: 30 s.
	RetryMax time.Duration

	// Called from the pusher's goroutines, may be nil; they must not block for long.
	OnAcks      func(target string, acks []ack.Acks) // every acks file there, each time they were read
	OnDelivered func(target string, head batch.Seq)  // the report's Delivered, each time it may have moved
	OnTrouble   func(target string, err error)       // each failed attempt: *AheadError and *LostShardError want an answer
	OnRotten    func(r Rotten)                       // a shard of the own store that is not what its name says, sent from another copy
	Hurry       func() bool                          // an fsync waits for the acks of what was sent: they are read more often
	Logger      *slog.Logger                         // nil: nothing is logged
}

// Bounds of what a pusher has in hand at once.
const (
	maxFlight      = 4        // shards in flight
	runBatches     = 16       // batches whose shards are sent together
	runBytes       = 32 << 20 // of those batches' shards
	maxAnnounced   = 64       // shards that wait to go ahead of their batch
	maxBatchFile   = batch.MaxFile
	lookOneByOne   = 128 // more shards than this are looked up by listing directories
	idleLook       = 30 * time.Second
	ackPoll        = time.Second
	ackPollFast    = 200 * time.Millisecond
	ackPollHurry   = 50 * time.Millisecond
	ackFastFor     = time.Minute // a backup host that is down must not keep the fast pace for ever
	backoffInitial = 200 * time.Millisecond
	backoffMax     = 30 * time.Second
)

// Pusher brings one destination to where the own store is, in order of sequence, and keeps it there.
//
// It keeps no state on disk: where delivery stands is read at the destination at every connect. After a crash on either side
// the next connect finds what is durable there and goes on behind it; what is sent twice is equal and harmless.
type Pusher struct {
	t     Target
	dirty chan struct{} // capacity one: something to push, or something to look at
	acked chan struct{} // capacity one: read the acks now

	connected atomic.Bool // what follows was compared with the destination
	sending   atomic.Bool // RunSending is at work
	distrust  atomic.Bool // what was sent is to be looked for again

	// owned by the goroutine that calls PushOnce
	cursor batch.Seq // everything up to here is there
	looked batch.Seq // of that, shards were sent or seen by this run up to here
	fresh  bool      // first run of batches since connect: some of it may be there already

	clockRead bool // the destination's clock was compared since connect

	ahead map[shard.Digest]bool
	meter *store.Meter // of the destination

	mu           sync.Mutex   // guards what follows
	later        batch.Digest // the head of a later epoch that its acks named, and that a connect has looked into
	report       Report
	fastTill     time.Time
	stuckAt      batch.Seq // acknowledged head that does not move
	stuckSince   time.Time
	unackedSince time.Time // what is there is not acknowledged; zero: all of it is
	announced    []batch.Object
	spaceAsked   time.Time
}

// New makes the pusher of one destination. Nothing is started.
func New(t Target) *Pusher {
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	return &Pusher{
		t:      t,
		dirty:  make(chan struct{}, 1),
		acked:  make(chan struct{}, 1),
		ahead:  make(map[shard.Digest]bool),
		report: Report{Name: t.Name, Kind: t.Kind, URL: t.URL, State: Connecting, Since: time.Now()},
		meter:  store.NewMeter(t.Dest),
	}
}

// Close frees the connections.
func (p *Pusher) Close() error { return p.t.Dest.Close() }

// Wake tells that there is something new to push.
func (p *Pusher) Wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// ShardPublished lets a shard travel while its batch is still being sealed. It is an offer: a pusher that is behind leaves the
// shard to its batch.
func (p *Pusher) ShardPublished(o batch.Object) {
	if !p.connected.Load() {
		return
	}
	p.mu.Lock()
	if len(p.announced) < maxAnnounced {
		p.announced = append(p.announced, o)
	}
	p.mu.Unlock()
	p.Wake()
}

// PushOnce pushes everything that is sealed now, and returns how many batches became complete at the destination.
func (p *Pusher) PushOnce(ctx context.Context) (int, error) {
	n, err := p.pushAll(ctx)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, errTargetFull) {
		p.connected.Store(false)
	}
	return n, fmt.Errorf("push to %s: %w", p.t.Name, err)
}

func (p *Pusher) pushAll(ctx context.Context) (pushed int, err error) {
	if !p.connected.Load() {
		p.enter(Connecting, nil)
		if err := p.connect(ctx); err != nil {
			return 0, err
		}
		p.connected.Store(true)
		p.readAcksSoon()
	}
	for {
		run, err := p.nextRun(ctx)
		if err != nil {
			return pushed, err
		}
		if len(run) == 0 {
			if more, err := p.sendAhead(ctx); err != nil || !more {
				return pushed, err
			}
			continue
		}
		p.enter(Sending, nil)
		n, err := p.sendRun(ctx, run)
		pushed += n
		if err != nil {
			return pushed, err
		}
		p.fresh = false
	}
}

// outgoing is a batch on its way.
type outgoing struct {
	sealedAt time.Time
	seq      batch.Seq
	path     string
	file     []byte
	objects  []batch.Object
}

// nextRun reads the batches that come next, so many that several small ones share the wire and none waits long for another.
func (p *Pusher) nextRun(ctx context.Context) ([]outgoing, error) {
	if err := p.leapToBase(); err != nil {
		return nil, err
	}
	var run []outgoing
	bytes := int64(0)
	for seq := p.cursor + 1; len(run) < runBatches && (bytes < runBytes || len(run) == 0); seq++ {
		o, ok, err := readSealed(ctx, p.t.Own, p.t.Log, seq)
		if err != nil || !ok {
			return run, err
		}
		run = append(run, o)
		for _, s := range o.objects {
			bytes += s.Size
		}
	}
	return run, nil
}

// leapToBase passes over a gap in what this node knows of earlier epochs.
func (p *Pusher) leapToBase() error {
	bounds, err := p.t.Log.Bounds()
	if err != nil || p.cursor+1 >= bounds.Base {
		return err
	}
	if _, known, err := p.t.Log.Sealed(p.cursor + 1); known || err != nil {
		return err
	}
	p.cursor = bounds.Base - 1
	return nil
}
