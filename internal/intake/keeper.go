package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/store"
)

// Keeper holds one volume that another node owns: it takes what arrives, in order of sequence, remembers below the state directory
// how far it has come, and says so in acks. A replica peer has one for each volume.
//
// After a crash what was checked may be behind: then a few batches are checked again. Acks are written after what they say is
// durable.
type Keeper struct {
	Volume
	Kind      string // in acks: "replica"
	StoreName string // in acks
	URL       string
	State     string      // directory of what is remembered, one file a volume
	Full      func() bool // the store has no room; may be nil
	Strict    bool        // nothing is taken while it is full
	OnHead    func()      // the head has moved; called without locks, may be nil
	Log       *slog.Logger

	passMu sync.Mutex // one pass at a time; guards what follows
	warned batch.Seq  // the batch whose missing shards were complained about
	late   time.Time  // since when that batch waits
	swept  batch.Seq  // the shards of no batch above were removed in this run

	mu sync.Mutex // guards what follows
	keeping
	known bool   // what is remembered was read and looked at again
	note  string // what the next batch waits for, in words
	fault string // why nothing of this volume is taken
	dirty bool
}

// keeping is what a Keeper remembers.
type keeping struct {
	Format   int            `json:"format"` // 1
	VolumeID batch.VolumeID `json:"volume_id"`
	Chain    Chain          `json:"chain"`
	Dropped  batch.Seq      `json:"dropped"` // the shards of no batch above were removed; those of the others may be, or are about to be
	Acks     ack.Acks       `json:"acks"`
	Owner    Naming         `json:"owner"` // by the newest batch
}

// Naming says who a volume's nodes are, as its owner's newest batch does.
type Naming struct {
	Node  string   `json:"node"`
	Peers []string `json:"peers,omitempty"` // in order
}

const (
	// A batch that waits longer than this for its shards is complained about.
	lateAfter = 10 * time.Second
	// While shards are missing, they are looked for this often.
	missingEvery = 250 * time.Millisecond
	// During a long pass the acks are written this often.
	flushEvery = time.Second
)

// errOtherVolume means: volume.json names another volume than the one that this directory has been the place of.
var errOtherVolume = errors.New("the directory holds another volume")

// Arrive takes what has come until something is missing, and writes the acks. It returns how soon to look again by itself (0: when
// something happens).
func (k *Keeper) Arrive(ctx context.Context) (again time.Duration, err error) {
	before := k.Head()
	again, err = k.arrive(ctx)
	if k.Head() != before && k.OnHead != nil {
		k.OnHead()
	}
	return again, err
}

func (k *Keeper) arrive(ctx context.Context) (again time.Duration, err error) {
	k.passMu.Lock()
	defer k.passMu.Unlock()
	ready, err := k.recognise(ctx)
	if err == nil && ready {
		again, err = k.pass(ctx)
	}
	if err != nil {
		k.setNote(err.Error())
	}
	return again, errors.Join(err, k.flush(ctx))
}

// recognise reads whose volume it is, and once after a start what is remembered of it.
func (k *Keeper) recognise(ctx context.Context) (ready bool, err error) {
	file, err := ReadVolumeFile(ctx, k.Store)
	if errors.Is(err, store.ErrNotExist) {
		k.setNote("nothing has arrived: there is no " + VolumeFile)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := k.recall(ctx, file.ID); err != nil {
		return false, err
	}
	if k.ID != file.ID {
		k.setFault(fmt.Sprintf("volume.json names the volume with id %s, but this has been the place of %s: put it back, or give the other volume another name", file.ID, k.ID))
		return false, fmt.Errorf("read volume %s: %w", k.Name, errOtherVolume)
	}
	k.setFault("")
	return true, nil
}

// pass takes batch after batch.
func (k *Keeper) pass(ctx context.Context) (again time.Duration, err error) {
	c := k.Chain()
	if err := k.beginLower(ctx, &c); err != nil {
		return 0, err
	}
	flushed := k.Now()
	for ctx.Err() == nil {
		if k.Strict && k.Full() {
			k.setNote("the volume has reached its quota")
			return 0, nil
		}
		a, err := k.next(ctx, &c)
		var r *Refusal
		var m *Missing
		switch {
		case errors.As(err, &r):
			if err := k.refuse(r); err != nil {
				return 0, err
			}
			continue
		case errors.As(err, &m):
			return k.waitFor(m), nil
		case errors.Is(err, ErrForked):
			k.setFault(err.Error())
			return 0, nil
		case err != nil || a == nil:
			return 0, err
		}
		if err := k.accept(&c, a); err != nil {
			return 0, err
		}
		if now := k.Now(); now.Sub(flushed) > flushEvery {
			flushed = now
			if err := k.flush(ctx); err != nil {
				return 0, err
			}
		}
	}
	return 0, ctx.Err()
}

func (k *Keeper) next(ctx context.Context, c *Chain) (*Arrival, error) {
	name, err := k.Next(ctx, c)
	if err != nil || name == "" {
		return nil, err
	}
	return k.Check(ctx, c, name)
}

// beginLower begins the chain again when a lower batch has come, as long as it does not count: a store that is filled from the
// middle holds no copy before its batches refer to nothing outside it.
func (k *Keeper) beginLower(ctx context.Context, c *Chain) error {
	if c.Low <= 1 || c.Whole() {
		return nil
	}
	_, low, err := k.Lowest(ctx)
	if err != nil || low == 0 || low >= c.Low {
		return err
	}
	*c, k.swept = Chain{}, 0
	k.mu.Lock()
	k.Dropped = 0
	k.mu.Unlock()
	return nil
}

// accept makes a checked batch part of the chain. Dying before the acks are written leaves the batch to be checked again.
func (k *Keeper) accept(c *Chain, a *Arrival) error {
	env := &a.Batch.Envelope
	if err := k.welcome(c, a); err != nil {
		return err
	}
	c.Extend(a.Batch)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keeping.Chain, k.note, k.dirty = c.Clone(), "", true
	k.Dropped = max(k.Dropped, c.Low-1)
	k.Owner = Naming{Node: env.Node}
	for _, p := range env.Peers {
		k.Owner.Peers = append(k.Owner.Peers, p.Name)
	}
	if c.Whole() {
		k.Acks.Advance(env.Epoch, env.Last, a.Batch.Digest, k.Now())
	}
	return nil
}

// welcome says loudly, and notes, whose word counts from this batch on.
func (k *Keeper) welcome(c *Chain, a *Arrival) error {
	env := &a.Batch.Envelope
	args := []any{"volume", k.Name, "node", env.Node, "key", env.OwnerKey, "epoch", env.Epoch, "batch", env.First}
	switch present := c.Present(); {
	case a.Pin:
		k.Log.Warn("pin the first owner key seen for this volume: compare it with node.key.pub of the primary, or set owners: in the configuration", args...)
	case present.Epoch == 0 || present.Epoch == env.Epoch:
		return nil
	default:
		k.Log.Warn("a new epoch begins", args...)
	}
	if len(k.Owners) > 0 {
		return nil
	}
	return k.Pins.Add(k.Name, env.OwnerKey, k.Now())
}

// waitFor notes a batch whose shards are not all there. That is no fault: they may be on their way.
func (k *Keeper) waitFor(m *Missing) time.Duration {
	k.setNote(m.Error())
	if k.warned != m.Seq {
		k.warned, k.late = m.Seq, k.Now()
	}
	if !k.late.IsZero() && k.Now().Sub(k.late) > lateAfter {
		k.late = time.Time{} // once
		k.Log.Warn("a batch waits for shards that do not come", "volume", k.Name, "batch", m.Seq, "missing", m.Count, "of", m.Of, "first", m.Digest)
	}
	return missingEvery
}

// refuse moves an object that failed its checks aside, where it is kept and counted.
func (k *Keeper) refuse(r *Refusal) error {
	k.Log.Error("refuse what arrived", "volume", k.Name, "object", r.Name, "reason", r.Reason, "cause", r.Cause)
	k.mu.Lock()
	k.Acks.Refuse(ack.Refusal{Name: r.Name, Reason: r.Reason + ": " + r.Cause.Error(), At: k.Now()})
	k.dirty = true
	k.mu.Unlock()
	return k.SetAside(r)
}

// Chain returns a copy of the checked prefix.
func (k *Keeper) Chain() Chain {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keeping.Chain.Clone()
}

// Head returns the newest batch that this store holds a whole copy of; 0: none.
func (k *Keeper) Head() batch.Seq {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Acks.Head
}

// Rows returns what listings show of the batches held from a number on, at most limit of them, oldest first.
func (k *Keeper) Rows(ctx context.Context, from batch.Seq, limit int) ([]batchlist.Row, error) {
	c := k.Chain()
	return k.Listed(ctx, &c, batchlist.Path(k.State, k.Name), from, limit)
}

// Naming returns the volume's nodes by its newest batch.
func (k *Keeper) Naming() Naming {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.Owner
	n.Peers = append([]string(nil), n.Peers...)
	return n
}

// Standing is a copy of where a Keeper stands, for status.
type Standing struct {
	Chain   Chain
	Acks    ack.Acks
	Dropped batch.Seq
	Note    string // what the next batch waits for
	Fault   string // why nothing is taken
}

// Standing says where the Keeper stands.
func (k *Keeper) Standing() Standing {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Standing{Chain: k.keeping.Chain.Clone(), Acks: k.Acks, Dropped: k.Dropped, Note: k.note, Fault: k.fault}
	s.Acks.Refused = append([]ack.Refusal(nil), s.Acks.Refused...)
	return s
}

func (k *Keeper) setNote(note string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note = note
}

func (k *Keeper) setFault(fault string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = fault
}
