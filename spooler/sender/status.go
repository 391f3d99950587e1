package sender

import (
	"slipway/internal/control"
	"slipway/internal/progress"
	"slipway/spooler/push"
)

// Status puts a report into the row that `slipway status` shows.
func (s *Sender) Status() control.SenderStatus {
	r := s.Report()
	st := control.SenderStatus{
		Node: r.Node, Term: uint32(r.Term), State: string(progress.Idle), Here: string(r.State), Reason: r.Reason, Prefer: r.Prefer,
		Avoid: r.Avoid, Trouble: r.Trouble,
	}
	if r.State == Sending {
		p := s.opt.Pusher.Report()
		st.Batch, st.Shards, st.Of, st.Rate = uint64(p.Batch), p.Shards, p.Of, s.ownRate()
		if p.State == push.Sending {
			st.State = string(progress.Sending)
		} else if p.Error != "" && p.State != push.Idle { // what is there and not acknowledged is the store's matter
			st.State, st.Trouble = string(progress.Failing), p.Error
		}
		return st
	}
	if h := r.Progress; h.Node == r.Node {
		st.State = string(h.State)
		st.Batch, st.Shards, st.Of, st.Rate = uint64(h.Batch), h.Shards, h.Of, h.Rate
	}
	return st
}

func (s *Sender) ownRate() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told.State != progress.Sending {
		return 0
	}
	return s.told.Rate
}
