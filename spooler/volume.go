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
	"slipway/spooler/tree"
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
	timing     timing
	log        *slog.Logger
	now        func() time.Time
	rebooted   bool // the machine has been started since the last commit
	bootID     string
	exclude    *exclude.List // nil: nothing is
	rpo        rpo

	// the journal and what was folded from it
	reader  *journal.Reader
	cat     *catalog.Catalog
	meta    catalog.Meta
	folded  journal.Position
	tree    *tree.Tree
	pending *pendingSet

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

	// sealing
	packing        *capture.Packing
	nextPacker     int
	busyBytes      int64          // of the files that workers have
	busy           int            // captures that workers have
	arrived        []*pendingFile // captures that wait for the next batch
	dirtySince     time.Time      // of the oldest change that a batch could carry; zero: none
	urgent         time.Time      // since then something is ready to be sealed that an fsync waits for; zero: nothing
	urgentReads    bool           // and more is being read
	lastSeal       time.Time
	lastRest       time.Time // of the last batch that left nothing behind
	usage          evict.Usage
	evictor        *evict.Evictor
	taken          uint64 // Serial of the last shard that a batch has introduced
	capBytes       int64  // of the own store
	problem        error  // why sealing does not go on
	abandoned      []batch.Object
	namedBy        string                            // first batch of a later epoch: the signed envelope that named this node's key
	fresh          bool                              // the next batch is the first of its epoch
	continued      bool                              // fresh, and the catalog holds the tree that the epoch continues
	renamed        bool                              // no batch names the peers' keys as they are known now
	savedPending   map[batch.FileID]journal.Position // as the catalog has it
	savedUnchecked map[batch.FileID]struct{}
	held           *sealing // prepared, but the own store could not take it yet
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
	v.savedPending = map[batch.FileID]journal.Position{}
	v.savedUnchecked = map[batch.FileID]struct{}{}
	v.pending = newPendingSet(v.timing, v.now)
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
		if err := tx.EachPending(v.loadPending); err != nil {
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

func (v *volume) loadPending(id batch.FileID, p catalog.Pending) error {
	v.savedPending[id] = p.Position
	f := v.pending.mark(id, p.Reason, p.Bytes, p.Position)
	f.since = p.Since
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

// newCapturer returns what one worker reads with.
func (v *volume) newCapturer() (*capture.Capturer, *capture.Packer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.packing.Packer(v.nextPacker)
	v.nextPacker++
	return capture.New(v.source, chunk.DeriveKeys(v.secret)), p
}

// canDispatch tells whether the workers can be given another file: many small ones, so that they have work while a batch is being
// committed, but not so many bytes that a small file would wait long behind them.
func (v *volume) canDispatch() bool {
	return v.busy < jobsMax && (v.busy < 2*workers || v.busyBytes < jobsBytes) && !v.congested()
}

// congested tells that so many shards wait for a batch that no more files should be read.
func (v *volume) congested() bool { return v.packing.Waiting() > maxShards-128 }

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
