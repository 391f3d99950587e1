package spooler

import (
	"fmt"
	"log/slog"
	"os"
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
	"slipway/spooler/history"
	"slipway/spooler/mirror"
	"slipway/spooler/pending"
	"slipway/spooler/rpo"
	"slipway/spooler/seal"
	"slipway/spooler/tree"
	"slipway/spooler/workers"
)

// volume is one owned volume between the journal and the node's own store: its rooms, each of which holds what it knows, and the lock of
// those that take none. Every method expects mu to be held; the spooler's loop holds it during a step, the control socket while it looks
// something up.
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
	timing     pending.Timing
	log        *slog.Logger
	now        func() time.Time
	rebooted   bool // the machine has been started since the last commit
	bootID     string
	exclude    *exclude.List // nil: nothing is

	// the rooms that mu guards, in the order in which a change passes them
	tree    *tree.Tree       // what was folded, over what was sealed
	pending *pending.Set     // what is to be read, and when
	mirror  *mirror.Mirror   // brings the journal and the source into both
	pool    *workers.Pool    // reads; the workers' side of it needs no mu
	sealer  *seal.Sealer     // makes batches
	history *history.History // has them
	rpo     *rpo.Deadlines   // says what is late

	// what locks itself: workers, pushers and the evictor use it beside the loop
	packing  *capture.Packing
	usage    evict.Usage
	evictor  *evict.Evictor
	capBytes int64 // of the own store

	// the spooler's, called by the rooms
	nudge       func() // wakes the loop
	onSealed    func(batch.Seq)
	onPublished func(batch.Object)
}

// rebootWindow is how far before a boot batches are doubted: what was sealed in this time is read again, since it may not have reached the disk.
const rebootWindow = 10 * time.Minute

// load takes the catalog's state at start. What was folded but not committed is folded again.
func (v *volume) load() error {
	v.pending = pending.NewSet(&v.timing, v.now)
	cat, meta := v.history.Catalog(), v.history.Meta()
	err := cat.View(func(tx *catalog.Tx) error {
		lateFrom, err := v.loadBoot(tx)
		if err != nil {
			return err
		}
		v.tree = tree.New(cat, meta.NextFile)
		v.mirror = mirror.New(mirror.Options{
			Source: v.source, Journal: v.journalDir, Exclude: v.exclude, Tree: v.tree, Pending: v.pending,
			From: meta.Position, Rebooted: v.rebooted, LateFrom: lateFrom,
			Adopting: func() bool { m := v.history.Meta(); return m.Head == 0 || m.LastWhole == 0 },
			Changed:  func() { v.sealer.Changed() }, Log: v.log, Now: v.now,
		})
		if err := tx.EachUnchecked(func(dir batch.FileID) error { v.mirror.LoadUnchecked(dir); return nil }); err != nil {
			return err
		}
		return tx.EachPending(func(id batch.FileID, row catalog.Pending) error { v.pending.Load(id, row); return nil })
	})
	if err != nil {
		return fmt.Errorf("load catalog: %w", err)
	}
	return nil
}

// loadBoot finds out whether what was sealed last, from a batch on, may have been lost below us by a power cut.
func (v *volume) loadBoot(tx *catalog.Tx) (lateFrom batch.Seq, err error) {
	v.rebooted = v.history.Meta().BootID != "" && v.history.Meta().BootID != v.bootID
	lateFrom = v.history.Meta().Head + 1
	if !v.rebooted {
		return lateFrom, nil
	}
	from := v.history.Meta().SealedAt.Add(-rebootWindow)
	err = tx.Batches(0, func(b catalog.BatchInfo) error {
		if b.SealedAt.After(from) && b.Seq < lateFrom {
			lateFrom = b.Seq
		}
		return nil
	})
	return lateFrom, err
}

// setProblem notes why sealing does not go on, for status.
func (v *volume) setProblem(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealer.SetProblem(err)
}

// dispatch gives the workers files that are due.
func (v *volume) dispatch() error { return v.pool.Dispatch(v.tree, v.pending, v.mirror.Folded()) }

// collect takes what the workers brought.
func (v *volume) collect() { v.sealer.Arrive(v.pool.Collect(v.pending)) }

// catchUp folds before a question is answered: whoever asks about a file that was made just now is not told that there is none.
func (v *volume) catchUp() error {
	if v.sealer.Held() {
		return nil // what was prepared must stay what is committed
	}
	_, err := v.mirror.Fold()
	return err
}

// position returns where the journal stands for `wait`: everything answered before the call lies before it.
func (v *volume) position() (journal.Position, error) { return journal.End(v.journalDir) }
