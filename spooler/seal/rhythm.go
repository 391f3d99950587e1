package seal

import (
	"time"

	"slipway/spooler/pending"
)

// rhythm says when a batch is due.
type rhythm struct {
	timing   *pending.Timing
	lastSeal time.Time
	lastRest time.Time // of the last batch that left nothing behind

	urgent      time.Time // since then something is ready to be sealed that an fsync waits for; zero: nothing
	urgentReads bool      // and more is being read
}

// due tells whether a batch should be sealed now; otherwise when to look again. since is when the oldest was read or changed that it could
// carry, soon until when a file is likely to be captured (zero: none is), rest whether nothing is about to be read.
func (r *rhythm) due(now, since, soon time.Time, rest bool) (bool, time.Time) {
	if !r.urgent.IsZero() {
		return r.dueUrgent(now)
	}
	next := r.lastSeal.Add(r.timing.Batch)
	if rest {
		next = r.lastRest.Add(r.timing.Batch) // the last files of many do not wait behind the batch of the others
	}
	if next.After(now) {
		return false, next
	}
	// A change of a directory usually comes with a file that is about to settle: one batch for both.
	if hold := since.Add(r.timing.Batch); !soon.IsZero() && hold.After(now) {
		return false, earliest(soon, hold)
	}
	return true, time.Time{}
}

// urgentShare is the part of the interval between batches that is kept when an fsync waits for the next one, and that it waits for others
// which are being read: many fsyncs share a batch.
const urgentShare = 10

// dueUrgent is due while something is ready that an fsync waits for.
func (r *rhythm) dueUrgent(now time.Time) (bool, time.Time) {
	pause := r.timing.Batch / urgentShare
	next := r.lastSeal.Add(pause)
	if r.urgentReads {
		if read := r.urgent.Add(pause); read.After(next) {
			next = read
		}
	}
	if next.After(now) {
		return false, next
	}
	return true, time.Time{}
}

// sealed notes a batch; rest as in due.
func (r *rhythm) sealed(now time.Time, rest bool) {
	r.lastSeal = now
	if rest {
		r.lastRest = now
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
