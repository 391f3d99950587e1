// Package workers reads pending files: the loop hands out those that are due, workers capture them beside it, and the loop collects what
// they bring.
//
// Nothing here survives a crash or has to: a file that was being read is pending still.
package workers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"slipway/internal/chunk"
	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/capture"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// Count is how many workers read; where fsyncs are waited for there is one more, which reads nothing else.
const Count = 2

const (
	jobsMax   = 2048     // files handed to the workers at once
	jobsBytes = 32 << 20 // and their bytes
)

// Options of a pool.
type Options struct {
	Source    *os.File
	Keys      chunk.Keys
	Packing   *capture.Packing
	MaxShards int    // while more than so many wait for a batch, nothing is read
	Distrust  bool   // what was sealed may not have reached the disk: every file is read
	Wake      func() // called when something was brought
}

// Pool is what the loop and the workers share.
type Pool struct {
	opt    Options
	jobs   chan *job
	hasty  chan *job // files that fsyncs wait for
	reader *capture.Capturer

	// the loop's
	busy      int   // captures that workers have
	busyBytes int64 // of their files

	mu      sync.Mutex // guards what follows
	packers int        // given out
	brought []result
}

// job is one file on its way to a worker.
type job struct {
	capture.Job
	file   *pending.File
	bytes  int64
	sealed known
}

type result struct {
	*job
	got       *capture.Captured // nil: the file is as it was sealed, nothing was read
	stillOpen bool              // then: but it is open or mapped
}

// New makes a pool. Nothing is started.
func New(opt Options) *Pool {
	return &Pool{
		opt: opt, jobs: make(chan *job, jobsMax), hasty: make(chan *job, jobsMax), reader: capture.New(opt.Source, opt.Keys),
	}
}

// Busy counts the files that workers have, from Dispatch to Collect.
func (p *Pool) Busy() int { return p.busy }

// HasRoom tells whether the workers can be given another file: many small ones, so that they have work while a batch is being
// committed, but not so many bytes that a small file would wait long behind them.
func (p *Pool) HasRoom() bool {
	return p.busy < jobsMax && (p.busy < 2*Count || p.busyBytes < jobsBytes) && !p.congested()
}

// congested tells that so many shards wait for a batch that no more files should be read.
func (p *Pool) congested() bool { return p.opt.Packing.Waiting() > p.opt.MaxShards }

// Dispatch hands due files to the workers, as many as they can take. The tree is open, and folded up to at.
func (p *Pool) Dispatch(t *tree.Tree, set *pending.Set, at journal.Position) error {
	for p.HasRoom() || set.NextHasty() && p.busy < jobsMax && !p.congested() {
		f := set.TakeDue(at)
		if f == nil {
			return nil
		}
		j, err := p.prepare(t, set, f)
		if err != nil {
			return err
		}
		if j == nil {
			continue
		}
		p.busy++
		p.busyBytes += j.bytes
		to := p.jobs
		if f.Hasty() {
			to = p.hasty
		}
		to <- j // has room: busy counts what is in it
	}
	return nil
}

// prepare makes a due file's job; nil if there is nothing to read (now).
func (p *Pool) prepare(t *tree.Tree, set *pending.Set, f *pending.File) (*job, error) {
	n, err := t.Get(f.ID())
	if err != nil {
		return nil, err
	}
	if n == nil {
		set.Remove(f.ID())
		return nil, nil
	}
	path, ok, err := t.Path(f.ID())
	if err != nil {
		return nil, err
	}
	if !ok {
		set.Retry(f, "", nil) // the walk has not come there yet
		return nil, nil
	}
	return &job{
		Job:  capture.Job{ID: f.ID(), Path: path, Ident: n.Ident, Force: set.MustRead(f)},
		file: f, bytes: f.Bytes(),
		sealed: known{ctime: n.Ctime, size: n.Size, trusted: n.Content != nil && n.Content.Clean && !p.opt.Distrust && !f.MovedWhenSealed()},
	}, nil
}

// Collect takes what the workers brought, and returns the files whose capture waits for a batch now.
func (p *Pool) Collect(set *pending.Set) (captured []*pending.File) {
	for _, r := range p.take() {
		p.busy--
		p.busyBytes -= r.bytes
		if r.file.Gone() {
			continue // removed while it was read
		}
		switch {
		case r.got == nil:
			set.Same(r.file, r.stillOpen)
		case r.got.Err == nil:
			set.Brought(r.file, r.got)
			captured = append(captured, r.file)
		default:
			failed(set, r.file, r.got.Err)
		}
	}
	return captured
}

func (p *Pool) take() []result {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.brought
	p.brought = nil
	return list
}

// failed puts a file back whose capture brought nothing. One that moved is found by the journal; one that has a hidden writer is
// watched.
func failed(set *pending.Set, f *pending.File, err error) {
	switch {
	case errors.Is(err, source.ErrMoved), errors.Is(err, fs.ErrNotExist):
		set.Retry(f, "", nil)
	case errors.Is(err, capture.ErrBusy):
		set.Retry(f, pending.Open, nil)
	case errors.Is(err, capture.ErrChanging), errors.Is(err, capture.ErrNoRoom), errors.Is(err, context.Canceled):
		set.Retry(f, "", err)
	default:
		set.Retry(f, pending.Unread, err)
	}
}
