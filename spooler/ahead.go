package spooler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"slipway/internal/batch"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// troubled is told by a pusher of each failed attempt. Two of them end the epoch: a destination that is ahead of this node, whose
// state was lost or rolled back; and a shard that no store has any more, without which no destination can take what follows.
func (s *Spooler) troubled(name string, err error) {
	var ahead *push.AheadError
	var lost *push.LostShardError
	var e *epochEnd
	switch {
	case errors.As(err, &ahead):
		e = &epochEnd{store: name, ahead: true, err: ahead}
	case errors.As(err, &lost) && lost.Final():
		e = &epochEnd{store: name, err: lost}
	default:
		return
	}
	s.endMu.Lock()
	s.end = e
	s.endMu.Unlock()
	s.nudge()
}

// epochEnd is why the epoch cannot go on.
type epochEnd struct {
	store string
	ahead bool // the store's newest batch is the one to go on from
	err   error
}

// beginAnew begins the next epoch when the present one cannot go on: behind the newest batch of a destination that is ahead,
// which is copied into the own store, or behind this node's own newest. An epoch ahead that another node began, named by this one, is
// not followed: this node does not own the volume any more. The catalog is set aside and the spooler starts anew;
// the mount goes on serving and journaling meanwhile.
//
// Dying before the catalog is set aside repeats everything; dying after it starts the new epoch as a lost catalog does.
func (s *Spooler) beginAnew(ctx context.Context) error {
	s.endMu.Lock()
	e := s.end
	s.end = nil
	s.endMu.Unlock()
	if e == nil {
		return nil
	}
	v := s.vol
	if e.ahead {
		if err := s.yield(ctx, e); err != nil {
			return s.again(e, err)
		}
	}
	v.log.Error("the epoch cannot go on: a new one begins and the whole tree is read again", "store", e.store, "error", e.err)
	if e.ahead {
		name, data, err := newestAt(ctx, s.destination(e.store))
		if err == nil {
			err = v.adoptForeign(ctx, name, data)
		}
		if err != nil {
			return fmt.Errorf("begin an epoch behind %s: %w", e.store, err)
		}
	}
	if err := v.cat.Close(); err != nil {
		return &fatalError{fmt.Errorf("close catalog: %w", err)}
	}
	if err := v.setAside(s.state.Catalog()); err != nil {
		return &fatalError{err}
	}
	return &fatalError{fmt.Errorf("%w: started anew", e.err)}
}

// again keeps what ended the epoch for the next step, unless it is settled: a store may not answer just now.
func (s *Spooler) again(e *epochEnd, err error) error {
	var fatal *fatalError
	if !errors.As(err, &fatal) {
		s.endMu.Lock()
		s.end = e
		s.endMu.Unlock()
	}
	return err
}

func (s *Spooler) destination(name string) store.Store {
	for i, p := range s.pushers {
		if p.Report().Name == name {
			return s.stores[i]
		}
	}
	return nil
}

// newestAt reads the newest batch file of a store.
func newestAt(ctx context.Context, s store.Store) (string, []byte, error) {
	names, err := ownBatches(ctx, s)
	if err != nil {
		return "", nil, err
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("newest batch: %w", store.ErrNotExist)
	}
	name := names[len(names)-1]
	data, err := s.Read(ctx, name, batch.MaxFile)
	return name, data, err
}

// adoptForeign puts another store's newest batch into the own store, after checking that an owner of this volume signed it. What
// this node sealed under its number or behind it is a side branch.
func (v *volume) adoptForeign(ctx context.Context, name string, data []byte) error {
	b, err := batch.Parse(data)
	if err != nil {
		return fmt.Errorf("read batch %s: %w", name, err)
	}
	if b.Envelope.VolumeID != v.id {
		return fmt.Errorf("read batch %s: it is of another volume", name)
	}
	if err := b.Verify(nextKeys(v)); err != nil {
		return fmt.Errorf("read batch %s: %w", name, err)
	}
	names, err := ownBatches(ctx, v.own)
	if err != nil {
		return err
	}
	for _, ours := range names {
		if ours < name { // names sort by epoch and sequence
			continue
		}
		if err := v.branchOff(ctx, ours, data); err != nil {
			return err
		}
	}
	return v.own.Publish(ctx, name, data)
}

// branchOff keeps a batch of ours that is no part of the history any more under refused/; one that equals theirs stays.
func (v *volume) branchOff(ctx context.Context, name string, theirs []byte) error {
	ours, err := v.own.Read(ctx, name, batch.MaxFile)
	if err != nil {
		return err
	}
	if bytes.Equal(ours, theirs) {
		return nil
	}
	if err := v.own.Publish(ctx, "refused/"+path.Base(name)+".side-branch", ours); err != nil {
		return err
	}
	return v.own.Remove(ctx, name)
}
