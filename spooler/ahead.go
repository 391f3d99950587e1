package spooler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/store"
)

// troubled is told by a pusher of each failed attempt. A destination that is ahead of this node means that the node's state was
// lost or rolled back: the loop then begins a new epoch.
func (s *Spooler) troubled(name string, err error) {
	var ahead *aheadError
	if errors.As(err, &ahead) {
		s.aheadMu.Lock()
		s.ahead = &behind{store: name, err: ahead}
		s.aheadMu.Unlock()
		s.nudge()
	}
}

// behind is what a pusher found at a destination that is ahead.
type behind struct {
	store string
	err   *aheadError
}

// catchUp begins the next epoch behind the newest batch of a destination that is ahead: that batch is copied into the own
// store, the catalog is set aside, and the spooler starts anew. The mount goes on serving and journaling meanwhile.
//
// Dying before the catalog is set aside repeats everything; dying after it starts the new epoch as a lost catalog does.
func (s *Spooler) catchUp(ctx context.Context) error {
	s.aheadMu.Lock()
	a := s.ahead
	s.ahead = nil
	s.aheadMu.Unlock()
	if a == nil {
		return nil
	}
	dest := s.destination(a.store)
	if dest == nil {
		return nil
	}
	v := s.vol
	v.log.Error("this node's state is older than what a store holds: a new epoch begins and the whole tree is read again", "store", a.store, "error", a.err)
	name, data, err := newestAt(ctx, dest)
	if err != nil {
		return fmt.Errorf("begin an epoch behind %s: %w", a.store, err)
	}
	if err := v.adoptForeign(ctx, name, data); err != nil {
		return fmt.Errorf("begin an epoch behind %s: %w", a.store, err)
	}
	if err := v.cat.Close(); err != nil {
		return &fatalError{fmt.Errorf("close catalog: %w", err)}
	}
	catalogFile := s.state.Catalog()
	aside := catalogFile + ".behind-" + v.now().UTC().Format("20060102T150405.000000000")
	if err := durable.PublishTemp(catalogFile, aside); err != nil {
		return &fatalError{fmt.Errorf("set catalog aside: %w", err)}
	}
	return &fatalError{fmt.Errorf("%w: started anew", a.err)}
}

func (s *Spooler) destination(name string) store.Store {
	for _, p := range s.pushers {
		if p.t.Name == name {
			return p.t.Dest
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
	data, err := s.Read(ctx, name, maxBatchFile)
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
	ours, err := v.own.Read(ctx, name, maxBatchFile)
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
