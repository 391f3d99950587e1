package intake

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/batchlist"
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
	wait   Waiting
	swept  batch.Seq // the shards of no batch above were removed in this run

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
	p := k.pass()
	ready, err := p.Recognise(ctx)
	if err == nil && ready {
		again, err = p.Take(ctx)
	}
	if err != nil {
		k.setNote(err.Error())
	}
	return again, errors.Join(err, k.flush(ctx))
}

func (k *Keeper) pass() *Pass { return &Pass{&k.Volume, taker{k}, k.Log, &k.wait} }

// taker is a Keeper during a pass.
type taker struct{ k *Keeper }

// Recall implements Taker.
func (t taker) Recall(ctx context.Context, id batch.VolumeID) error { return t.k.recall(ctx, id) }

// Chain implements Taker.
func (t taker) Chain() Chain { return t.k.Chain() }

// Closed implements Taker.
func (t taker) Closed() string {
	if t.k.Strict && t.k.Full() {
		return "the volume has reached its quota"
	}
	return ""
}

// Accept implements Taker. Dying before the acks are written leaves the batch to be checked again.
func (t taker) Accept(c *Chain, a *Arrival) {
	k, env := t.k, &a.Batch.Envelope
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
}

// BeginAgain implements Taker.
func (t taker) BeginAgain() {
	t.k.swept = 0
	t.k.mu.Lock()
	t.k.Dropped = 0
	t.k.mu.Unlock()
}

// Refused implements Taker.
func (t taker) Refused(r ack.Refusal) {
	t.k.mu.Lock()
	t.k.Acks.Refuse(r)
	t.k.dirty = true
	t.k.mu.Unlock()
}

// SetNote implements Taker.
func (t taker) SetNote(text string) { t.k.setNote(text) }

// SetFault implements Taker.
func (t taker) SetFault(text string) { t.k.setFault(text) }

// Flush implements Taker.
func (t taker) Flush(ctx context.Context) error { return t.k.flush(ctx) }

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
