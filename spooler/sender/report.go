package sender

import (
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/progress"
)

// transitions are the legal ones; the table in docs/sending.md is compared with them.
var transitions = map[State][]State{
	Standby:   {Waiting, Returning, Claiming, Sending},
	Waiting:   {Standby, Returning, Claiming, Sending},
	Returning: {Standby, Waiting, Claiming, Sending},
	Claiming:  {Standby, Waiting, Returning, Sending},
	Sending:   {Standby, Waiting, Returning},
}

// Legal tells whether a state may follow another.
func Legal(from, to State) bool { return slices.Contains(transitions[from], to) }

// Report is a copy of how sending stands.
type Report struct {
	State    State
	Since    time.Time // of the state
	Term     batch.Term
	Node     string // who sends
	Reason   string // why that one, in words
	Prefer   string // pinned by the operator
	Avoid    []string
	There    batch.Seq // newest batch on the cache
	Trouble  string    // what keeps the sender from working, in words; this node's own or another's
	Progress progress.Progress
}

// Report returns how sending stands.
func (s *Sender) Report() Report {
	present, now := s.opt.Present(), s.opt.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{Claim: s.claim, Owner: present.Owner}
	r := Report{
		State: s.state, Since: s.since, Term: s.claim.Term, Node: v.sender(), Reason: s.claim.Reason, Prefer: s.claim.Prefer,
		Avoid: slices.Clone(s.claim.Avoid), There: s.thereLocked(), Progress: s.heard, Trouble: s.clash,
	}
	if r.Reason == "" {
		r.Reason = "the owner sends"
	}
	if s.state == Waiting || s.state == Returning {
		r.Reason = s.reason
	}
	verdict, _, why := s.judge.Verdict(now)
	switch {
	case r.Trouble != "":
	case s.cache != nil:
		r.Trouble = s.cache.Error()
	case s.state != Sending && verdict != progress.Healthy:
		r.Trouble = why
	}
	return r
}
