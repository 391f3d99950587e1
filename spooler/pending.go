package spooler

import (
	"container/heap"
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/spooler/capture"
)

// Reasons why a file is pending, as `spool pending` shows them.
const (
	reasonNew     = "new"     // never sealed
	reasonWritten = "written" // changed since it was sealed
	reasonOpen    = "open"    // open for writing, or mapped
	reasonUnclean = "unclean" // sealed while it moved
	reasonUnread  = "unread"  // could not be read; the last error says why
)

// pendingFile is a file whose latest content is not sealed.
type pendingFile struct {
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

	job       capture.Job // for the worker
	known     known
	stillOpen bool // the worker found it unchanged, but open or mapped

	load     int64  // bytes, as counted when the worker took it
	running  bool   // a worker has it
	startGen uint64 // gen and position when the worker took it
	startPos journal.Position
	startAt  time.Time
	done     *capture.Captured // what the worker brought, until it is sealed

	below   uint64 // the paths of `rpo:` that it lies below, a bit each,
	belowAt uint64 // as of so many renames and one; 0: not looked at

	due   time.Time
	index int // place in the heap; -1: not in it (running, done or parked)
}

// timing are the intervals of design "Settling".
type timing struct {
	settle       time.Duration // quiet for so long
	maxAge       time.Duration // bound of settle, from the first unsealed change of a file without writers
	openInterval time.Duration // a file held open is captured so long after its last capture
	batch        time.Duration // at most one batch in this time
}

// dueAt says when a file should be captured.
func (p *pendingFile) dueAt(t timing, writers int) time.Time {
	if p.hasty {
		return p.wait
	}
	if writers == 0 {
		due := p.last.Add(t.settle)
		if bound := p.since.Add(t.maxAge); due.After(bound) {
			due = bound
		}
		return later(due, p.wait)
	}
	from := p.since
	if p.captured.After(from) {
		from = p.captured
	}
	interval := t.openInterval
	switch {
	case p.asked:
		interval = t.settle
	case p.sync:
		interval = t.maxAge
	}
	// A file that takes long to read must not be read all the time.
	return from.Add(max(interval, 10*p.took))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pendingSet holds the pending files, ordered by when they are due.
type pendingSet struct {
	files   map[batch.FileID]*pendingFile
	writers map[batch.FileID]int // opens for write seen in this instance of the journal; a hint, the lease probe decides
	heap    dueHeap
	active  time.Time // of the latest mark or release
	timing  timing
	now     func() time.Time
}

func newPendingSet(t timing, now func() time.Time) *pendingSet {
	return &pendingSet{files: map[batch.FileID]*pendingFile{}, writers: map[batch.FileID]int{}, timing: t, now: now}
}

// mark makes a file pending, or notes another change of one that is.
func (s *pendingSet) mark(id batch.FileID, reason string, size int64, pos journal.Position) *pendingFile {
	now := s.now()
	p := s.files[id]
	if p == nil {
		p = &pendingFile{id: id, since: now, pos: pos, reason: reason, index: -1}
		s.files[id] = p
	}
	if p.reason != reasonNew {
		p.reason = reason
	}
	p.last, p.bytes = now, size
	s.active = now
	p.gen++
	s.reschedule(p)
	return p
}

// reschedule puts a file at its place among the due ones, unless a worker has it or its capture waits for the seal.
func (s *pendingSet) reschedule(p *pendingFile) {
	if p.running || p.done != nil {
		return
	}
	p.due = p.dueAt(s.timing, s.writers[p.id])
	if p.index < 0 {
		heap.Push(&s.heap, p)
	} else {
		heap.Fix(&s.heap, p.index)
	}
}

// hurry has a file read at once.
func (s *pendingSet) hurry(p *pendingFile) {
	if !p.gone && !p.hasty {
		p.hasty = true
		s.reschedule(p)
	}
}

// hasty tells whether the next file to be handed out is one that an fsync waits for.
func (s *pendingSet) hasty() bool { return len(s.heap) > 0 && s.heap[0].hasty }

// opened and released count writers.
func (s *pendingSet) opened(id batch.FileID) { s.writers[id]++ }

func (s *pendingSet) released(id batch.FileID) {
	if s.writers[id]--; s.writers[id] <= 0 {
		delete(s.writers, id)
	}
	if p := s.files[id]; p != nil {
		p.last = s.now()
		s.active = p.last
		p.gen++
		s.reschedule(p)
	}
}

// remove forgets a file.
func (s *pendingSet) remove(id batch.FileID) {
	delete(s.writers, id)
	p := s.files[id]
	if p == nil {
		return
	}
	p.gone = true
	if p.index >= 0 {
		heap.Remove(&s.heap, p.index)
	}
	delete(s.files, id)
}

// takeDue hands out the next file that is due and marks it as running; nil if none is.
func (s *pendingSet) takeDue(pos journal.Position) *pendingFile {
	now := s.now()
	if len(s.heap) == 0 || s.heap[0].due.After(now) {
		return nil
	}
	p := heap.Pop(&s.heap).(*pendingFile)
	p.running = true
	p.startGen, p.startPos, p.startAt = p.gen, pos, now
	p.sync, p.asked = false, false
	return p
}

// held tells whether a file with a hidden writer has waited so long that it is read while it moves.
func (p *pendingFile) held(t timing, now time.Time) bool {
	from := p.since
	if p.captured.After(from) {
		from = p.captured
	}
	return p.tries > 0 && now.Sub(from) >= max(t.openInterval, 10*p.took)
}

// waiting counts the files that nobody has begun to read.
func (s *pendingSet) waiting() int { return len(s.heap) }

// next returns when the next file is due; zero if none waits.
func (s *pendingSet) next() time.Time {
	if len(s.heap) == 0 {
		return time.Time{}
	}
	return s.heap[0].due
}

// retry puts a file back whose capture brought nothing.
func (s *pendingSet) retry(p *pendingFile, reason string, err error) {
	p.running = false
	p.tries++
	p.err = err
	if p.reason != reasonNew {
		p.reason = reason
	}
	pause := s.timing.settle << min(p.tries, 5)
	p.wait = s.now().Add(min(pause, s.timing.maxAge))
	s.reschedule(p)
}

// sealed notes that the capture in p.done is in a committed batch: the file is settled unless it changed after the capture began.
func (s *pendingSet) sealed(p *pendingFile) {
	clean := p.done.Clean
	p.covered, p.hasty, p.moved = p.startAt, false, !clean
	if clean {
		p.covers = p.startGen
	}
	p.captured, p.took = s.now(), p.done.Took
	p.done, p.tries, p.err = nil, 0, nil
	if clean && p.gen == p.startGen && s.writers[p.id] == 0 {
		s.remove(p.id)
		return
	}
	p.since, p.pos, p.reason = p.startAt, p.startPos, reasonUnclean
	if s.writers[p.id] > 0 {
		p.reason = reasonOpen
	}
	s.reschedule(p)
}

// imminent tells until when a file is likely to be captured, so that a batch which waits so long carries it; zero if none is: a
// worker has one, one is about to settle, or one was opened or written just now and will be closed in a moment.
func (s *pendingSet) imminent(busy int) time.Time {
	now := s.now()
	soon := s.active.Add(s.timing.settle)
	if len(s.heap) > 0 && s.heap[0].tries == 0 && s.heap[0].due.Sub(now) <= s.timing.settle {
		soon = later(soon, s.heap[0].due)
	}
	if busy > 0 {
		soon = later(soon, now.Add(s.timing.batch))
	}
	if soon.After(now) {
		return soon
	}
	return time.Time{}
}

// dueHeap is container/heap's view of the waiting files.
type dueHeap []*pendingFile

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	p := x.(*pendingFile)
	p.index = len(*h)
	*h = append(*h, p)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.index = -1
	return p
}
