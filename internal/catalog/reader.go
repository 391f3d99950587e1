package catalog

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readTries is how often a reader begins anew because the spooler commits meanwhile.
	readTries = 5
	// endWait is how long a spooler that was taken for dead has to let go of the catalog.
	endWait = 200 * time.Millisecond
)

// Reader reads a catalog that somebody else may write: the command line, when the spooler is dead, stopped or stuck. It takes no
// lock and disturbs nobody. Only the pages that lead to what is asked for are read, and each of them is checked, so a question
// takes as long as its answer and not as the catalog is large; damage elsewhere is not met. For one goroutine.
type Reader struct {
	path string
	file *os.File
}

// OpenReader opens a catalog for reading; fs.ErrNotExist if there is none.
func OpenReader(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	r := &Reader{path, f}
	if err := r.View(checkFormat); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), r.Close())
	}
	return r, nil
}

// InUse tells whether a writer holds the catalog, after the 200 ms that one which ends may take.
func (r *Reader) InUse() bool {
	if err := lock(r.file, unix.LOCK_SH, endWait); err != nil {
		return true
	}
	return unix.Flock(int(r.file.Fd()), unix.LOCK_UN) != nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// View runs fn on the state last committed. If the spooler commits meanwhile, fn is run again on the new state, so it has to begin
// from nothing each time; ErrBusy if there is no end of that: the spooler is well then, and should be asked.
func (r *Reader) View(fn func(*Tx) error) error {
	for range readTries {
		if same, err := r.view(fn); same {
			return err
		}
	}
	return fmt.Errorf("read catalog %s: %w", r.path, ErrBusy)
}

// view runs fn once. A transaction writes over no page of the state that it begins with, so what was read is whole if that is
// still the newest in the end; otherwise both result and error mean nothing.
func (r *Reader) view(fn func(*Tx) error) (same bool, err error) {
	p, err := mapPages(r.file)
	if err != nil {
		return true, err
	}
	defer func() { err = errors.Join(err, p.unmap()) }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	t := &Tx{path: r.path, damaged: func(err error) error { return err }, open: p.records}
	before, err := r.newest(t, p)
	if err != nil {
		return true, err
	}
	err = fn(t)
	after, aerr := r.newest(t, &pages{data: p.data, size: p.size})
	if aerr != nil {
		return true, errors.Join(err, aerr)
	}
	return after == before, err
}

// newest reads the header pages and returns the number of the transaction last committed.
func (r *Reader) newest(t *Tx, p *pages) (txid uint64, err error) {
	err = t.guard("header pages", p.readMeta)
	if err != nil {
		return 0, fmt.Errorf("read catalog %s: %w", r.path, err)
	}
	return p.txid, nil
}
