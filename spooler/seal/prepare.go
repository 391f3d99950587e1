package seal

import (
	"context"
	"errors"

	"slipway/internal/batch"
	"slipway/spooler/pending"
)

// resolveCaptures closes the open shards, so that every captured file's pieces have their place.
func (s *Sealer) resolveCaptures(ctx context.Context, b *Batch) error {
	s.problem = s.opt.Packing.FlushAll(ctx)
	lists := false
	for _, p := range s.arrived {
		if !p.Captured().NeedsLists() {
			continue
		}
		lists = true
		if err := p.Captured().PackLists(ctx, s.opt.Packing.Packer(0)); err != nil {
			s.opt.Log.Warn("list of pieces could not be packed, the file is read again", "error", err)
		}
	}
	if lists {
		s.problem = errors.Join(s.problem, s.opt.Packing.FlushAll(ctx))
	}
	if s.problem != nil {
		s.opt.Log.Warn("shards could not be published, their files are read again", "error", s.problem)
	}
	b.introduced = s.opt.Packing.TakePublished(MaxShards, s.opt.MaxBytes)
	for _, p := range b.introduced {
		s.taken = p.Serial
	}
	var later []*pending.File
	for _, p := range s.arrived {
		if p.Captured().Through() > s.taken {
			later = append(later, p)
		} else {
			b.captures = append(b.captures, p)
		}
	}
	s.arrived = later
	return ctx.Err()
}

// prepare builds the body: captured content, changed inodes, changed entries whose file has content.
func (s *Sealer) prepare(b *Batch) error {
	if err := s.takeCaptures(b); err != nil {
		return err
	}
	if err := s.opt.Mirror.ReadInherited(); err != nil {
		return err
	}
	c, err := s.opt.Tree.Prepare()
	if err != nil {
		return err
	}
	b.change = c
	if b.touched, err = s.opt.Deadlines.Touches(s.opt.Tree, c); err != nil {
		return err
	}
	if s.opt.History.First().Continued {
		if err := s.opt.Tree.AddRest(c); err != nil {
			return err
		}
	}
	b.body.Inodes, b.body.Entries = c.Inodes, c.Entries
	b.env.Counts.Removals = c.Removals
	return nil
}

// takeCaptures moves what the workers read into the tree.
func (s *Sealer) takeCaptures(b *Batch) error {
	kept := b.captures[:0]
	for _, p := range b.captures {
		if p.Gone() {
			continue // removed meanwhile
		}
		got := p.Captured()
		content, err := got.Content()
		if err != nil {
			s.opt.Pending.Retry(p, pending.Unread, err)
			continue
		}
		n, err := s.opt.Tree.Edit(p.ID())
		if err != nil {
			return err
		}
		if n == nil {
			s.opt.Pending.Remove(p.ID())
			continue
		}
		n.Take(content, got.Attr, got.Xattrs)
		b.env.Counts.Files++
		b.env.Counts.Bytes += content.Size
		kept = append(kept, p)
	}
	b.captures = kept
	return nil
}

// worthSealing tells whether the batch would say anything.
func (s *Sealer) worthSealing(b *Batch) bool {
	return len(b.body.Inodes) > 0 || len(b.change.ChangedEntries()) > 0 || len(b.introduced) > 0 || s.opt.History.First().Fresh || s.renamed ||
		(!s.opt.History.Meta().Complete && !s.opt.Mirror.Walking())
}

func (s *Sealer) fillEnvelope(b *Batch) {
	e, m := &b.env, s.opt.History.Meta()
	e.VolumeID, e.Volume, e.Node = s.opt.VolumeID, s.opt.Volume, s.opt.Node
	e.Epoch = m.Epoch
	e.First, e.Last = m.Head+1, m.Head+1
	if m.Head > 0 {
		e.Prev = &m.HeadDigest
	}
	e.Base = m.Base
	e.SealedAt = s.opt.Now().UTC().Round(0)
	if earliest := m.SealedAt.Add(1); e.SealedAt.Before(earliest) {
		e.SealedAt = earliest // order must not depend on the clock
	}
	e.Peers = s.peers
	e.NextKeys = s.NextKeys()
	s.renamed = false
	for _, p := range b.introduced {
		e.Introduces = append(e.Introduces, batch.Object{Digest: p.Digest, Size: p.Size})
	}
	e.Abandons = s.abandoned[:min(len(s.abandoned), batch.MaxAbandoned)]
	e.Complete = !s.opt.Mirror.Walking()
	if !e.Complete {
		e.Why, e.LastWhole = s.opt.Mirror.Report().Why, m.LastWhole
	}
	if first := s.opt.History.First(); first.Fresh {
		e.Full, e.NamedBy = true, first.NamedBy
		b.body.Secret = &s.opt.Secret
		if !first.Continued {
			e.Base = e.First
		}
	}
}
