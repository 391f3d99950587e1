package seal

import (
	"fmt"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/spooler/pending"
)

// commit writes everything the batch means into the catalog, with the position up to which the journal is consumed.
func (s *Sealer) commit(tx *catalog.Tx, b *Batch) error {
	seq := b.env.Last
	if err := s.opt.Tree.Commit(tx, b.change, seq); err != nil {
		return err
	}
	if err := commitShards(tx, b, seq); err != nil {
		return err
	}
	if err := s.commitWaiting(tx, b.captures, b.change.Deferred); err != nil {
		return err
	}
	return s.commitMeta(tx, b)
}

func commitShards(tx *catalog.Tx, b *Batch, seq batch.Seq) error {
	var locs []catalog.Location
	for _, p := range b.introduced {
		if err := tx.PutShard(p.Digest, catalog.ShardInfo{Size: p.Size, Seq: seq}); err != nil {
			return err
		}
		locs = append(locs, p.Chunks...)
	}
	for d, data := range b.sealed.BodyShards {
		if err := tx.PutShard(d, catalog.ShardInfo{Size: int64(len(data)), Seq: seq}); err != nil {
			return err
		}
	}
	return tx.PutChunks(locs)
}

// commitWaiting notes which sealed files are pending again and which directories are to be compared after a restart: those
// the walk has not reached, and the parents of deferred entries, whose new files the catalog does not know.
func (s *Sealer) commitWaiting(tx *catalog.Tx, captures []*pending.File, deferred map[batch.FileID]struct{}) error {
	if err := s.opt.Pending.Save(tx, captures); err != nil {
		return err
	}
	return s.opt.Mirror.SaveUnchecked(tx, deferred)
}

func (s *Sealer) commitMeta(tx *catalog.Tx, b *Batch) error {
	e := &b.sealed.Envelope
	m := s.opt.History.Meta()
	m.VolumeID = s.opt.VolumeID
	m.Head, m.HeadDigest, m.Base, m.SealedAt = e.Last, b.sealed.Digest, e.Base, e.SealedAt
	m.Complete = e.Complete
	if e.Complete {
		m.LastWhole = e.Last
	}
	m.Position, m.NextFile, m.HeadTemp, m.BootID = s.opt.Mirror.Folded(), s.opt.Tree.Next(), filepath.Base(b.temp), s.opt.BootID
	m.Excluded = s.opt.Excluded
	if err := s.opt.History.SetMeta(tx, m); err != nil {
		return err
	}
	stored := int64(len(b.sealed.File))
	for _, o := range e.Introduces {
		stored += o.Size
	}
	return tx.PutBatch(catalog.BatchInfo{
		Epoch: e.Epoch, Seq: e.Last, SealedAt: e.SealedAt, Digest: b.sealed.Digest,
		Files: e.Counts.Files, Bytes: e.Counts.Bytes, Removals: e.Counts.Removals,
		Shards: len(e.Introduces), Stored: stored, Complete: e.Complete,
	})
}

// settleCommitted brings memory to where the catalog is: what was sealed leaves the overlay.
func (s *Sealer) settleCommitted(b *Batch) {
	s.opt.Tree.Settle(b.change)
	for _, p := range b.captures {
		s.opt.Pending.Sealed(p)
	}
	s.opt.Deadlines.Sealed(b.env.Last, b.touched, b.env.SealedAt)
	s.opt.Packing.Committed(b.introduced)
	bytes := int64(len(b.sealed.File))
	for _, data := range b.sealed.BodyShards {
		bytes += int64(len(data))
	}
	s.opt.Committed(b.env.Last, b.sealed.Envelope.Introduces, bytes)
	s.abandoned = s.abandoned[len(b.env.Abandons):]
	s.opt.History.Begun()
	s.dirtySince = time.Time{}
	s.rhythm.sealed(s.opt.Now(), s.atRest(s.opt.Pending.Imminent(s.opt.Busy())))
}

// AdvanceBytes is how much of the journal may lie folded without a batch.
const AdvanceBytes = 1 << 20

// Advance moves the catalog's position behind records that changed nothing (files opened for writing and closed as they were), once
// they are so many bytes: so that the journal does not grow without a batch, and at the end so that whoever looks while no spooler runs
// does not take them for changes. Only while nothing lies over the catalog: what does would be forgotten.
func (s *Sealer) Advance(least int64) error {
	was, is := s.opt.History.Meta().Position, s.opt.Mirror.Folded()
	if is.Serial == was.Serial && is.Offset-was.Offset < least || s.opt.History.Meta().Head == 0 ||
		!s.opt.Tree.IsSealed() || len(s.arrived) > 0 {
		return nil
	}
	m := s.opt.History.Meta()
	m.Position, m.NextFile = is, s.opt.Tree.Next()
	if err := s.opt.History.Catalog().Update(func(tx *catalog.Tx) error {
		if err := s.commitWaiting(tx, nil, nil); err != nil {
			return err
		}
		return s.opt.History.SetMeta(tx, m)
	}); err != nil {
		return &Fatal{fmt.Errorf("move the journal's position: %w", err)}
	}
	if err := s.opt.Mirror.Trim(is); err != nil {
		s.opt.Log.Warn("journal files stay", "error", err)
	}
	return nil
}
