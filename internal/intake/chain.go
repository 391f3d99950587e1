package intake

import (
	"time"

	"slipway/internal/batch"
)

// Chain is the checked prefix of a volume in one store.
type Chain struct {
	Low      batch.Seq    `json:"low"`    // first batch checked; 0: none yet
	Head     batch.Seq    `json:"head"`   // last batch checked
	Digest   batch.Digest `json:"digest"` // what the next batch must name as the one before it
	Base     batch.Seq    `json:"base"`   // of the last
	Epochs   []Begin      `json:"epochs"`
	Complete bool         `json:"complete"` // of the last
}

// Begin says where an epoch begins and whose it is.
type Begin struct {
	Epoch batch.Epoch `json:"epoch"`
	First batch.Seq   `json:"first"`
	Key   string      `json:"key"`
}

// Arrival is a batch that passed all checks.
type Arrival struct {
	Batch    *batch.Batch
	Size     int64 // of its file
	Received time.Time
	Pin      bool // nobody was known for this volume: its key is to be pinned
}

// Clone returns a chain that can be changed apart from this one.
func (c *Chain) Clone() Chain {
	d := *c
	d.Epochs = append([]Begin(nil), c.Epochs...)
	return d
}

// At returns the epoch that a batch of the chain belongs to; the last one for those beyond its head.
func (c *Chain) At(seq batch.Seq) Begin {
	for i := len(c.Epochs) - 1; i >= 0; i-- {
		if c.Epochs[i].First <= seq {
			return c.Epochs[i]
		}
	}
	return Begin{}
}

// Present returns the last epoch.
func (c *Chain) Present() Begin {
	if len(c.Epochs) == 0 {
		return Begin{}
	}
	return c.Epochs[len(c.Epochs)-1]
}

// Path names a batch of the chain.
func (c *Chain) Path(seq batch.Seq) string { return batch.Path(c.At(seq).Epoch, seq, seq) }

// Extend adds a batch that passed Check.
func (c *Chain) Extend(b *batch.Batch) {
	env := &b.Envelope
	if c.Present().Epoch != env.Epoch {
		c.Epochs = append(c.Epochs[:len(c.Epochs):len(c.Epochs)], Begin{env.Epoch, env.First, bare(env.OwnerKey)})
	}
	if c.Head == 0 {
		c.Low = env.First
	}
	c.Head, c.Digest, c.Base, c.Complete = env.Last, link(b), env.Base, env.Complete
}

// Whole tells whether the store holds a copy of the chain's head: a store that was filled from the middle does only once its
// batches refer to nothing before its first one.
func (c *Chain) Whole() bool { return c.Head > 0 && c.Base >= c.Low }

// Cut takes the batches after the given one out of the chain; nil takes all.
func (c *Chain) Cut(last *batch.Batch) {
	if last == nil || last.Envelope.Last < c.Low {
		*c = Chain{}
		return
	}
	env := &last.Envelope
	c.Head, c.Digest, c.Base, c.Complete = env.Last, link(last), env.Base, env.Complete
	for len(c.Epochs) > 0 && c.Epochs[len(c.Epochs)-1].First > c.Head {
		c.Epochs = c.Epochs[:len(c.Epochs)-1]
	}
}

// link returns what the next batch must name as the digest of the one before it.
func link(b *batch.Batch) batch.Digest {
	if b.Envelope.StandsFor != nil {
		return *b.Envelope.StandsFor
	}
	return b.Digest
}

// Owns tells whether a public key, in whatever spelling, is the epoch's.
func (b Begin) Owns(key string) bool { return b.Key != "" && bare(key) == bare(b.Key) }
