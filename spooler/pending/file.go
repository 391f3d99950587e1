package pending

import (
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/spooler/capture"
)

// File is a file whose latest content is not sealed.
type File struct {
	id     batch.FileID
	since  time.Time        // of the first unsealed change
	pos    journal.Position // of the first unsealed change
	last   time.Time        // of the latest event: quiet since then
	reason string
	bytes  int64 // size when last seen

	gen   uint64 // counts marks: a capture that began at an older one leaves the file pending
	sync  bool   // fsync was asked for since the last capture
	asked bool   // somebody waits for it: look soon whether it changed
	hasty bool   // an fsync waits for it: read at once
	gone  bool   // not in the set any more
	tries int    // captures that failed in a row
	err   error  // why the last one failed

	wait     time.Time     // not before: set when a capture found a writer or failed
	captured time.Time     // when it was last captured
	covered  time.Time     // every change before this moment is sealed: when the capture that was sealed last began
	took     time.Duration // how long that took
	covers   uint64        // every change up to this mark is in a batch, clean
	moved    bool          // the capture that was sealed last was not clean

	running  bool   // a worker has it
	startGen uint64 // gen and position when the worker took it
	startPos journal.Position
	startAt  time.Time
	done     *capture.Captured // what the worker brought, until it is sealed

	below   uint64 // what SetBelow noted,
	belowAt uint64 // as of so many renames and one; 0: not looked at

	due   time.Time
	index int // place in the heap; -1: not in it (running, done or parked)
}

// ID is the file's own.
func (p *File) ID() batch.FileID { return p.id }

// Since is when its first unsealed change was seen.
func (p *File) Since() time.Time { return p.since }

// Bytes is its size when last seen.
func (p *File) Bytes() int64 { return p.bytes }

// Gone tells that it left the set: sealed, or removed.
func (p *File) Gone() bool { return p.gone }

// Hasty tells that an fsync waits for it.
func (p *File) Hasty() bool { return p.hasty }

// Began is when the worker took it.
func (p *File) Began() time.Time { return p.startAt }

// Captured is what the worker brought; nil when that is sealed, and before.
func (p *File) Captured() *capture.Captured { return p.done }

// MovedWhenSealed tells that its sealed content is not of one moment, so that it has to be read whatever its times say.
func (p *File) MovedWhenSealed() bool { return p.reason == Unclean }

// ChangedBefore tells whether an unsealed change lies before a position.
func (p *File) ChangedBefore(pos journal.Position) bool { return !pos.Before(p.pos) }

// CoveredSince tells whether every change before a moment is sealed.
func (p *File) CoveredSince(at time.Time) bool { return !p.covered.Before(at) }

// Below returns what was noted of the paths that the file lies below, if that was so many renames ago.
func (p *File) Below(renames uint64) (paths uint64, known bool) {
	return p.below, p.belowAt == renames+1
}

// SetBelow notes the paths that the file lies below, a bit each, as of so many renames.
func (p *File) SetBelow(paths, renames uint64) { p.below, p.belowAt = paths, renames+1 }

// dueAt says when a file should be captured.
func (p *File) dueAt(t *Timing, writers int) time.Time {
	if p.hasty {
		return p.wait
	}
	if writers == 0 {
		due := p.last.Add(t.Settle)
		if bound := p.since.Add(t.MaxAge); due.After(bound) {
			due = bound
		}
		return later(due, p.wait)
	}
	interval := t.OpenInterval
	switch {
	case p.asked:
		interval = t.Settle
	case p.sync:
		interval = t.MaxAge
	}
	// A file that takes long to read must not be read all the time.
	return p.from().Add(max(interval, 10*p.took))
}

// from is when the interval of a file that is held open began.
func (p *File) from() time.Time { return later(p.captured, p.since) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// held tells whether a file with a hidden writer has waited so long that it is read while it moves.
func (p *File) held(t *Timing, now time.Time) bool {
	return p.tries > 0 && now.Sub(p.from()) >= max(t.OpenInterval, 10*p.took)
}

// Awaited is content that somebody waits for: a file, and the least generation that a capture has to have. One that began earlier may
// lack what was written before the question. Generations are no times, so a clock that is set matters to nobody.
type Awaited struct {
	file *File
	gen  uint64
}

// Await waits for a capture that begins from now on.
func (p *File) Await() Awaited { return Awaited{p, p.gen} }

// AwaitAny waits for the next capture, also for one that is on its way: any content will do.
func (p *File) AwaitAny() Awaited {
	if p.running || p.done != nil {
		return Awaited{p, p.startGen}
	}
	return p.Await()
}

// Sealed tells whether a capture that is new enough is in a batch, or found that the batches have it.
func (a Awaited) Sealed() bool { return a.file.covers >= a.gen }

// Read tells whether only the seal is missing.
func (a Awaited) Read() bool {
	return a.Sealed() || a.file.done != nil && a.file.done.Clean && a.file.startGen >= a.gen
}

// Lost tells that the file was removed, or dropped and found again by the walk, before it was sealed.
func (a Awaited) Lost() bool { return a.file.gone && !a.Sealed() }
