package spooler

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/capture"
)

// results is what the workers bring back to the loop.
type results struct {
	mu   sync.Mutex
	list []result
}

type result struct {
	file *pendingFile
	got  *capture.Captured // nil: the file is as it was sealed, nothing was read
}

func (r *results) put(x result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, x)
}

func (r *results) take() []result {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// captureLoop is one capture worker: it reads what the loop hands out into its own packer. One without jobs is kept for what fsyncs wait for,
// which must not stand behind a huge file.
func (s *Spooler) captureLoop(ctx context.Context, jobs <-chan *pendingFile) error {
	c, p := s.vol.newCapturer()
	for {
		select {
		case f := <-s.hasty:
			s.captureOne(ctx, c, p, f)
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-s.hasty:
			s.captureOne(ctx, c, p, f)
		case f := <-jobs:
			s.captureOne(ctx, c, p, f)
		}
	}
}

// captureOne reads one file, unless it is as it was sealed.
func (s *Spooler) captureOne(ctx context.Context, c *capture.Capturer, p *capture.Packer, f *pendingFile) {
	r := result{file: f}
	if !unchanged(s.vol, f) {
		got := c.Capture(ctx, f.job, p)
		r.got = &got
	}
	s.results.put(r)
	s.nudge()
}

// known is what was sealed of a file, to see whether it has to be read at all.
type known struct {
	ident  journal.Ident
	ctime  int64 // when it was captured; any later change moved it
	size   int64
	sealed bool
}

// unchanged tells whether a file is as it was sealed and nobody writes to it. It saves reading a database that is held open
// and a file that was opened for writing but not written.
func unchanged(v *volume, f *pendingFile) bool {
	k := f.known
	if !k.sealed {
		return false
	}
	file, err := source.Open(v.source, f.job.Path, unix.O_RDONLY, k.ident)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // only read
	_, attr, err := source.Stat(int(file.Fd()), "")
	if err != nil || attr.Ctime != k.ctime || attr.Size != k.size {
		return false
	}
	quiet, err := source.Quiet(file)
	if err != nil {
		return false
	}
	if quiet {
		return true
	}
	// Somebody has it open or mapped: a store that has not been written back would not show in the times. Push it there and
	// look again.
	if err := unix.SyncFileRange(int(file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER); err != nil {
		return false
	}
	f.stillOpen = true
	_, after, err := source.Stat(int(file.Fd()), "")
	return err == nil && after == attr
}

// ready prepares a due file for a worker; false if there is nothing to read (now).
func (v *volume) ready(p *pendingFile) (bool, error) {
	n, err := v.tree.Get(p.id)
	if err != nil {
		return false, err
	}
	if n == nil {
		v.pending.remove(p.id)
		return false, nil
	}
	path, ok, err := v.tree.Path(p.id)
	if err != nil {
		return false, err
	}
	if !ok {
		v.pending.retry(p, p.reason, nil) // the walk has not come there yet
		return false, nil
	}
	writers := v.pending.writers[p.id]
	p.job = capture.Job{ID: p.id, Path: path, Ident: n.Ident, Force: writers > 0 || p.hasty || p.held(v.timing, v.now())}
	p.known = known{ident: n.Ident, ctime: n.Ctime, size: n.Size, sealed: n.Content != nil && n.Content.Clean && !v.rebooted && p.reason != reasonUnclean}
	p.stillOpen = false
	return true, nil
}

// collect takes what the workers brought.
func (s *Spooler) collect() {
	v := s.vol
	for _, r := range s.results.take() {
		v.busy--
		v.busyBytes -= r.file.load
		p := r.file
		p.running = false
		if v.pending.files[p.id] != p {
			continue // removed while it was read
		}
		switch {
		case r.got == nil:
			v.pending.same(p)
		case r.got.Err == nil:
			p.done = r.got
			v.arrived = append(v.arrived, p)
		default:
			v.failed(p, r.got.Err)
		}
	}
}

// failed puts a file back whose capture brought nothing. One that moved is found by the journal; one that has a hidden writer is
// watched.
func (v *volume) failed(p *pendingFile, err error) {
	switch {
	case errors.Is(err, source.ErrMoved), errors.Is(err, fs.ErrNotExist):
		v.pending.retry(p, p.reason, nil)
	case errors.Is(err, capture.ErrBusy):
		v.pending.retry(p, reasonOpen, nil)
	case errors.Is(err, capture.ErrChanging), errors.Is(err, capture.ErrNoRoom), errors.Is(err, context.Canceled):
		v.pending.retry(p, p.reason, err)
	default:
		v.pending.retry(p, reasonUnread, err)
	}
}

// same settles a file that turned out to be as it was sealed.
func (s *pendingSet) same(p *pendingFile) {
	p.captured, p.covered, p.err = s.now(), p.startAt, nil
	p.covers, p.hasty = p.startGen, false
	if p.gen == p.startGen && s.writers[p.id] == 0 && !p.stillOpen {
		s.remove(p.id)
		return
	}
	p.since, p.pos = p.startAt, p.startPos
	if p.stillOpen && s.writers[p.id] == 0 {
		s.retry(p, reasonOpen, nil) // a mapping or a ghost writer: watched until it ends
		return
	}
	s.reschedule(p)
}
