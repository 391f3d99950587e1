package spooler

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"slipway/internal/batch"
	"slipway/spooler/pending"
)

// resolveCaptures closes the open shards, so that every captured file's pieces have their place.
func (v *volume) resolveCaptures(ctx context.Context, s *sealing) error {
	v.problem = v.packing.FlushAll(ctx)
	lists := false
	for _, p := range v.arrived {
		if !p.Captured().NeedsLists() {
			continue
		}
		lists = true
		if err := p.Captured().PackLists(ctx, v.packing.Packer(0)); err != nil {
			v.log.Warn("list of pieces could not be packed, the file is read again", "error", err)
		}
	}
	if lists {
		v.problem = errors.Join(v.problem, v.packing.FlushAll(ctx))
	}
	if v.problem != nil {
		v.log.Warn("shards could not be published, their files are read again", "error", v.problem)
	}
	s.introduced = v.packing.TakePublished(maxShards, v.capBytes/4)
	for _, p := range s.introduced {
		v.taken = p.Serial
	}
	var later []*pending.File
	for _, p := range v.arrived {
		if p.Captured().Through() > v.taken {
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
	if err := v.mirror.ReadInherited(); err != nil {
		return err
	}
	c, err := v.tree.Prepare()
	if err != nil {
		return err
	}
	s.change = c
	if s.touched, err = v.rpo.Touches(v.tree, c); err != nil {
		return err
	}
	if v.continued {
		if err := v.tree.AddRest(c); err != nil {
			return err
		}
	}
	s.body.Inodes, s.body.Entries = c.Inodes, c.Entries
	s.env.Counts.Removals = c.Removals
	return nil
}

// takeCaptures moves what the workers read into the tree.
func (v *volume) takeCaptures(s *sealing) error {
	kept := s.captures[:0]
	for _, p := range s.captures {
		if p.Gone() {
			continue // removed meanwhile
		}
		got := p.Captured()
		content, err := got.Content()
		if err != nil {
			v.pending.Retry(p, pending.Unread, err)
			continue
		}
		n, err := v.tree.Edit(p.ID())
		if err != nil {
			return err
		}
		if n == nil {
			v.pending.Remove(p.ID())
			continue
		}
		n.Take(content, got.Attr, got.Xattrs)
		s.env.Counts.Files++
		s.env.Counts.Bytes += content.Size
		kept = append(kept, p)
	}
	s.captures = kept
	return nil
}

// worthSealing tells whether the batch would say anything.
func (v *volume) worthSealing(s *sealing) bool {
	return len(s.body.Inodes) > 0 || len(s.change.ChangedEntries()) > 0 || len(s.introduced) > 0 || v.fresh || v.renamed ||
		(!v.meta.Complete && !v.mirror.Walking())
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
	v.renamed = false
	for _, p := range s.introduced {
		e.Introduces = append(e.Introduces, batch.Object{Digest: p.Digest, Size: p.Size})
	}
	e.Abandons = v.abandoned[:min(len(v.abandoned), batch.MaxAbandoned)]
	e.Complete = !v.mirror.Walking()
	if !e.Complete {
		e.Why, e.LastWhole = v.mirror.Report().Why, v.meta.LastWhole
	}
	if v.fresh {
		e.Full, e.NamedBy = true, v.namedBy
		s.body.Secret = &v.secret
		if !v.continued {
			e.Base = e.First
		}
	}
}

// nextKeys are the keys that may own the volume after this node: its own and its peers'.
func nextKeys(v *volume) []string {
	keys := []string{v.ownKey}
	for _, p := range v.peers {
		if p.Key != "" {
			keys = append(keys, p.Key)
		}
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return slices.Compact(keys)
}
