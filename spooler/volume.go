package spooler

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/exclude"
	"slipway/internal/journal"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/capture"
	"slipway/spooler/evict"
	"slipway/spooler/pending"
	"slipway/spooler/rpo"
	"slipway/spooler/tree"
	"slipway/spooler/workers"
)

// volume is the state of one owned volume between the journal and the node's own store. Every method expects mu to be held;
// the spooler's loop holds it during a step, the control socket while it looks something up.
type volume struct {
	mu sync.Mutex

	// set once
	name       string
	node       string
	id         batch.VolumeID
	identity   state.Volume
	secret     chunk.Secret
	source     *os.File
	journalDir string
	own        store.Store // the node's own store, rooted at the volume
	ownDir     string
	ownKey     string                                                   // this node's public key
	sign       func(batch.Envelope, *batch.Body) (*batch.Sealed, error) // with this node's key, to the recipients
	recipients []age.Recipient
	peers      []batch.Peer
	timing     pending.Timing
	log        *slog.Logger
	now        func() time.Time
	rebooted   bool // the machine has been started since the last commit
	bootID     string
	exclude    *exclude.List // nil: nothing is
	rpo        *rpo.Deadlines

	// the journal and what was folded from it
	reader  *journal.Reader
	cat     *catalog.Catalog
	meta    catalog.Meta
	folded  journal.Position
	tree    *tree.Tree
	pending *pending.Set
	pool    *workers.Pool

	// the comparison with the source
	why       string                    // why the tree is not complete; "" when it is
	unchecked map[batch.FileID]struct{} // directories not compared since the last gap
	checked   map[batch.FileID]struct{}
	queue     []batch.FileID
	unnamed   map[batch.FileID]struct{} // files without a name while the walk may still find one
	missing   map[batch.FileID]int
	mounted   []string
	lateFrom  batch.Seq // after a boot: files sealed from here on are read again
	gaps      int
	renames   uint64

	// sealing
	packing        *capture.Packing
	arrived        []*pending.File // captures that wait for the next batch
	dirtySince     time.Time       // of the oldest change that a batch could carry; zero: none
	rhythm         rhythm
	usage          evict.Usage
	evictor        *evict.Evictor
	taken          uint64 // Serial of the last shard that a batch has introduced
	capBytes       int64  // of the own store
	problem        error  // why sealing does not go on
	abandoned      []batch.Object
	namedBy        string // first batch of a later epoch: the signed envelope that named this node's key
	fresh          bool   // the next batch is the first of its epoch
	continued      bool   // fresh, and the catalog holds the tree that the epoch continues
	renamed        bool   // no batch names the peers' keys as they are known now
	savedUnchecked map[batch.FileID]struct{}
	held           *sealing // prepared, but the own store could not take it yet
	nudge          func()   // wakes the loop
	onSealed       func(batch.Seq)
	onPublished    func(batch.Object)
}

// changed notes that there is something to seal.
func (v *volume) changed() {
	if v.dirtySince.IsZero() {
		v.dirtySince = v.now()
	}
}

// load takes the catalog's state at start. What was folded but not committed is folded again.
func (v *volume) load() error {
	v.unchecked = map[batch.FileID]struct{}{}
	v.unnamed = map[batch.FileID]struct{}{}
	v.missing = map[batch.FileID]int{}
	v.checked = map[batch.FileID]struct{}{}
	v.savedUnchecked = map[batch.FileID]struct{}{}
	v.pending = pending.NewSet(&v.timing, v.now)
	err := v.cat.View(func(tx *catalog.Tx) error {
		var err error
		if v.meta, err = tx.Meta(); err != nil {
			return err
		}
		if err := tx.EachUnchecked(func(id batch.FileID) error {
			v.savedUnchecked[id] = struct{}{}
			v.uncheck(id)
			return nil
		}); err != nil {
			return err
		}
		if err := tx.EachPending(func(id batch.FileID, row catalog.Pending) error { v.pending.Load(id, row); return nil }); err != nil {
			return err
		}
		return v.loadBoot(tx)
	})
	if err != nil {
		return fmt.Errorf("load catalog: %w", err)
	}
	v.tree = tree.New(v.cat, v.meta.NextFile)
	v.folded = v.meta.Position
	return nil
}

// loadBoot finds out whether what was sealed last may have been lost below us by a power cut.
func (v *volume) loadBoot(tx *catalog.Tx) error {
	v.rebooted = v.meta.BootID != "" && v.meta.BootID != v.bootID
	v.lateFrom = v.meta.Head + 1
	if !v.rebooted {
		return nil
	}
	from := v.meta.SealedAt.Add(-rebootWindow)
	return tx.Batches(0, func(b catalog.BatchInfo) error {
		if b.SealedAt.After(from) && b.Seq < v.lateFrom {
			v.lateFrom = b.Seq
		}
		return nil
	})
}

// recover finishes what a commit left open: the head's batch file gets its name. Dying before it repeats only this.
func (v *volume) recover() error {
	if v.meta.HeadTemp == "" {
		return nil
	}
	return v.publishHead()
}

// setProblem notes why sealing does not go on, for status.
func (v *volume) setProblem(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.problem = err
}

// dispatch gives the workers files that are due.
func (v *volume) dispatch() error { return v.pool.Dispatch(v.tree, v.pending, v.folded) }

// collect takes what the workers brought.
func (v *volume) collect() { v.arrived = append(v.arrived, v.pool.Collect(v.pending)...) }

// isExcluded tells whether a name is left out by the configuration.
func (v *volume) isExcluded(parent batch.FileID, name string, isDir bool) (bool, error) {
	if v.exclude == nil {
		return false, nil
	}
	dir, ok, err := v.tree.Path(parent)
	if err != nil || !ok {
		return false, err
	}
	_, skip := v.exclude.Match(filepath.Join(dir, name), isDir)
	return skip, nil
}
