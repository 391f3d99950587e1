package sender

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"slipway/internal/loop"
	"slipway/internal/progress"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// tellFast is how soon a change of state is told; a step of it bounds how often files are written.
const tellFast = 100 * time.Millisecond

func newRun() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// teller brings this node's progress to one store. A store that does not answer delays no other.
type teller struct {
	place Place
	wake  chan struct{}
}

// composeLoop composes this node's progress every second while it sends something, at once when its state changes, and an idle owner's
// now and then.
func (s *Sender) composeLoop(ctx context.Context) error {
	timer := time.NewTimer(tellEach)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.compose:
		case <-timer.C:
		}
		if s.ComposeOnce() {
			s.tellNow()
		}
		if s.delivering() {
			timer.Reset(tellFast)
		} else {
			timer.Reset(tellEach)
		}
	}
}

// delivering tells whether this node has something on its way, so that its progress may change at any time.
func (s *Sender) delivering() bool {
	held := s.opt.Present().Held
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == Sending && held > s.thereLocked()
}

func (s *Sender) tellNow() {
	for _, t := range s.tellers {
		loop.Nudge(t.wake)
	}
}

// ComposeOnce composes the next progress file if one is due, and tells whether it did.
func (s *Sender) ComposeOnce() bool {
	present, report, now := s.opt.Present(), s.opt.Pusher.Report(), s.opt.Now()
	bytes := store.Confirmed(s.opt.Cache.Store)
	s.mu.Lock()
	defer s.mu.Unlock()
	was := &s.told
	next := progress.Progress{
		VolumeID: s.opt.VolumeID, Volume: s.opt.Volume, Node: s.opt.Node, Run: s.run, Number: was.Number + 1, Epoch: s.epoch, Term: s.claim.Term,
		Head: present.Held, Delivered: s.thereLocked(), Batch: report.Batch, Shards: report.Shards, Of: report.Of,
		Bytes: max(bytes, was.Bytes), State: stateOf(&report), Error: report.Error, Reason: s.claim.Reason, At: now.UTC().Round(0),
	}
	open := s.state == Sending && next.Head > next.Delivered
	if !open {
		next.State, next.Error = progress.Idle, ""
	}
	since := now.Sub(was.At)
	beat := !open && present.Owner == s.opt.Node && len(s.opt.Others) > 0 && since >= progress.IdleEvery
	switch {
	case beat:
	case s.state != Sending && was.State != progress.Sending && was.State != progress.Failing:
		return false
	case next.State == was.State && next.Term == was.Term && (!open || since < pace(&next, was)):
		return false
	case was.Number == 0 && next.State == progress.Idle:
		return false
	}
	if since > 0 && was.Number > 0 {
		next.Rate = float64(next.Bytes-was.Bytes) / since.Seconds()
	}
	s.told = next
	return true
}

// pace returns how long after the last file the next one is due: sooner when it has something to tell.
func pace(next, was *progress.Progress) time.Duration {
	if next.Bytes > was.Bytes || next.Delivered > was.Delivered || next.Shards != was.Shards {
		return tellMoved
	}
	return tellEach
}

// stateOf puts a pusher's state into a progress file's word.
func stateOf(r *push.Report) progress.State {
	if r.Error != "" && r.State != push.Sending && r.State != push.Idle {
		return progress.Failing
	}
	return progress.Sending
}

// tellLoop writes what was composed last.
func (s *Sender) tellLoop(ctx context.Context, t *teller) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
		}
		s.mu.Lock()
		p := s.told
		s.mu.Unlock()
		if p.Number == 0 {
			continue
		}
		// What could not be written is overtaken by the next; nobody relies on it.
		writing, done := context.WithTimeout(ctx, s.opt.StaleAfter)
		if err := progress.Write(writing, t.place.Store, p); err != nil && ctx.Err() == nil {
			s.opt.Log.Debug("tell progress", "store", t.place.Name, "error", err)
		}
		done()
	}
}
