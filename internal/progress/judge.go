package progress

import (
	"fmt"
	"time"

	"slipway/internal/batch"
)

// Verdict is what a sender's progress says of it.
type Verdict string

// The verdicts. All but Healthy are a reason to take over.
const (
	Healthy Verdict = "healthy"
	Failed  Verdict = "failed"  // it reports an error
	Silent  Verdict = "silent"  // nothing new for StaleAfter
	Stalled Verdict = "stalled" // new files, but nothing delivered for StallAfter
)

// Judge finds out from what is observed of one sender whether it works, by the observer's own clock; the clocks inside the files count
// for nothing. It starts nothing and is not safe for concurrent use. The zero value with its two times set is ready.
//
// Files are hints that others can write, too: a forged one can make a sender look well or ill until its next honest file is
// accepted, which is after StaleAfter/2 at the latest, and a takeover without need does no harm.
type Judge struct {
	StaleAfter, StallAfter time.Duration

	node  string
	epoch batch.Epoch
	term  batch.Term

	expecting bool
	there     batch.Seq
	last      Progress            // the freshest reading; Number 0: none
	lastAt    time.Time           // when it came
	from      map[string]Progress // the last reading from each store
	most      Progress            // the furthest that any store's copy has shown of this run
	changed   time.Time
	moved     time.Time
	failed    time.Time // zero: no error stands
	fault     string    // what it reported then; later files may not repeat it
}

// Begin starts judging a sender under a term, and forgets what was before. With the same arguments again it does nothing.
func (j *Judge) Begin(node string, e batch.Epoch, t batch.Term, now time.Time) {
	if j.node == node && j.epoch == e && j.term == t {
		return
	}
	*j = Judge{StaleAfter: j.StaleAfter, StallAfter: j.StallAfter, node: node, epoch: e, term: t, changed: now, moved: now}
}

// Expect says how far the observer's copy goes, and the cache's. While there is nothing to deliver no time runs; a cache that gets
// on is a sender that works, whatever its files say.
func (j *Judge) Expect(now time.Time, held, there batch.Seq) {
	expecting := held > there
	if expecting && !j.expecting || there > j.there {
		j.changed, j.moved = now, now
	}
	if !expecting || there > j.there && j.last.State != Failing {
		j.failed = time.Time{}
	}
	j.expecting, j.there = expecting, max(there, j.there)
}

// Observe takes a reading from one of the stores that the sender writes to. What is not of this sender and term is ignored. A store's
// copy that has changed is news, though another store may have had it before: when the sender is silent, all copies stop changing.
func (j *Judge) Observe(source string, p Progress, now time.Time) {
	was := j.from[source]
	if p.Node != j.node || p.Epoch != j.epoch || p.Term != j.term || p.Run == was.Run && p.Number == was.Number {
		return
	}
	if j.from == nil {
		j.from = map[string]Progress{}
	}
	j.from[source], j.changed = p, now
	moved, old := j.further(&p), !p.Fresher(j.last)
	if old && now.Sub(j.lastAt) >= j.StaleAfter/2 {
		// Numbers beyond all honest ones must not make them old for ever.
		moved, old, j.most = was.Run == p.Run && ahead(&p, &was), false, p
	}
	if moved {
		j.moved = now
	}
	if old {
		return
	}
	j.last, j.lastAt = p, now
	switch {
	case p.State == Failing && j.failed.IsZero():
		j.failed, j.fault = now, p.Error
	case p.State == Failing:
		j.fault = p.Error
	case p.State != Failing && moved:
		j.failed = time.Time{}
	}
}

// further tells whether a reading shows more delivered than any before it in this run: a copy that lags behind another, and catches
// up, is news but no delivery.
func (j *Judge) further(p *Progress) bool {
	if j.most.Run != p.Run {
		j.most = *p
		return false
	}
	if !ahead(p, &j.most) {
		return false
	}
	was := j.most
	j.most = *p
	j.most.Bytes, j.most.Delivered = max(p.Bytes, was.Bytes), max(p.Delivered, was.Delivered)
	return true
}

// ahead tells whether something was delivered between two readings of one run.
func ahead(p, was *Progress) bool {
	return p.Bytes > was.Bytes || p.Delivered > was.Delivered || p.Batch == was.Batch && p.Shards > was.Shards
}

// Verdict says whether the sender works, since when that is so, and why, in words.
func (j *Judge) Verdict(now time.Time) (v Verdict, since time.Time, why string) {
	if !j.expecting {
		return Healthy, j.changed, ""
	}
	stale, stall := j.changed.Add(j.StaleAfter), j.moved.Add(j.StallAfter)
	switch {
	case !j.failed.IsZero():
		return Failed, j.failed, "it reports: " + j.fault
	case !now.Before(stale):
		return Silent, stale, fmt.Sprintf("no news of it for %v", j.StaleAfter)
	case !now.Before(stall):
		return Stalled, stall, fmt.Sprintf("it has delivered nothing for %v", j.StallAfter)
	}
	return Healthy, j.changed, ""
}

// Next returns when the verdict may change by itself; zero: only by an observation.
func (j *Judge) Next(now time.Time) time.Time {
	if !j.expecting || !j.failed.IsZero() {
		return time.Time{}
	}
	next := j.changed.Add(j.StaleAfter)
	if stall := j.moved.Add(j.StallAfter); stall.Before(next) {
		next = stall
	}
	if !next.After(now) {
		return time.Time{}
	}
	return next
}
