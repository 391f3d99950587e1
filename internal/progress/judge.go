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
	last      Progress // the newest reading accepted; Number 0: none
	runs      []string // seen before the one of last, the oldest first
	changed   time.Time
	moved     time.Time
	failed    time.Time // zero: no error stands
}

// maxRuns is how many runs of a sender are remembered, so that a file of theirs that is replayed is known for what it is.
const maxRuns = 32

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
		j.changed, j.moved, j.failed = now, now, time.Time{}
	}
	if !expecting {
		j.failed = time.Time{}
	}
	j.expecting, j.there = expecting, max(there, j.there)
}

// Observe takes a reading, from any store and in any order. What is not of this sender and term, or older than what is known, is
// ignored.
func (j *Judge) Observe(p Progress, now time.Time) {
	if p.Node != j.node || p.Epoch != j.epoch || p.Term != j.term || !j.accepts(&p, now) {
		return
	}
	was := j.last
	j.last, j.changed = p, now
	if was.Number > 0 && was.Run == p.Run && ahead(&p, &was) {
		j.moved = now
		if p.State != Failing {
			j.failed = time.Time{}
		}
	}
	if p.State == Failing && j.failed.IsZero() {
		j.failed = now
	}
}

// accepts tells whether a reading is news.
func (j *Judge) accepts(p *Progress, now time.Time) bool {
	was := &j.last
	switch {
	case was.Number == 0:
		return true
	case p.Run == was.Run:
		// A number beyond all honest ones must not make them old for ever.
		return p.Number > was.Number || p.Number < was.Number && now.Sub(j.changed) >= j.StaleAfter/2
	}
	for _, r := range j.runs {
		if r == p.Run {
			return false
		}
	}
	j.runs = append(j.runs, was.Run)
	if len(j.runs) > maxRuns {
		j.runs = j.runs[1:]
	}
	return true
}

// ahead tells whether something was delivered between two readings of one run.
func ahead(p, was *Progress) bool {
	return p.Bytes > was.Bytes || p.Delivered > was.Delivered || p.Batch > was.Batch || p.Batch == was.Batch && p.Shards > was.Shards
}

// Verdict says whether the sender works, since when that is so, and why, in words.
func (j *Judge) Verdict(now time.Time) (v Verdict, since time.Time, why string) {
	if !j.expecting {
		return Healthy, j.changed, ""
	}
	stale, stall := j.changed.Add(j.StaleAfter), j.moved.Add(j.StallAfter)
	switch {
	case !j.failed.IsZero():
		return Failed, j.failed, "it reports: " + j.last.Error
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
