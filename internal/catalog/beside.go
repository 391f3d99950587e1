package catalog

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// besideTries is how often a copy is begun anew because the spooler commits meanwhile.
const besideTries = 5

// OpenBeside is for the command line when the spooler holds the catalog and does not answer: stopped, or stuck. What is read is
// a copy in memory, as large as the file, of the state last committed; the file and its lock are left alone. ErrBusy if the
// spooler commits more quickly than the file can be copied: it is well then, and should be asked; fs.ErrNotExist if there is no
// catalog.
func OpenBeside(path string) (*Catalog, error) { return open(path, beside) }

// copyBeside returns a copy of the state last committed. A transaction writes over no page of the state that it begins with, so
// the copy is whole if that was still the newest when the last page had been read.
func copyBeside(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return copyWhole(f, f)
}

// copyWhole is copyBeside for a file that is open; its pages come from r.
func copyWhole(f *os.File, r io.ReaderAt) (*os.File, error) {
	for range besideTries {
		before, err := newest(f)
		if err != nil {
			return nil, err
		}
		c, err := copyPages(r, before)
		if err != nil {
			return nil, err
		}
		after, err := newest(f)
		if err == nil && after.txid == before.txid {
			return c, nil
		}
		if err := errors.Join(err, c.Close()); err != nil {
			return nil, err
		}
	}
	return nil, ErrBusy
}

// newest reads the newer of the two header pages.
func newest(f *os.File) (*pages, error) {
	p, err := mapPages(f)
	if err != nil {
		return nil, err
	}
	return p, errors.Join(p.readMeta(), p.unmap())
}

// copyPages copies the pages in use into a file in memory.
func copyPages(r io.ReaderAt, p *pages) (*os.File, error) {
	size := int64(p.high * p.pageSize)
	fd, err := unix.MemfdCreate("catalog", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a copy in memory: %w", err)
	}
	c := os.NewFile(uintptr(fd), "catalog")
	if err := fillCopy(c, r, size); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("copy to memory: %w", err)
	}
	return c, nil
}

// fillCopy reads into the copy's own pages, on two processors: the first use of a page costs more than its bytes.
func fillCopy(c *os.File, r io.ReaderAt, size int64) error {
	if err := c.Truncate(size); err != nil {
		return err
	}
	data, err := unix.Mmap(int(c.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	const piece = 8 << 20
	var g errgroup.Group
	g.SetLimit(2)
	for at := int64(0); at < size; at += piece {
		g.Go(func() error {
			_, err := r.ReadAt(data[at:min(at+piece, size)], at)
			return err
		})
	}
	return errors.Join(g.Wait(), unix.Munmap(data))
}
