package push

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// Classes of errors of a pusher.
var (
	// errTargetFull: the destination's acks say full; it is asked again until they do not.
	errTargetFull = errors.New("store says it is full")
	// errDamaged: what has the name of one of our batches there is no batch. Whoever keeps that store has to move it away.
	errDamaged = errors.New("file at the store is damaged")
	// errClaimed: a node is being promoted. It needs an operator where that is never finished: the claim is removed from the cache.
	errClaimed = errors.New("another node is being promoted to owner")
	// errForeign: the directory at the destination belongs to another volume. It needs an operator.
	errForeign = errors.New("store directory belongs to another volume")
)

// AheadError says that the destination holds a batch that this node does not know, or another one under one of its numbers. This
// node's state is older than what it has sent; sealing on would be a fork, so the owner begins a new epoch.
type AheadError struct {
	Store  string
	Epoch  batch.Epoch
	Seq    batch.Seq
	Digest batch.Digest // zero when only its name was seen
	Fork   bool         // ours under that number is another one
}

func (e *AheadError) Error() string {
	if e.Fork {
		return fmt.Sprintf("%s holds another batch under number %d (epoch %d) than this node", e.Store, e.Seq, e.Epoch)
	}
	return fmt.Sprintf("%s holds batch %d (epoch %d), which this node does not know", e.Store, e.Seq, e.Epoch)
}

// LostShardError says that no store that was asked has the shard whole any more. Its chunks have to leave the index, and the files
// that use it become pending.
type LostShardError struct {
	Shard batch.Object
	Err   error
}

func (e *LostShardError) Error() string {
	return fmt.Sprintf("shard %s is lost: %v", e.Shard.Digest, e.Err)
}

func (e *LostShardError) Unwrap() error { return e.Err }

// Final tells whether the shard is gone for good, and not only out of reach.
func (e *LostShardError) Final() bool {
	return !errors.Is(e.Err, store.ErrTemporary) && !errors.Is(e.Err, context.Canceled) &&
		(errors.Is(e.Err, store.ErrNotExist) || errors.Is(e.Err, shard.ErrCorrupt))
}

// Bounds say what there is to push.
type Bounds struct {
	Epoch batch.Epoch // present one
	Head  batch.Seq   // last sealed batch, 0: none
	Base  batch.Seq   // oldest batch that a store must have
}

// Batch names one batch of this node's history.
type Batch struct {
	Epoch  batch.Epoch
	Seq    batch.Seq
	Digest batch.Digest
}

// Log is the history that pushers follow. Safe for concurrent use.
type Log interface {
	Bounds() (Bounds, error)
	Sealed(seq batch.Seq) (Batch, bool, error)
}

// errStop ends an iteration early.
var errStop = errors.New("enough")

// CatalogLog is the history as the catalog has it.
func CatalogLog(cat *catalog.Catalog) Log { return catalogLog{cat} }

type catalogLog struct{ cat *catalog.Catalog }

func (l catalogLog) Bounds() (b Bounds, err error) {
	err = l.cat.View(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		b = Bounds{Epoch: m.Epoch, Head: m.Head, Base: m.Base}
		return err
	})
	return b, err
}

func (l catalogLog) Sealed(seq batch.Seq) (b Batch, ok bool, err error) {
	err = l.cat.View(func(tx *catalog.Tx) error {
		return tx.Batches(seq, func(i catalog.BatchInfo) error {
			if i.Seq == seq {
				b, ok = Batch{Epoch: i.Epoch, Seq: i.Seq, Digest: i.Digest}, true
			}
			return errStop // the first is all that is wanted
		})
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return b, ok, err
}

// readSealed reads a batch from the own store. false: it is not sealed yet, or its file has not got its name yet.
func readSealed(ctx context.Context, own store.Store, log Log, seq batch.Seq) (outgoing, bool, error) {
	b, ok, err := log.Sealed(seq)
	if err != nil || !ok {
		return outgoing{}, false, err
	}
	o := outgoing{seq: seq, path: batch.Path(b.Epoch, seq, seq)}
	o.file, err = own.Read(ctx, o.path, maxBatchFile)
	if errors.Is(err, store.ErrNotExist) {
		// The head is committed before its file is renamed into place. Any other one that is missing is a fault.
		if bounds, berr := log.Bounds(); berr == nil && seq == bounds.Head {
			return outgoing{}, false, nil
		}
	}
	if err != nil {
		return outgoing{}, false, fmt.Errorf("read batch %d from the own store: %w", seq, err)
	}
	parsed, err := batch.Parse(o.file)
	if err == nil && parsed.Digest != b.Digest {
		err = batch.ErrCorrupt
	}
	if err != nil {
		return outgoing{}, false, fmt.Errorf("read batch %d from the own store: %w", seq, err)
	}
	o.objects, o.sealedAt = introduced(&parsed.Envelope), parsed.Envelope.SealedAt
	return o, true, nil
}

// introduced returns every shard that a store must have before the batch counts, each once.
func introduced(e *batch.Envelope) []batch.Object {
	seen := make(map[shard.Digest]bool, len(e.Introduces))
	var out []batch.Object
	for _, list := range [][]batch.Object{e.Introduces, e.BodyShards} {
		for _, o := range list {
			if !seen[o.Digest] {
				seen[o.Digest] = true
				out = append(out, o)
			}
		}
	}
	return out
}
