package spooler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/internal/journal"
)

// maxShards is how many shards a batch may introduce.
const maxShards = 1024

// sealing is one batch on its way: prepare → commit (the catalog's transaction) → publish.
type sealing struct {
	env        batch.Envelope
	body       batch.Body
	captures   []*pendingFile
	introduced []publishedShard
	entries    []batch.Entry             // emitted
	deferred   map[batch.FileID]struct{} // directories with an entry that waits for content
	sealed     *batch.Sealed
	temp       string
}

// sealDue tells whether a batch should be sealed now; otherwise when to look again (zero: when something happens).
func (v *volume) sealDue() (bool, time.Time) {
	if v.dirtySince.IsZero() && len(v.arrived) == 0 {
		return false, time.Time{}
	}
	now := v.now()
	next := v.lastSeal.Add(v.timing.batch)
	if next.After(now) {
		return false, next
	}
	// A change of a directory usually comes with a file that is about to settle: one batch for both.
	if soon := v.pending.imminent(v.busy); !soon.IsZero() {
		since := v.dirtySince
		for _, p := range v.arrived {
			since = earliest(since, p.startAt)
		}
		if hold := since.Add(v.timing.batch); hold.After(now) {
			return false, earliest(soon, hold)
		}
	}
	return true, time.Time{}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// seal makes one batch of everything folded and captured so far. false: there was nothing to seal.
//
// Dying before the catalog's commit leaves shards that no batch names (found and abandoned at the next start) and a temporary
// file; dying after it leaves the batch file under its temporary name, which the next start publishes.
func (v *volume) seal(ctx context.Context) (bool, error) {
	s := &sealing{deferred: map[batch.FileID]struct{}{}}
	if err := v.resolveCaptures(ctx, s); err != nil {
		return false, err
	}
	if err := v.tree.within(func() error { return v.prepare(s) }); err != nil {
		return false, fmt.Errorf("prepare batch: %w", err)
	}
	if !v.worthSealing(s) {
		v.dirtySince = time.Time{}
		return false, nil
	}
	v.fillEnvelope(s)
	return true, v.finish(ctx, s)
}

// finish writes, commits and publishes a prepared batch. Where the own store cannot take it (disk full, read-only) the batch is
// held and tried again before anything else is folded: what was prepared must stay what is committed.
func (v *volume) finish(ctx context.Context, s *sealing) error {
	v.held = s
	if err := v.encode(ctx, s); err != nil {
		return fmt.Errorf("seal batch %d: %w", s.env.Last, err)
	}
	// Commit point 2 of docs/guarantees.md. When it fails, memory and disk may differ: the spooler starts anew from the disk.
	if err := v.cat.Update(func(tx *catalog.Tx) error { return v.commit(tx, s) }); err != nil {
		return &fatalError{fmt.Errorf("commit batch %d: %w", s.env.Last, err)}
	}
	v.held = nil
	v.settleCommitted(s)
	if err := v.publishHead(); err != nil {
		return &fatalError{err}
	}
	if err := v.reader.Trim(v.meta.Position); err != nil {
		v.log.Warn("journal files stay", "error", err)
	}
	v.onSealed(v.meta.Head)
	return nil
}

// fatalError leaves memory unsure: the process ends and begins again from what is on disk.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// resolveCaptures closes the open shards, so that every captured file's pieces have their place.
func (v *volume) resolveCaptures(ctx context.Context, s *sealing) error {
	if err := v.packing.flushAll(ctx); err != nil {
		v.log.Warn("shards could not be published, their files are read again", "error", err)
	}
	lists := false
	for _, p := range v.arrived {
		if !p.done.needsLists() {
			continue
		}
		lists = true
		if err := p.done.packLists(ctx, v.packing.packers[0]); err != nil {
			v.log.Warn("list of pieces could not be packed, the file is read again", "error", err)
		}
	}
	if lists {
		if err := v.packing.flushAll(ctx); err != nil {
			v.log.Warn("shards could not be published, their files are read again", "error", err)
		}
	}
	s.introduced = v.packing.takePublished(maxShards, v.capBytes/4)
	for _, p := range s.introduced {
		v.taken = p.Serial
	}
	var later []*pendingFile
	for _, p := range v.arrived {
		if p.done.through() > v.taken {
			later = append(later, p)
		} else {
			s.captures = append(s.captures, p)
		}
	}
	v.arrived = later
	return ctx.Err()
}

// prepare builds the body: captured content, changed inodes, changed entries whose file has content.
func (v *volume) prepare(s *sealing) error {
	if err := v.takeCaptures(s); err != nil {
		return err
	}
	if err := v.readInherited(); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(v.tree.nodes)) {
		n := v.tree.nodes[id]
		if n == nil || !n.dirty || (n.isRegular() && n.Content == nil) {
			continue
		}
		s.body.Inodes = append(s.body.Inodes, n.Inode.Inode)
	}
	for _, parent := range slices.Sorted(maps.Keys(v.tree.entries)) {
		if err := v.prepareEntries(s, parent); err != nil {
			return err
		}
	}
	return nil
}

// prepareEntries adds one directory's changed entries. One whose file has no content yet is left out together with what it
// replaces: the earlier entry stays.
func (v *volume) prepareEntries(s *sealing, parent batch.FileID) error {
	over := v.tree.entries[parent]
	for _, name := range slices.Sorted(maps.Keys(over)) {
		id := over[name]
		was, _, err := v.tree.tx.Lookup(parent, name)
		if err != nil {
			return err
		}
		if id != 0 {
			n, err := v.tree.get(id)
			if err != nil {
				return err
			}
			if n == nil || (n.isRegular() && n.Content == nil) {
				s.deferred[parent] = struct{}{}
				continue
			}
		}
		if was == id {
			delete(over, name)
			delete(v.tree.names[id], entryKey{parent, name})
			continue
		}
		s.entries = append(s.entries, batch.Entry{Parent: parent, Name: name, ID: id})
		if id == 0 {
			s.env.Counts.Removals++
		}
	}
	s.body.Entries = s.entries
	return nil
}

// takeCaptures moves what the workers read into the tree.
func (v *volume) takeCaptures(s *sealing) error {
	kept := s.captures[:0]
	for _, p := range s.captures {
		if v.pending.files[p.id] != p {
			continue // removed meanwhile
		}
		content, err := p.done.content()
		if err != nil {
			p.done = nil
			v.pending.retry(p, reasonUnread, err)
			continue
		}
		n, err := v.tree.edit(p.id)
		if err != nil {
			return err
		}
		if n == nil {
			v.pending.remove(p.id)
			continue
		}
		n.take(p.done, content)
		s.env.Counts.Files++
		s.env.Counts.Bytes += content.Size
		kept = append(kept, p)
	}
	s.captures = kept
	return nil
}

// take takes over a capture. Attributes that a later record brought are not set back.
func (n *node) take(c *captured, content *batch.Content) {
	if !content.Clean {
		content.Before = n.Content
		if n.Content != nil && !n.Content.Clean {
			content.Before = n.Content.Before
		}
	}
	n.Content = content
	n.Size, n.Ctime = content.Size, c.Attr.Ctime
	if c.Attr.Ctime >= n.Attr.Ctime {
		n.setAttr(c.Attr)
		n.Xattrs, n.readXattrs = c.Xattrs, false
	}
}

// worthSealing tells whether the batch would say anything.
func (v *volume) worthSealing(s *sealing) bool {
	return len(s.body.Inodes) > 0 || len(s.entries) > 0 || len(s.introduced) > 0 || v.fresh ||
		(!v.meta.Complete && !v.walking())
}

// encode makes the batch file and lays it, under a temporary name, into the own store.
func (v *volume) encode(ctx context.Context, s *sealing) error {
	sealed, err := batch.Seal(s.env, &s.body, v.recipients, v.signer)
	if err != nil {
		return err
	}
	s.sealed = sealed
	for d, data := range sealed.BodyShards {
		if err := v.own.Publish(ctx, d.Path(), data); err != nil {
			return fmt.Errorf("publish body shard %s: %w", d, err)
		}
	}
	s.temp, err = v.writeTemp(sealed)
	return err
}

func (v *volume) fillEnvelope(s *sealing) {
	e := &s.env
	e.VolumeID, e.Volume, e.Node = v.id, v.name, v.node
	e.Epoch = v.meta.Epoch
	e.First, e.Last = v.meta.Head+1, v.meta.Head+1
	if v.meta.Head > 0 {
		prev := v.meta.HeadDigest
		e.Prev = &prev
	}
	e.Base = v.meta.Base
	e.SealedAt = v.now().UTC().Round(0)
	if earliest := v.meta.SealedAt.Add(1); e.SealedAt.Before(earliest) {
		e.SealedAt = earliest // order must not depend on the clock
	}
	e.Peers = v.peers
	e.NextKeys = nextKeys(v)
	for _, p := range s.introduced {
		e.Introduces = append(e.Introduces, batch.Object{Digest: p.Digest, Size: p.Size})
	}
	e.Abandons = v.abandoned
	e.Complete = !v.walking()
	if !e.Complete {
		e.Why, e.LastWhole = v.why, v.meta.LastWhole
	}
	if v.fresh {
		e.Base, e.Full, e.NamedBy = e.First, true, v.namedBy
		s.body.Secret = &v.secret
	}
}

// writeTemp lays the batch file beside its final place, durable but not visible yet.
func (v *volume) writeTemp(sealed *batch.Sealed) (string, error) {
	dir := filepath.Dir(v.batchFile(sealed.Envelope.Epoch, sealed.Envelope.Last))
	if err := durable.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return durable.WriteTemp(dir, sealed.File, 0o640)
}

func (v *volume) batchFile(e batch.Epoch, seq batch.Seq) string {
	return filepath.Join(v.ownDir, filepath.FromSlash(batch.Path(e, seq, seq)))
}

// commit writes everything the batch means into the catalog, with the position up to which the journal is consumed.
func (v *volume) commit(tx *catalog.Tx, s *sealing) error {
	seq := s.env.Last
	for i := range s.body.Inodes {
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
		if sealedNow[id] || p.reason == reasonNew && s.env.Last > 0 && !inCatalog(tx, id) {
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
	m.Position, m.NextFile, m.HeadTemp, m.BootID = v.folded, v.tree.next, s.temp, v.bootID
	m.Excluded = v.exclude.digest()
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
	for i := range s.body.Inodes {
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
	v.packing.committed(s.introduced)
	v.evictor.committed(s.env.Last, s.sealed.Envelope.Introduces)
	v.usage.add(int64(len(s.sealed.File)))
	for _, data := range s.sealed.BodyShards {
		v.usage.add(int64(len(data)))
	}
	v.abandoned, v.fresh, v.namedBy = nil, false, ""
	v.lastSeal, v.dirtySince = v.now(), time.Time{}
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

// publishHead gives the committed batch file its name. Repeating it changes nothing.
func (v *volume) publishHead() error {
	final := v.batchFile(v.meta.Epoch, v.meta.Head)
	err := durable.PublishTemp(v.meta.HeadTemp, final)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish batch %d: neither %s nor its temporary file is there: %w", v.meta.Head, final, err)
	}
	if err != nil {
		return fmt.Errorf("publish batch %d: %w", v.meta.Head, err)
	}
	return nil
}

// nextKeys are the keys that may own the volume after this node: its own and its peers'.
func nextKeys(v *volume) []string {
	keys := []string{ownerKey(v.signer)}
	for _, p := range v.peers {
		if p.Key != "" {
			keys = append(keys, p.Key)
		}
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return slices.Compact(keys)
}

// position returns where the journal stands for `wait`: everything answered before the call lies before it.
func (v *volume) position() (journal.Position, error) { return journal.End(v.journalDir) }
