package spooler

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/store"
	"slipway/spooler/history"
	"slipway/spooler/push"
	"slipway/spooler/seal"
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
		name, data, err := history.Newest(ctx, s.destination(e.store))
		if err == nil {
			err = v.history.AdoptForeign(ctx, name, data, v.sealer.NextKeys())
		}
		if err != nil {
			return fmt.Errorf("begin an epoch behind %s: %w", e.store, err)
		}
	}
	if err := v.history.Close(); err != nil {
		return &seal.Fatal{Err: fmt.Errorf("close catalog: %w", err)}
	}
	if err := v.history.SetAside(s.state.Catalog()); err != nil {
		return &seal.Fatal{Err: err}
	}
	return &seal.Fatal{Err: fmt.Errorf("%w: started anew", e.err)}
}

// again keeps what ended the epoch for the next step, unless it is settled: a store may not answer just now.
func (s *Spooler) again(e *epochEnd, err error) error {
	var fatal *seal.Fatal
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
