package spooler

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
)

// commit writes everything the batch means into the catalog, with the position up to which the journal is consumed.
func (v *volume) commit(tx *catalog.Tx, s *sealing) error {
	seq := s.env.Last
	for i := range s.body.Inodes[:s.changed] {
		n := v.tree.nodes[s.body.Inodes[i].ID]
		n.Seq = seq
		if err := tx.PutInode(&n.Inode); err != nil {
			return err
		}
	}
	for _, e := range s.entries {
		if err := commitEntry(tx, e); err != nil {
			return err
		}
	}
	if err := v.commitDropped(tx); err != nil {
		return err
	}
	if err := commitShards(tx, s, seq); err != nil {
		return err
	}
	if err := v.commitWaiting(tx, s); err != nil {
		return err
	}
	return v.commitMeta(tx, s)
}

func commitEntry(tx *catalog.Tx, e batch.Entry) error {
	if e.ID == 0 {
		return tx.DeleteEntry(e.Parent, e.Name)
	}
	return tx.PutEntry(e.Parent, e.Name, e.ID)
}

// commitDropped removes ended files, except those that a deferred entry still shows under their old name.
func (v *volume) commitDropped(tx *catalog.Tx) error {
	for id, n := range v.tree.nodes {
		if n != nil {
			continue
		}
		held := false
		if err := tx.Names(id, func(batch.FileID, string) error { held = true; return nil }); err != nil {
			return err
		}
		if held {
			continue
		}
		if err := tx.DeleteInode(id); err != nil {
			return err
		}
	}
	return nil
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
func (v *volume) commitWaiting(tx *catalog.Tx, s *sealing) error {
	sealedNow := map[batch.FileID]bool{}
	for _, p := range s.captures {
		sealedNow[p.id] = p.done.Clean && p.gen == p.startGen && v.pending.writers[p.id] == 0
	}
	for id, p := range v.pending.files {
		if sealedNow[id] || p.reason == reasonNew && !inCatalog(tx, id) {
			continue
		}
		if pos, ok := v.savedPending[id]; ok && pos == p.pos {
			continue
		}
		v.savedPending[id] = p.pos
		if err := tx.PutPending(id, catalog.Pending{Since: p.since, Position: p.pos, Reason: p.reason, Writers: v.pending.writers[id], Bytes: p.bytes}); err != nil {
			return err
		}
	}
	for id := range v.savedPending {
		if v.pending.files[id] == nil || sealedNow[id] {
			delete(v.savedPending, id)
			if err := tx.DeletePending(id); err != nil {
				return err
			}
		}
	}
	return v.commitUnchecked(tx, s)
}

func inCatalog(tx *catalog.Tx, id batch.FileID) bool {
	_, ok, err := tx.Inode(id)
	return err == nil && ok
}

func (v *volume) commitUnchecked(tx *catalog.Tx, s *sealing) error {
	want := maps.Clone(s.deferred)
	maps.Copy(want, v.unchecked)
	for id := range want {
		if _, saved := v.savedUnchecked[id]; !saved {
			if err := tx.PutUnchecked(id); err != nil {
				return err
			}
		}
	}
	for id := range v.savedUnchecked {
		if _, still := want[id]; !still {
			if err := tx.DeleteUnchecked(id); err != nil {
				return err
			}
		}
	}
	v.savedUnchecked = want
	return nil
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
	m.Position, m.NextFile, m.HeadTemp, m.BootID = v.folded, v.tree.next, filepath.Base(s.temp), v.bootID
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
	t := v.tree
	for i := range s.body.Inodes[:s.changed] {
		id := s.body.Inodes[i].ID
		if n := t.nodes[id]; n != nil && !n.readXattrs {
			delete(t.nodes, id)
		}
	}
	for id, n := range t.nodes {
		if n != nil && !n.dirty {
			delete(t.nodes, id)
		}
	}
	for _, e := range s.entries {
		delete(t.entries[e.Parent], e.Name)
		if len(t.entries[e.Parent]) == 0 {
			delete(t.entries, e.Parent)
		}
		delete(t.names[e.ID], entryKey{e.Parent, e.Name})
	}
	for id, names := range t.names {
		if len(names) == 0 {
			delete(t.names, id)
		}
	}
	v.forgetDropped()
	for ident, id := range t.idents {
		if _, changed := t.nodes[id]; id == 0 || !changed {
			delete(t.idents, ident)
		}
	}
	for _, p := range s.captures {
		v.pending.sealed(p)
	}
	v.rpo.sealedBatch(s.env.Last, s.touched, s.env.SealedAt)
	v.packing.Committed(s.introduced)
	v.evictor.Committed(s.env.Last, s.sealed.Envelope.Introduces)
	v.usage.Add(int64(len(s.sealed.File)))
	for _, data := range s.sealed.BodyShards {
		v.usage.Add(int64(len(data)))
	}
	v.abandoned = v.abandoned[len(s.env.Abandons):]
	v.fresh, v.continued, v.namedBy = false, false, ""
	v.lastSeal, v.dirtySince = v.now(), time.Time{}
	if v.atRest(v.pending.imminent(v.busy)) {
		v.lastRest = v.lastSeal
	}
}

// forgetDropped lets go of ended files that the catalog does not have any more either.
func (v *volume) forgetDropped() {
	_ = v.cat.View(func(tx *catalog.Tx) error { // a read error only keeps an entry of memory longer
		for id, n := range v.tree.nodes {
			if n == nil && !inCatalog(tx, id) {
				delete(v.tree.nodes, id)
			}
		}
		return nil
	})
}

// advanceBytes is how much of the journal may lie folded without a batch.
const advanceBytes = 1 << 20

// advance moves the catalog's position behind records that changed nothing (files opened for writing and closed as they were),
// so that the journal does not grow without a batch. Only while nothing lies over the catalog: what does would be forgotten.
func (v *volume) advance() error {
	was, is := v.meta.Position, v.folded
	if is.Serial == was.Serial && is.Offset-was.Offset < advanceBytes || v.meta.Head == 0 ||
		len(v.tree.nodes) > 0 || len(v.tree.entries) > 0 || len(v.arrived) > 0 {
		return nil
	}
	m := v.meta
	m.Position, m.NextFile = is, v.tree.next
	if err := v.cat.Update(func(tx *catalog.Tx) error {
		if err := v.commitWaiting(tx, &sealing{deferred: map[batch.FileID]struct{}{}}); err != nil {
			return err
		}
		return tx.SetMeta(m)
	}); err != nil {
		return &fatalError{fmt.Errorf("move the journal's position: %w", err)}
	}
	v.meta = m
	if err := v.reader.Trim(is); err != nil {
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
