// Package seal makes batches of what was folded and captured, and commits them to the catalog and the own store.
//
// After a crash a batch is sealed if the catalog's transaction was committed (commit point 2 of docs/guarantees.md), and package history
// gives its file the name it lacks. Otherwise nothing of it is there but shards that no batch names and a temporary file.
package seal

import (
	"log/slog"
	"time"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/store"
	"slipway/spooler/capture"
	"slipway/spooler/history"
	"slipway/spooler/mirror"
	"slipway/spooler/pending"
	"slipway/spooler/rpo"
	"slipway/spooler/tree"
)

// Options of a sealer.
type Options struct {
	// what every envelope says
	Volume   string
	VolumeID batch.VolumeID
	Node     string
	Key      string // this node's public key
	Peers    []batch.Peer
	Secret   chunk.Secret
	BootID   string
	Excluded string                                                   // digest of what is
	Sign     func(batch.Envelope, *batch.Body) (*batch.Sealed, error) // with this node's key, to the recipients

	// what batches are made of
	Own       store.Store
	History   *history.History
	Tree      *tree.Tree
	Pending   *pending.Set
	Mirror    *mirror.Mirror
	Packing   *capture.Packing
	Deadlines *rpo.Deadlines

	Timing    *pending.Timing                                        // read anew each time
	MaxBytes  int64                                                  // of the shards that a batch introduces
	Busy      func() int                                             // captures that workers have
	Committed func(seq batch.Seq, shards []batch.Object, file int64) // told of each batch: what it introduces, and its own bytes
	Sealed    func(batch.Seq)                                        // told when its file has its name
	Log       *slog.Logger
	Now       func() time.Time
}

// Sealer makes a volume's batches. It takes no lock: whoever owns it guards it.
type Sealer struct {
	opt        Options
	rhythm     rhythm
	arrived    []*pending.File // captures that wait for the next batch
	dirtySince time.Time       // of the oldest change that a batch could carry; zero: none
	taken      uint64          // Serial of the last shard that a batch has introduced
	problem    error           // why sealing does not go on
	abandoned  []batch.Object
	peers      []batch.Peer
	renamed    bool   // no batch names the peers' keys as they are known now
	held       *Batch // prepared, but the own store could not take it yet
}

// New makes a sealer.
func New(opt Options) *Sealer {
	return &Sealer{opt: opt, peers: opt.Peers, rhythm: rhythm{timing: opt.Timing}}
}

// Changed notes that there is something to seal.
func (s *Sealer) Changed() {
	if s.dirtySince.IsZero() {
		s.dirtySince = s.opt.Now()
	}
}

// Arrive takes files whose capture waits for a batch now.
func (s *Sealer) Arrive(files []*pending.File) { s.arrived = append(s.arrived, files...) }

// Idle tells that there is nothing to seal.
func (s *Sealer) Idle() bool { return s.dirtySince.IsZero() && len(s.arrived) == 0 }

// Covers tells whether the batches have all names and attributes of a position of the journal that has been folded.
func (s *Sealer) Covers(pos journal.Position) bool {
	return s.dirtySince.IsZero() || !s.opt.History.Meta().Position.Before(pos)
}

// Urge says since when something is ready to be sealed that an fsync waits for (zero: nothing is), and whether more is being read.
func (s *Sealer) Urge(since time.Time, reading bool) {
	s.rhythm.urgent, s.rhythm.urgentReads = since, reading
}

// Abandon has the next envelope name shards that no batch ever named.
func (s *Sealer) Abandon(shards []batch.Object) { s.abandoned = shards }

// Held tells whether a prepared batch waits for the own store.
func (s *Sealer) Held() bool { return s.held != nil }

// Problem is why sealing does not go on; nil: it does.
func (s *Sealer) Problem() error { return s.problem }

// SetProblem notes why sealing does not go on.
func (s *Sealer) SetProblem(err error) { s.problem = err }
