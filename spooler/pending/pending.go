// Package pending holds the files whose latest content is not sealed yet, ordered by when each is to be read.
//
// After a crash the catalog has those of the last commit (Load, Save); what was marked since is marked again when the journal is folded.
package pending

import (
	"container/heap"
	"iter"
	"maps"
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/spooler/capture"
)

// Timing are the intervals by which files settle.
type Timing struct {
	Settle       time.Duration // quiet for so long
	MaxAge       time.Duration // bound of Settle, from the first unsealed change of a file without writers
	OpenInterval time.Duration // a file held open is captured so long after its last capture
	Batch        time.Duration // at most one batch in this time
}

// Set is all pending files of a volume. It takes no lock: whoever owns it guards it.
type Set struct {
	files   map[batch.FileID]*File
	writers map[batch.FileID]int              // opens for write seen in this instance of the journal; a hint, the lease probe decides
	saved   map[batch.FileID]journal.Position // as the catalog has them
	heap    dueHeap
	active  time.Time // of the latest mark or release
	timing  *Timing
	now     func() time.Time
}

// NewSet returns an empty set. The intervals are read anew each time.
func NewSet(t *Timing, now func() time.Time) *Set {
	return &Set{
		files: map[batch.FileID]*File{}, writers: map[batch.FileID]int{}, saved: map[batch.FileID]journal.Position{}, timing: t, now: now,
	}
}

// Len counts the files.
func (s *Set) Len() int { return len(s.files) }

// All are the files, in no order.
func (s *Set) All() iter.Seq[*File] { return maps.Values(s.files) }

// Get returns a file; nil if it is not pending.
func (s *Set) Get(id batch.FileID) *File { return s.files[id] }

// Mark makes a file pending, or notes another change of one that is.
func (s *Set) Mark(id batch.FileID, reason string, size int64, pos journal.Position) *File {
	now := s.now()
	p := s.files[id]
	if p == nil {
		p = &File{id: id, since: now, pos: pos, reason: reason, index: -1}
		s.files[id] = p
	}
	if p.reason != New {
		p.reason = reason
	}
	p.last, p.bytes = now, size
	s.active = now
	p.gen++
	s.reschedule(p)
	return p
}

// reschedule puts a file at its place among the due ones, unless a worker has it or its capture waits for the seal.
func (s *Set) reschedule(p *File) {
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

// Hurry has the file read at once that somebody waits for.
func (s *Set) Hurry(a Awaited) {
	p := a.file
	if !p.gone && !p.hasty {
		p.hasty = true
		s.reschedule(p)
	}
}

// NextHasty tells whether the next file to be handed out is one that an fsync waits for.
func (s *Set) NextHasty() bool { return len(s.heap) > 0 && s.heap[0].hasty }

// Opened and Released count writers.
func (s *Set) Opened(id batch.FileID) { s.writers[id]++ }

// Released is the end of what Opened counted.
func (s *Set) Released(id batch.FileID) {
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

// NoWriters forgets who writes: a new instance of the journal knows nothing of those before it.
func (s *Set) NoWriters() { clear(s.writers) }

// Synced notes that fsync was asked for.
func (s *Set) Synced(id batch.FileID) {
	if p := s.files[id]; p != nil {
		p.sync = true
		s.reschedule(p)
	}
}

// Ask has a file looked at soon: somebody waits for it.
func (s *Set) Ask(p *File) {
	if !p.asked {
		p.asked = true
		s.reschedule(p)
	}
}

// Remove forgets a file.
func (s *Set) Remove(id batch.FileID) {
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

// TakeDue hands out the next file that is due and marks it as running; nil if none is.
func (s *Set) TakeDue(pos journal.Position) *File {
	now := s.now()
	if len(s.heap) == 0 || s.heap[0].due.After(now) {
		return nil
	}
	p := heap.Pop(&s.heap).(*File)
	p.running = true
	p.startGen, p.startPos, p.startAt = p.gen, pos, now
	p.sync, p.asked = false, false
	return p
}

// Waiting counts the files that nobody has begun to read.
func (s *Set) Waiting() int { return len(s.heap) }

// Next returns when the next file is due; zero if none waits.
func (s *Set) Next() time.Time {
	if len(s.heap) == 0 {
		return time.Time{}
	}
	return s.heap[0].due
}

// MustRead tells whether a file is to be captured although somebody may have it open for writing.
func (s *Set) MustRead(p *File) bool {
	return s.writers[p.id] > 0 || p.hasty || p.held(s.timing, s.now())
}

// Retry puts a file back whose capture brought nothing. reason is why it is pending now; "": as before.
func (s *Set) Retry(p *File, reason string, err error) {
	p.running, p.done = false, nil
	p.tries++
	p.err = err
	if p.reason != New && reason != "" {
		p.reason = reason
	}
	pause := s.timing.Settle << min(p.tries, 5)
	p.wait = s.now().Add(min(pause, s.timing.MaxAge))
	s.reschedule(p)
}

// Brought notes what a worker brought. The file waits for the seal then.
func (s *Set) Brought(p *File, got *capture.Captured) { p.running, p.done = false, got }

// Same settles a file that turned out to be as it was sealed. stillOpen: somebody has it open or mapped.
func (s *Set) Same(p *File, stillOpen bool) {
	p.running = false
	p.captured, p.covered, p.err = s.now(), p.startAt, nil
	p.covers, p.hasty = p.startGen, false
	if p.gen == p.startGen && s.writers[p.id] == 0 && !stillOpen {
		s.Remove(p.id)
		return
	}
	p.since, p.pos = p.startAt, p.startPos
	if stillOpen && s.writers[p.id] == 0 {
		s.Retry(p, Open, nil) // a mapping or a ghost writer: watched until it ends
		return
	}
	s.reschedule(p)
}

// Sealed notes that the capture of a file is in a committed batch: the file is settled unless it changed after the capture began.
func (s *Set) Sealed(p *File) {
	clean, settled := p.done.Clean, s.settles(p)
	p.covered, p.hasty, p.moved = p.startAt, false, !clean
	if clean {
		p.covers = p.startGen
	}
	p.captured, p.took = s.now(), p.done.Took
	p.done, p.tries, p.err = nil, 0, nil
	if settled {
		s.Remove(p.id)
		return
	}
	p.since, p.pos, p.reason = p.startAt, p.startPos, Unclean
	if s.writers[p.id] > 0 {
		p.reason = Open
	}
	s.reschedule(p)
}

// settles tells whether what was captured of a file is all that there is of it.
func (s *Set) settles(p *File) bool {
	return p.done.Clean && p.gen == p.startGen && s.writers[p.id] == 0
}

// Imminent tells until when a file is likely to be captured, so that a batch which waits so long carries it; zero if none is: a
// worker has one, one is about to settle, or one was opened or written just now and will be closed in a moment.
func (s *Set) Imminent(busy int) time.Time {
	now := s.now()
	soon := s.active.Add(s.timing.Settle)
	if len(s.heap) > 0 && s.heap[0].tries == 0 && s.heap[0].due.Sub(now) <= s.timing.Settle {
		soon = later(soon, s.heap[0].due)
	}
	if busy > 0 {
		soon = later(soon, now.Add(s.timing.Batch))
	}
	if soon.After(now) {
		return soon
	}
	return time.Time{}
}

// dueHeap is container/heap's view of the waiting files.
type dueHeap []*File

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	p := x.(*File)
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
