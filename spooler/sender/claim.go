package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"slipway/internal/claim"
)

// claimNext makes this node the sender of the next term. Who fails to create the claim stands down: another has it.
func (s *Sender) claimNext(ctx context.Context, reason string) {
	s.mu.Lock()
	was, epoch := s.claim, s.epoch
	s.mu.Unlock()
	c := claim.New(s.opt.VolumeID, epoch, was.Term+1, s.opt.Node, s.opt.Node, reason, s.opt.Now())
	c.Prefer, c.Avoid = was.Prefer, was.Avoid
	if err := s.create(ctx, c); err != nil {
		s.opt.Log.Warn("claim the next term", "volume", s.opt.Volume, "term", c.Term, "error", err)
	}
}

// create creates a claim on the cache. Taken by another: the cache is looked at before anything else is decided.
func (s *Sender) create(ctx context.Context, c claim.Claim) error {
	ctx, done := context.WithTimeout(ctx, s.opt.StaleAfter)
	defer done()
	err := claim.Create(ctx, s.opt.Cache.Store, c)
	if errors.Is(err, claim.ErrTaken) {
		s.LookOnce(ctx)
		err = s.createAbove(ctx, c, err)
	}
	if err != nil {
		return fmt.Errorf("claim term %d for %s: %w", c.Term, c.Node, err)
	}
	s.LookOnce(ctx) // it is the newest, unless somebody was faster still
	return nil
}

// createAbove makes a claim whose number is taken by a file that is no claim, damaged or forged, under the next free number. Where a
// true claim has it, another node is the sender now, and err stands.
func (s *Sender) createAbove(ctx context.Context, c claim.Claim, err error) error {
	s.mu.Lock()
	present := s.claim.Term
	s.mu.Unlock()
	if present >= c.Term {
		return err
	}
	free, afterErr := claim.After(ctx, s.opt.Cache.Store, c.Epoch, c.Term)
	if afterErr != nil {
		return afterErr
	}
	c.Term = free
	return claim.Create(ctx, s.opt.Cache.Store, c)
}

// ErrNoNode means: the volume has no node of that name.
var ErrNoNode = errors.New("not a node of the volume")

// Pin makes a node the sender, and prefers it from now on, until Release. The operator's word; it is written on the cache.
func (s *Sender) Pin(ctx context.Context, node string) error {
	present := s.opt.Present()
	if nodes := append([]string{present.Owner}, present.Peers...); !slices.Contains(nodes, node) {
		return fmt.Errorf("pin %s: %w, which are %v", node, ErrNoNode, nodes)
	}
	return s.order(ctx, "pinned by the operator", func(c *claim.Claim) {
		c.Node, c.Prefer = node, node
		c.Avoid = slices.DeleteFunc(slices.Clone(c.Avoid), func(n string) bool { return n == node })
	})
}

// Drain hands sending over to the next node, and keeps this one from sending until Release or Pin.
func (s *Sender) Drain(ctx context.Context) error {
	present := s.opt.Present()
	if len(present.Peers) == 0 {
		return errors.New("drain: this volume has no replica peer that could send instead")
	}
	return s.order(ctx, s.opt.Node+" is drained by the operator", func(c *claim.Claim) {
		if !slices.Contains(c.Avoid, s.opt.Node) {
			c.Avoid = append(slices.Clone(c.Avoid), s.opt.Node)
		}
		if c.Prefer == s.opt.Node {
			c.Prefer = ""
		}
		if c.Node == s.opt.Node {
			c.Node = Ranking(c, present.Owner, present.Peers)[0]
		}
	})
}

// Release ends pins and drains: the owner sends again.
func (s *Sender) Release(ctx context.Context) error {
	present := s.opt.Present()
	return s.order(ctx, "released by the operator", func(c *claim.Claim) {
		c.Node, c.Prefer, c.Avoid = present.Owner, "", nil
	})
}

// order makes the next claim as the operator wants it.
func (s *Sender) order(ctx context.Context, reason string, edit func(*claim.Claim)) error {
	present := s.opt.Present()
	s.mu.Lock()
	s.enterEpochLocked(present.Epoch, s.opt.Now()) // the loop may not have come to it yet
	s.mu.Unlock()
	s.LookOnce(ctx)
	s.mu.Lock()
	was, epoch, fault := s.claim, s.epoch, s.cache
	s.mu.Unlock()
	if fault != nil {
		return fmt.Errorf("the cache has to be asked first: %w", fault)
	}
	c := claim.New(s.opt.VolumeID, epoch, was.Term+1, was.Node, s.opt.Node, reason, s.opt.Now())
	c.Prefer, c.Avoid = was.Prefer, was.Avoid
	if was.Term == 0 {
		c.Node = present.Owner
	}
	edit(&c)
	if err := s.create(ctx, c); err != nil {
		return err
	}
	s.Wake()
	return nil
}

// Do carries out an operator's word: "pin" a node, "drain" this one, "release".
func (s *Sender) Do(ctx context.Context, verb, node string) error {
	switch verb {
	case "pin":
		return s.Pin(ctx, node)
	case "drain":
		return s.Drain(ctx)
	case "release":
		return s.Release(ctx)
	}
	return fmt.Errorf("sender %s: pin NODE, drain or release", verb)
}
