package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// appendWait is how long an operation waits for its record: a hung disk costs an application a second, once.
	appendWait = time.Second
	// appendSoon is how long a record waits that no operation waits for.
	appendSoon = 10 * time.Millisecond
	// maxQueued bounds what waits for a hung disk.
	maxQueued = 4 << 20
	// spareSize is the largest buffer that is kept for the next write.
	spareSize = 256 << 10
	// gapRetry is how often a gap that nobody was told of is tried again while nothing else is appended.
	gapRetry = time.Second
)

var (
	errLate   = errors.New("not written within a second")
	errQueue  = errors.New("too much is waiting to be written")
	errClosed = errors.New("the journal has ended")
)

// Writer appends records to one new instance of the journal. Append and Gaps may be called from any goroutine.
type Writer struct {
	instance instance
	dir      string // of the instance
	seed     uint32
	lock     *os.File
	wake     chan struct{} // capacity one: there is something to write

	mu    sync.Mutex
	queue *group // what the next write carries
	lost  bool   // records were lost behind what queue holds: an OpGap comes before the next one
	late  bool   // operations were answered before their records were written: an OpGap comes behind them
	stuck bool   // an append waited in vain and no write has ended since
	ended bool   // nothing is written any more
	soon  bool   // a moment's wait of AppendSoon is running
	gaps  int
	why   error  // the last gap's reason
	spare []byte // the buffer of the write before

	// Owned by the goroutine that calls Run.
	file  *os.File
	start int64 // record bytes before file
	size  int64 // record bytes in file
	torn  bool  // file ends inside a record: go on in a new one
}

// group is what one write(2) carries.
type group struct {
	buf     []byte
	records int           // without those of gaps
	done    chan struct{} // closed when it has been written or given up
}

// Run owns the appending; it returns when ctx ends and everything handed in has been written or given up. A write that hangs
// in the kernel is waited for: there is no other way to be rid of it.
func (w *Writer) Run(ctx context.Context) error {
	retry := time.NewTimer(gapRetry)
	defer retry.Stop()
	for {
		if retry.Stop(); w.hasUntold() {
			retry.Reset(gapRetry)
		}
		select {
		case <-ctx.Done():
			w.end()
			return nil
		case <-w.wake:
		case <-retry.C:
		}
		w.flush()
	}
}

func (w *Writer) hasUntold() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost || w.late
}

// end writes what is queued and lets nobody queue more.
func (w *Writer) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.flush()
}

// Append returns when the records are in the file, together and in order (one write(2) may carry several records) or after one second, whichever is
// first. It never fails an operation: a record that could not be written is a gap, told by the next append that succeeds. A
// record without a time gets the present one.
func (w *Writer) Append(rs ...*Record) {
	if len(rs) == 0 {
		return
	}
	g := w.enqueue(rs)
	w.nudge()
	if g == nil {
		return
	}
	t := time.NewTimer(appendWait)
	defer t.Stop()
	select {
	case <-g.done:
	case <-t.C:
		w.giveUp(g)
	}
}

// enqueue queues rs and returns what to wait for: nil where waiting has no point.
func (w *Writer) enqueue(rs []*Record) *group {
	now := time.Now().UnixNano()
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.queue
	before := len(g.buf)
	switch {
	case w.ended:
		w.loseLocked(errClosed)
		return nil
	case before > maxQueued:
		w.loseLocked(errQueue)
		return nil
	}
	buf := g.buf
	if w.lost {
		buf = appendGap(buf, w.seed, w.why, now)
	}
	for _, r := range rs {
		var err error
		if buf, err = appendFrame(buf, w.seed, r, now); err != nil {
			g.buf = buf[:before]
			w.loseLocked(err)
			return nil
		}
	}
	g.buf, w.lost = buf, false
	g.records += len(rs)
	if w.stuck {
		w.lateLocked()
		return nil
	}
	return g
}

// AppendSoon is Append for a record that no operation waits for: it is written with the next one, after appendSoon at the latest.
func (w *Writer) AppendSoon(r *Record) {
	w.enqueue([]*Record{r})
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.soon {
		w.soon = true
		time.AfterFunc(appendSoon, func() {
			w.mu.Lock()
			w.soon = false
			w.mu.Unlock()
			w.nudge()
		})
	}
}

// nudge wakes Run.
func (w *Writer) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// giveUp notes that an operation is answered although g is not in the file. g stays queued: it may still get there. Until a
// write ends, nobody else waits.
func (w *Writer) giveUp(g *group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-g.done:
	default:
		w.stuck = true
		w.lateLocked()
	}
}

// loseLocked notes a gap behind what is queued.
func (w *Writer) loseLocked(why error) {
	if !w.lost && !w.late {
		w.gaps++
	}
	w.lost, w.why = true, why
}

// lateLocked notes a gap behind all that will be queued when the next write begins.
func (w *Writer) lateLocked() {
	if !w.lost && !w.late {
		w.gaps++
	}
	w.late, w.why = true, errLate
}

// appendGap appends the record of a gap. The reason is a short text of ours or the kernel's, so it always fits.
func appendGap(b []byte, seed uint32, why error, now int64) []byte {
	b, _ = appendFrame(b, seed, &Record{Op: OpGap, Name: why.Error()}, now)
	return b
}

// flush writes what is queued, in one write(2), and tells those who wait. It is Run's step.
func (w *Writer) flush() {
	g := w.take()
	if g == nil {
		return
	}
	err := w.write(g.buf)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = false
	if err != nil {
		w.failLocked(g, err)
	}
	if cap(g.buf) <= spareSize {
		w.spare = g.buf[:0]
	}
	close(g.done)
}

// take returns what is queued, with the record of a gap behind it if one is to be told; nil if nothing is to be written.
func (w *Writer) take() *group {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.queue
	if w.lost || w.late {
		g.buf = appendGap(g.buf, w.seed, w.why, time.Now().UnixNano())
		w.lost, w.late = false, false
	}
	if len(g.buf) == 0 {
		return nil
	}
	w.queue, w.spare = &group{buf: w.spare, done: make(chan struct{})}, nil
	return g
}

// failLocked notes that g is lost: a gap before what has been queued meanwhile.
func (w *Writer) failLocked(g *group, why error) {
	if g.records > 0 {
		w.gaps++
	}
	w.why = why
	if len(w.queue.buf) == 0 {
		w.lost = true
		return
	}
	w.queue.buf = append(appendGap(nil, w.seed, why, time.Now().UnixNano()), w.queue.buf...)
}

// write appends b to the file. After an error the file may end inside a record, which stays as it is: bytes a reader may have
// seen are never taken back. The next write begins a new file.
func (w *Writer) write(b []byte) error {
	if w.torn || w.size >= rotateSize {
		if err := w.rotate(); err != nil && w.torn {
			return err
		}
	}
	n, err := w.file.Write(b)
	w.size += int64(n)
	if err != nil {
		w.torn = w.torn || n > 0
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// rotate goes on in a new file. It gets its name when its header is whole: dying before leaves the old file the last one.
func (w *Writer) rotate() error {
	start := w.start + w.size
	next := filepath.Join(w.dir, nextName)
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("begin journal file: %w", err)
	}
	if _, err = f.Write(encodeHeader(w.instance, start)); err == nil {
		err = publish(next, filepath.Join(w.dir, fileName(start)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("begin journal file: %w", err), f.Close())
	}
	if w.file != nil {
		_ = w.file.Close() // nothing is buffered, and what is on disk is never relied on
	}
	w.file, w.start, w.size, w.torn = f, start, 0, false
	return nil
}

// publish gives what is at from the name to, which must be free. Without the fsyncs of package durable, on purpose: the journal need not
// outlive the machine, and an operation must not wait for a disk.
func publish(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// Gaps returns how many times appends were lost since Create, and why the last time.
func (w *Writer) Gaps() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gaps, w.why
}

// Position returns where the instance begins.
func (w *Writer) Position() Position {
	return Position{Serial: w.instance.serial, Instance: w.instance.id}
}

// Close ends the instance, after Run has returned: its lock is free, and readers take what is there for all there will be.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	return errors.Join(w.file.Close(), w.lock.Close())
}
