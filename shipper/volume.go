package shipper

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/hold"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// volume is one directory of the store, with how far everything in it has come.
type volume struct {
	name    string
	in      intake.Volume // its directory and its checks; the id is set before known is
	cursors []*cursor     // one for each backup host
	wake    chan struct{}

	// Owned by the arrival pass, which arriveMu keeps to one at a time.
	arriveMu sync.Mutex
	wait     intake.Waiting

	publishing sync.RWMutex // read: a batch file is being published; whoever has made a hold takes it to know what that came to

	flushMu sync.Mutex // one writer of acks and checkpoint at a time

	mu sync.Mutex
	// Guarded by mu:
	known      bool // the checkpoint was read and what it says was looked at again
	chain      intake.Chain
	evicted    batch.Seq   // the shards of no batch above have left the cache
	gone       batch.Seq   // those of all batches up to here have
	toSweep    []batch.Seq // batches whose abandoned shards are still to be removed
	held       []held      // checked batches, without gaps, from the first that a host lacks up to the chain's head
	acks       ack.Acks
	acksDirty  bool
	stateDirty bool
	manual     batch.Seq   // an operator said: everything up to here goes
	holds      []hold.Hold // an operator said: nothing goes from here on
	note       string      // what the next batch waits for, in words
	fault      string      // why nothing of this volume is taken
	ahead      string      // the primary's clock, if it is wrong
	agreement  agreement
	unfinished bool // the first pass has not seen everything yet: our acks would go back
}

// held is a checked batch that some host lacks. It is small, because a host may be away for long.
type held struct {
	seq      batch.Seq
	epoch    batch.Epoch
	bytes    int64 // of its file and shards
	sum      int64 // of all held batches up to this one
	received int64 // nanoseconds since 1970, by the cache's clock
}

func heldOf(b *batch.Batch, size int64, received time.Time) held {
	env := &b.Envelope
	h := held{seq: env.First, epoch: env.Epoch, bytes: size, received: received.UnixNano()}
	for _, o := range env.Introduces {
		h.bytes += o.Size
	}
	return h
}

// discover finds volumes that have appeared in the store.
func (s *Shipper) discover(ctx context.Context) {
	infos, err := s.root.List(ctx, "")
	if err != nil {
		s.log.Error("list the store", "store", s.cfg.Store, "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, info := range infos {
		if info.Dir && s.volumes[info.Name] == nil {
			s.volumes[info.Name] = s.newVolume(info.Name)
		}
	}
}

func (s *Shipper) newVolume(name string) *volume {
	v := &volume{
		name: name,
		in: intake.Volume{
			Name: name, Dir: filepath.Join(s.cfg.Store, name), Store: store.Sub(s.root, name), Now: s.now,
			Owners: s.cfg.Owners[name], Pins: intake.Pins(filepath.Join(s.cfg.State, "pins")),
		},
		wake:       make(chan struct{}, 1),
		holds:      s.readHolds(name),
		unfinished: true,
		acks:       ack.Acks{Store: s.cfg.Name, Kind: "cache", URL: s.cfg.Store, Copies: s.cfg.Ship.Copies},
	}
	if v.acks.Store == "" {
		v.acks.Store = s.cfg.Node
	}
	for _, h := range s.hosts {
		v.cursors = append(v.cursors, newCursor(s, v, h))
	}
	return v
}

// restoreLocked puts in what a checkpoint says.
func (v *volume) restoreLocked(p *checkpoint) {
	v.chain, v.evicted, v.gone, v.toSweep = p.Chain, p.Evicted, p.Gone, p.Sweep
	a := p.Cache
	a.Store, a.Kind, a.URL, a.Copies = v.acks.Store, v.acks.Kind, v.acks.URL, v.acks.Copies
	v.acks = a
	for _, c := range v.cursors {
		if r, ok := p.Hosts[c.h.name]; ok {
			r.Acks.Store, r.Acks.Kind, r.Acks.URL = c.acks.Store, c.acks.Kind, c.acks.URL
			c.acks, c.marks = r.Acks, r.Due
		}
	}
}

func (v *volume) snapshotLocked() checkpoint {
	p := checkpoint{VolumeID: v.in.ID, Chain: v.chain.Clone(), Evicted: v.evicted, Gone: v.gone, Cache: v.acks, Hosts: map[string]hostRecord{}}
	p.Sweep = append(p.Sweep, v.toSweep...)
	for _, c := range v.cursors {
		p.Hosts[c.h.name] = hostRecord{Acks: c.acks, Due: append([]ack.Mark(nil), c.marks...)}
	}
	return p
}

// heldLocked returns the held batches from one sequence number to another, as far as there are any.
func (v *volume) heldLocked(from, to batch.Seq) []held {
	if len(v.held) == 0 || from > to {
		return nil
	}
	first := v.held[0].seq
	lo, hi := max(from, first), min(to, first+batch.Seq(len(v.held))-1)
	if lo > hi {
		return nil
	}
	return v.held[lo-first : hi-first+1]
}

// holdLocked adds the next batch.
func (v *volume) holdLocked(h held) {
	h.sum = h.bytes
	if n := len(v.held); n > 0 {
		if v.held[n-1].seq+1 != h.seq {
			v.held = nil // never with gaps
		} else {
			h.sum += v.held[n-1].sum
		}
	}
	v.held = append(v.held, h)
}

// trimLocked forgets the batches that every host has.
func (v *volume) trimLocked() {
	n := len(v.heldLocked(0, v.neededLocked()))
	if n == len(v.held) {
		v.held = nil
	} else if n > 4096 || n > len(v.held)/2 {
		v.held = append([]held(nil), v.held[n:]...)
	}
}

// hold replaces the held batches.
func (v *volume) hold(list []held) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holdAllLocked(list)
}

func (v *volume) holdAllLocked(list []held) {
	v.held = nil
	for _, h := range list {
		v.holdLocked(h)
	}
}

// needed returns up to where every host has everything.
func (v *volume) needed() batch.Seq {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.neededLocked()
}

func (v *volume) neededLocked() batch.Seq {
	low := v.acks.Head
	for _, c := range v.cursors {
		low = min(low, c.acks.Head)
	}
	return low
}

func (v *volume) copyChain() intake.Chain {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.chain.Clone()
}

// release is the operator's word: everything that has arrived goes now.
func (v *volume) release() {
	v.mu.Lock()
	v.manual = v.acks.Head
	v.mu.Unlock()
	v.wakeCursors()
}

func (v *volume) wakeCursors() {
	for _, c := range v.cursors {
		wakeUp(c.wake)
	}
}

// flush writes what has changed: the acks, each after what it says is durable, and the checkpoint. Dying in between leaves
// some of them older, and a restart finds out again.
func (s *Shipper) flush(ctx context.Context, v *volume) error {
	ctx = context.WithoutCancel(ctx) // local and short; a shutdown must not leave the acks behind what was done
	v.flushMu.Lock()
	defer v.flushMu.Unlock()
	v.mu.Lock()
	due := v.dirtyLocked(s.now())
	save, p := v.stateDirty || len(due) > 0, v.snapshotLocked()
	v.stateDirty = false
	v.mu.Unlock()
	var faults []error
	for _, a := range due {
		faults = append(faults, ack.Write(ctx, v.in.Store, a))
	}
	if save {
		faults = append(faults, s.writeCheckpoint(v.name, p))
	}
	err := errors.Join(faults...)
	if err != nil {
		v.mu.Lock()
		v.stateDirty = true
		v.acksDirty = true
		for _, c := range v.cursors {
			c.acksDirty = true
		}
		v.mu.Unlock()
	}
	return err
}

// dirtyLocked takes the acks that are to be written.
func (v *volume) dirtyLocked(now time.Time) []ack.Acks {
	var due []ack.Acks
	if v.acksDirty && !v.unfinished {
		v.acksDirty = false
		v.acks.At, v.acks.VolumeID = now, v.in.ID
		due = append(due, v.acks)
	}
	for _, c := range v.cursors {
		if c.acksDirty {
			c.acksDirty = false
			c.acks.At, c.acks.VolumeID = now, v.in.ID
			due = append(due, c.acks)
		}
	}
	return due
}
