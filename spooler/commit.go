package spooler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/spooler/pending"
)

// commit writes everything the batch means into the catalog, with the position up to which the journal is consumed.
func (v *volume) commit(tx *catalog.Tx, s *sealing) error {
	seq := s.env.Last
	if err := v.tree.Commit(tx, s.change, seq); err != nil {
		return err
	}
	if err := commitShards(tx, s, seq); err != nil {
		return err
	}
	if err := v.commitWaiting(tx, s.captures, s.change.Deferred); err != nil {
		return err
	}
	return v.commitMeta(tx, s)
}

func commitShards(tx *catalog.Tx, s *sealing, seq batch.Seq) error {
	var locs []catalog.Location
	for _, p := range s.introduced {
		if err := tx.PutShard(p.Digest, catalog.ShardInfo{Size: p.Size, Seq: seq}); err != nil {
			return err
		}
		locs = append(locs, p.Chunks...)
	}
	for d, data := range s.sealed.BodyShards {
		if err := tx.PutShard(d, catalog.ShardInfo{Size: int64(len(data)), Seq: seq}); err != nil {
			return err
		}
	}
	return tx.PutChunks(locs)
}

// commitWaiting notes which sealed files are pending again and which directories are to be compared after a restart: those
// the walk has not reached, and the parents of deferred entries, whose new files the catalog does not know.
func (v *volume) commitWaiting(tx *catalog.Tx, captures []*pending.File, deferred map[batch.FileID]struct{}) error {
	if err := v.pending.Save(tx, captures); err != nil {
		return err
	}
	return v.mirror.SaveUnchecked(tx, deferred)
}

func (v *volume) commitMeta(tx *catalog.Tx, s *sealing) error {
	e := &s.sealed.Envelope
	m := v.meta
	m.VolumeID = v.id
	m.Head, m.HeadDigest, m.Base, m.SealedAt = e.Last, s.sealed.Digest, e.Base, e.SealedAt
	m.Complete = e.Complete
	if e.Complete {
		m.LastWhole = e.Last
	}
	m.Position, m.NextFile, m.HeadTemp, m.BootID = v.mirror.Folded(), v.tree.Next(), filepath.Base(s.temp), v.bootID
	m.Excluded = v.exclude.Digest()
	if err := tx.SetMeta(m); err != nil {
		return err
	}
	stored := int64(len(s.sealed.File))
	for _, o := range e.Introduces {
		stored += o.Size
	}
	v.meta = m
	return tx.PutBatch(catalog.BatchInfo{
		Epoch: e.Epoch, Seq: e.Last, SealedAt: e.SealedAt, Digest: s.sealed.Digest,
		Files: e.Counts.Files, Bytes: e.Counts.Bytes, Removals: e.Counts.Removals,
		Shards: len(e.Introduces), Stored: stored, Complete: e.Complete,
	})
}

// settleCommitted brings memory to where the catalog is: what was sealed leaves the overlay.
func (v *volume) settleCommitted(s *sealing) {
	v.tree.Settle(s.change)
	for _, p := range s.captures {
		v.pending.Sealed(p)
	}
	v.rpo.Sealed(s.env.Last, s.touched, s.env.SealedAt)
	v.packing.Committed(s.introduced)
	v.evictor.Committed(s.env.Last, s.sealed.Envelope.Introduces)
	v.usage.Add(int64(len(s.sealed.File)))
	for _, data := range s.sealed.BodyShards {
		v.usage.Add(int64(len(data)))
	}
	v.abandoned = v.abandoned[len(s.env.Abandons):]
	v.fresh, v.continued, v.namedBy = false, false, ""
	v.dirtySince = time.Time{}
	v.rhythm.sealed(v.now(), v.atRest(v.pending.Imminent(v.pool.Busy())))
}

// advanceBytes is how much of the journal may lie folded without a batch.
const advanceBytes = 1 << 20

// advance moves the catalog's position behind records that changed nothing (files opened for writing and closed as they were),
// so that the journal does not grow without a batch. Only while nothing lies over the catalog: what does would be forgotten.
func (v *volume) advance() error {
	was, is := v.meta.Position, v.mirror.Folded()
	if is.Serial == was.Serial && is.Offset-was.Offset < advanceBytes || v.meta.Head == 0 ||
		!v.tree.IsSealed() || len(v.arrived) > 0 {
		return nil
	}
	m := v.meta
	m.Position, m.NextFile = is, v.tree.Next()
	if err := v.cat.Update(func(tx *catalog.Tx) error {
		if err := v.commitWaiting(tx, nil, nil); err != nil {
			return err
		}
		return tx.SetMeta(m)
	}); err != nil {
		return &fatalError{fmt.Errorf("move the journal's position: %w", err)}
	}
	v.meta = m
	if err := v.mirror.Trim(is); err != nil {
		v.log.Warn("journal files stay", "error", err)
	}
	return nil
}

// errHeadLost means that the own store has lost the newest batch: it was removed, or another directory was put in its place.
var errHeadLost = errors.New("the own store has lost its newest batch")

// publishHead gives the committed batch file its name. Repeating it changes nothing.
func (v *volume) publishHead() error {
	final := v.batchFile(v.meta.Epoch, v.meta.Head)
	temp := filepath.Join(filepath.Dir(final), v.meta.HeadTemp)
	if _, err := os.Lstat(filepath.Dir(final)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish batch %d: %s is not there: %w", v.meta.Head, filepath.Dir(final), errHeadLost)
	}
	err := durable.PublishTemp(temp, final)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish batch %d: neither %s nor its temporary file is there: %w", v.meta.Head, final, errHeadLost)
	}
	if err != nil {
		return fmt.Errorf("publish batch %d: %w", v.meta.Head, err)
	}
	return nil
}
