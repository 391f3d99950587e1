package sender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/loop"
	"slipway/internal/progress"
	"slipway/internal/store"
)

// lookLoop looks at the cache: often while something may have to be done, seldom otherwise. It is a loop of its own, so that a
// cache that does not answer delays no judgement.
func (s *Sender) lookLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.look:
		case <-timer.C:
		}
		s.LookOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		loop.Nudge(s.wake)
		timer.Reset(s.lookPause())
	}
}

func (s *Sender) lookPause() time.Duration {
	held := s.opt.Present().Held
	s.mu.Lock()
	defer s.mu.Unlock()
	if held > s.thereLocked() || s.state != Standby && s.state != Sending || s.cache != nil {
		return lookBusy
	}
	return lookIdle
}

// LookOnce asks the cache for the newest claim, how far it is, and what its copy of the sender's progress says.
func (s *Sender) LookOnce(ctx context.Context) {
	present := s.opt.Present()
	ctx, done := context.WithTimeout(ctx, s.opt.StaleAfter)
	defer done()
	newest, found, err := claim.Newest(ctx, s.opt.Cache.Store, s.opt.VolumeID, present.Epoch)
	if err != nil && !found && isUnreachable(err) {
		s.noteLook(present.Epoch, nil, 0, err)
		return
	}
	there, err := s.findThere(ctx, &present)
	if err != nil {
		s.noteLook(present.Epoch, nil, 0, err)
		return
	}
	if found {
		s.noteLook(present.Epoch, &newest, there, nil)
	} else {
		s.noteLook(present.Epoch, nil, there, nil)
	}
	if p, err := progress.Read(ctx, s.opt.Cache.Store, s.senderNode()); err == nil {
		s.observe("cache", p)
	}
}

// isUnreachable tells a cache that cannot be asked from single files there that are no claims.
func isUnreachable(err error) bool {
	return errors.Is(err, store.ErrTemporary) || errors.Is(err, store.ErrHostKey) || errors.Is(err, store.ErrAuth) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// findThere returns the newest of this node's batches that the cache has: by its acks, or, where no daemon says more, by the
// batch file, which comes last of all that belongs to it.
func (s *Sender) findThere(ctx context.Context, present *Present) (batch.Seq, error) {
	a, err := ack.Read(ctx, s.opt.Cache.Store, s.opt.Cache.Name)
	if err != nil && isUnreachable(err) {
		return 0, fmt.Errorf("look at %s: %w", s.opt.Cache.Name, err)
	}
	there := batch.Seq(0)
	if err == nil && a.VolumeID == s.opt.VolumeID && a.Epoch == present.Epoch {
		there = a.Head
	}
	if there >= present.Held || present.Held == 0 {
		return there, nil
	}
	_, err = s.opt.Cache.Store.Stat(ctx, batch.Path(present.Epoch, present.Held, present.Held))
	switch {
	case err == nil:
		return present.Held, nil
	case errors.Is(err, store.ErrNotExist):
		return there, nil
	}
	return 0, fmt.Errorf("look for batch %d at %s: %w", present.Held, s.opt.Cache.Name, err)
}

// noteLook takes over what a look has found. found is nil where no claim was; err: the cache cannot be asked.
func (s *Sender) noteLook(e batch.Epoch, found *claim.Claim, there batch.Seq, err error) {
	now := s.opt.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e != s.epoch && s.epoch != 0 {
		return // the epoch has changed meanwhile
	}
	s.cache = err
	if err != nil {
		s.cacheAt = time.Time{}
		return
	}
	if s.cacheAt.IsZero() {
		s.cacheAt = now
	}
	s.looked, s.there = true, there
	if found != nil {
		s.takeClaimLocked(found, now)
	}
	if s.opt.OnThere != nil {
		s.opt.OnThere(there)
	}
}

// takeClaimLocked makes a claim the present one. A term never goes back.
func (s *Sender) takeClaimLocked(c *claim.Claim, now time.Time) {
	if c.Epoch == s.epoch && c.Term > s.claim.Term || s.epoch == 0 {
		s.claim, s.claimAt = *c, now
	}
}

func (s *Sender) senderNode() string {
	present := s.opt.Present()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{Claim: s.claim, Owner: present.Owner}
	return v.sender()
}

// readOwn reads what the sender wrote into this node's own store.
func (s *Sender) readOwn(ctx context.Context) {
	node := s.senderNode()
	if node == s.opt.Node {
		return
	}
	if p, err := progress.Read(ctx, s.opt.Own, node); err == nil {
		s.observe("own", p)
	}
}

// observe takes a reading of the sender's progress, from wherever it comes.
func (s *Sender) observe(source string, p progress.Progress) {
	if p.VolumeID != s.opt.VolumeID {
		return
	}
	now := s.opt.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge.Observe(source, p, now)
	if p.Epoch == s.epoch && p.Term == s.claim.Term && (s.heard.Node != p.Node || p.Fresher(s.heard)) {
		s.heard = p
	}
}
