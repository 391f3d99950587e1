package workers

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/journal"
	"slipway/internal/source"
	"slipway/spooler/capture"
)

// Reader is what one worker reads with.
type Reader interface {
	Read(ctx context.Context, j capture.Job) capture.Captured
}

// packed reads a file into a worker's own packer.
type packed struct {
	from *capture.Capturer
	into *capture.Packer
}

func (r packed) Read(ctx context.Context, j capture.Job) capture.Captured {
	return r.from.Capture(ctx, j, r.into)
}

// Reader returns one for another worker.
func (p *Pool) Reader() Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packers++
	return packed{p.reader, p.opt.Packing.Packer(p.packers - 1)}
}

// Loop is one worker. One that is only for what fsyncs wait for does not stand behind a huge file.
func (p *Pool) Loop(ctx context.Context, onlyHasty bool) error {
	r, jobs := p.Reader(), p.jobs
	if onlyHasty {
		jobs = nil
	}
	for {
		if p.Once(ctx, r, true) {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case j := <-p.hasty:
			p.read(ctx, r, j)
		case j := <-jobs:
			p.read(ctx, r, j)
		}
	}
}

// Once reads a file that was handed out, first one that fsyncs wait for; false if there is none.
func (p *Pool) Once(ctx context.Context, r Reader, onlyHasty bool) bool {
	select {
	case j := <-p.hasty:
		p.read(ctx, r, j)
		return true
	default:
	}
	if onlyHasty {
		return false
	}
	select {
	case j := <-p.jobs:
		p.read(ctx, r, j)
		return true
	default:
		return false
	}
}

// read reads one file, unless it is as it was sealed.
func (p *Pool) read(ctx context.Context, r Reader, j *job) {
	x := result{job: j}
	same := false
	if same, x.stillOpen = unchanged(p.opt.Source, j); !same {
		got := r.Read(ctx, j.Job)
		x.got = &got
	}
	p.mu.Lock()
	p.brought = append(p.brought, x)
	p.mu.Unlock()
	p.opt.Wake()
}

// known is what was sealed of a file, to see whether it has to be read at all.
type known struct {
	ctime   int64 // when it was captured; any later change moved it
	size    int64
	trusted bool // there is something, and it is of one moment
}

// unchanged tells whether a file is as it was sealed and nobody writes to it. It saves reading a database that is held open
// and a file that was opened for writing but not written.
func unchanged(root *os.File, j *job) (same, stillOpen bool) {
	if !j.sealed.trusted {
		return false, false
	}
	file, err := source.Open(root, j.Path, unix.O_RDONLY, j.Ident)
	if err != nil {
		return false, false
	}
	defer func() { _ = file.Close() }() // only read
	attr, err := stat(file)
	if err != nil || attr.Ctime != j.sealed.ctime || attr.Size != j.sealed.size {
		return false, false
	}
	quiet, err := source.Quiet(file)
	if err != nil {
		return false, false
	}
	if quiet {
		return true, false
	}
	// Somebody has it open or mapped: a store that has not been written back would not show in the times. Push it there and
	// look again.
	if err := unix.SyncFileRange(int(file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER); err != nil {
		return false, false
	}
	after, err := stat(file)
	return err == nil && after == attr, true
}

func stat(f *os.File) (journal.Attr, error) {
	_, attr, err := source.Stat(int(f.Fd()), "")
	return attr, err
}
