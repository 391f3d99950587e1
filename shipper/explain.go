package shipper

import (
	"context"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
)

// Explanation says, for one batch and one backup host, what it waits for and when it would go.
type Explanation struct {
	Volume     string      `json:"volume"`
	Epoch      batch.Epoch `json:"epoch"`
	Seq        batch.Seq   `json:"seq"` // 0: of the volume as a whole
	Host       string      `json:"host,omitempty"`
	State      string      `json:"state"`
	WaitsFor   string      `json:"waits_for"`
	When       *time.Time  `json:"when"` // nil: nobody knows
	ETASeconds *float64    `json:"eta_seconds"`
	Bytes      int64       `json:"bytes"`
}

// explainAtMost batches are explained for each host; those behind them go no sooner.
const explainAtMost = 1000

// Explanations says of every batch that a backup host lacks what it waits for. It also works in a process in which nothing
// runs: then from what was noted last.
func (s *Shipper) Explanations(ctx context.Context) ([]Explanation, error) {
	if err := s.remember(ctx); err != nil {
		return nil, err
	}
	now, runs := s.now(), s.hasBegun()
	var list []Explanation
	for _, v := range s.all() {
		v.mu.Lock()
		if why := v.whyLocked(); why != "" {
			list = append(list, Explanation{Volume: v.name, Epoch: v.chain.Present().Epoch, State: "arriving", WaitsFor: why})
		}
		for _, c := range v.cursors {
			list = append(list, c.explainLocked(now, runs)...)
		}
		v.mu.Unlock()
	}
	return list, nil
}

// whyLocked says why nothing more is taken from the volume's senders.
func (v *volume) whyLocked() string {
	if v.fault != "" {
		return v.fault
	}
	return v.note
}

func (c *cursor) explainLocked(now time.Time, runs bool) []Explanation {
	queue := c.queueLocked()
	if len(queue) == 0 {
		return nil
	}
	d := c.decideLocked(now)
	facts, trouble := c.factsLocked(queue), c.reportLocked().Err
	var list []Explanation
	for _, h := range queue[:min(len(queue), explainAtMost)] {
		e := Explanation{Volume: c.v.name, Epoch: h.epoch, Seq: h.seq, Host: c.h.name, State: c.stateLocked(h.seq, d, runs).String(), Bytes: h.bytes}
		var at time.Time
		switch held := c.v.stopLocked(now); {
		case held.from > 0 && h.seq >= held.from:
			e.WaitsFor, at = held.reason, held.until
		case trouble != nil:
			e.WaitsFor, at = fmt.Sprintf("%s to answer, which is tried again: %v", c.h.name, trouble), c.until
		case h.seq == queue[0].seq && c.state == Sending:
			e.WaitsFor, at = fmt.Sprintf("nothing: %d of %d bytes are sent", c.sent.Load(), h.bytes), now
		case h.seq <= d.upTo:
			e.WaitsFor, at = "its turn: "+d.reason, now
		default:
			e.WaitsFor, at = c.waitsForLocked(facts, h, now)
		}
		if !at.IsZero() {
			seconds := max(0, at.Sub(now).Seconds())
			e.When, e.ETASeconds = &at, &seconds
		}
		list = append(list, e)
	}
	return list
}

// stateLocked is where the cursor stands; where nothing runs, where it would stand for this batch by what was noted last.
func (c *cursor) stateLocked(seq batch.Seq, d decision, runs bool) State {
	switch {
	case runs:
		return c.state
	case c.acks.State == ack.Refused:
		return Refused
	case c.acks.Error != "":
		return Waiting
	case seq > d.upTo:
		return Holding
	}
	return Sending
}

func (s *Shipper) hasBegun() bool {
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	return s.begun
}

// remember reads what is noted of the volumes, for a process in which nothing has run.
func (s *Shipper) remember(ctx context.Context) error {
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	if s.begun {
		return nil
	}
	s.mu.Lock()
	s.volumes = map[string]*volume{}
	s.mu.Unlock()
	s.discover(ctx)
	for _, v := range s.all() {
		p, err := s.readCheckpoint(v.name)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		v.mu.Lock()
		v.in.ID = p.VolumeID
		v.restoreLocked(p)
		v.known = true
		v.mu.Unlock()
		if err := s.rehold(ctx, v, v.needed()+1, func() {}); err != nil {
			v.setNote(err.Error())
		}
		if _, _, err := s.compare(ctx, v); err != nil {
			v.setNote(err.Error())
		}
	}
	s.count(ctx)
	return nil
}
