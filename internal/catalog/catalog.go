// Package catalog keeps a volume as last sealed: its tree, the index of its chunks and shards, what is pending, and how far
// the journal has been folded. It is one bbolt file that the spooler alone writes; it can be lost without losing anything
// sealed (the spooler then begins a new epoch and reads the source again).
//
// What is true after a crash: the file holds the last transaction whose Update returned nil, whole, or the one that was
// being committed when the machine died, whole; never a part of one. A catalog that was being made is either not there or
// empty and usable. Damage to the file (a flipped bit, a cut end) shows as ErrCorrupt and never as a crash of the process:
// the page structure is checked before bbolt maps the file, every record carries a checksum, and faults are caught at this
// package's border.
//
// The layout of the records is described in record.go.
package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"slipway/internal/durable"
)

// Format is the number of the layout that this package writes.
const Format = 1

// Classes of errors.
var (
	// ErrCorrupt: the file is not a readable catalog (page structure, checksum, damaged records). Move it aside.
	ErrCorrupt = errors.New("catalog is corrupt")
	// ErrBusy: the daemon holds it, or commits all the time; ask the daemon's socket instead.
	ErrBusy = errors.New("catalog is in use by the spooler")
	// ErrNewer: a newer slipway wrote it. Nothing is wrong with it, so it must not be moved aside.
	ErrNewer = errors.New("catalog has a newer format")
)

// writeWait is how long the file's lock is waited for: who reads holds it for an instant.
const writeWait = 10 * time.Second

// mapBytes is the address space (not memory) taken for the file at once.
const mapBytes = 1 << 30

// growBytes is by how much the file grows at once; each growth is an fsync of its own.
const growBytes = 4 << 20

// Catalog is one bbolt file. Only the spooler writes it. Safe for concurrent use; Update calls run one after another.
type Catalog struct {
	path string

	mu     sync.Mutex
	db     *bolt.DB // nil after Close, or when opening anew failed
	file   *os.File // what db has open, for the case that db cannot be closed in order
	stale  bool     // a commit failed halfway: what bbolt has in memory may not be what the file holds
	broken error    // damage was met; nothing is read or written any more
}

// Open opens or makes the catalog for writing. ErrCorrupt: move it aside and begin a new epoch.
func Open(path string) (*Catalog, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make catalog %s: %w", path, err)
		}
	}
	return open(path)
}

func open(path string) (*Catalog, error) {
	c := &Catalog{path: path}
	if err := c.openLocked(); err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	if err := c.View(checkFormat); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), c.Close())
	}
	return c, nil
}

// openLocked opens the file; c.mu is held, or c is not shared yet.
func (c *Catalog) openLocked() (err error) {
	opt := &bolt.Options{
		FreelistType: bolt.FreelistMapType,
		NoStatistics: true,
		Timeout:      writeWait,
		// Room to grow: an Update that has to map a larger file waits until no View runs.
		InitialMmapSize: mapBytes,
		// bbolt locks this same open file once more, which does nothing: the pages are checked under the lock, before
		// bbolt trusts them.
		OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			f, err := openChecked(name, flag&^os.O_CREATE, perm)
			c.file = f
			return f, err
		},
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
			c.closeFile()
		}
	}()
	db, err := bolt.Open(c.path, 0o600, opt)
	if err != nil {
		c.file = nil // closed by openChecked or by bbolt
		return classify(err)
	}
	db.AllocSize = growBytes
	c.db, c.stale = db, false
	return nil
}

// create makes an empty catalog in one step, so that a crash never leaves a half-made file to be taken for a damaged one.
func create(path string) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(temp, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return err
	}
	err = errors.Join(db.Update(func(tx *bolt.Tx) error { return writeEmpty(tx) }), db.Close())
	if err != nil {
		return err
	}
	data, err := os.ReadFile(temp)
	if err != nil {
		return err
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.CreateExclusive(path, data, 0o600)
}

// Close closes the file.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeLocked()
}

func (c *Catalog) closeLocked() error {
	db := c.db
	c.db = nil
	if c.broken != nil {
		c.closeFile()
		return nil
	}
	if db == nil {
		return nil
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("close catalog %s: %w", c.path, err)
	}
	return nil
}

// closeFile gives up the lock where bbolt's own Close might wait for ever on a lock that a caught fault left behind.
func (c *Catalog) closeFile() {
	if c.file != nil {
		_ = unix.Flock(int(c.file.Fd()), unix.LOCK_UN) // the mapping, which stays, would keep the lock beyond the close
		_ = c.file.Close()                             // nothing was written through it that counts: the catalog is damaged
		c.file = nil
	}
}

// use returns the open database. After a failed commit it opens the file anew, so that memory is what the disk holds.
func (c *Catalog) use() (*bolt.DB, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	if c.stale {
		if err := c.closeLocked(); err != nil {
			return nil, err
		}
		if err := c.openLocked(); err != nil {
			return nil, fmt.Errorf("open catalog %s again: %w", c.path, err)
		}
	}
	if c.db == nil {
		return nil, fmt.Errorf("use catalog %s: %w", c.path, fs.ErrClosed)
	}
	return c.db, nil
}

// damaged notes damage: from here on every call says so.
func (c *Catalog) damaged(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
	return c.broken
}

// View runs fn on a consistent state. It must not call Update, which may wait for the Views that run.
func (c *Catalog) View(fn func(*Tx) error) error {
	return c.run(fn, func(db *bolt.DB, body func(*bolt.Tx) error) error { return db.View(body) })
}

// Update runs fn in one transaction: all or nothing, durable when it returns nil. This is commit point 2 of
// docs/guarantees.md. When it returns an error that fn did not, the transaction may or may not be in the file: the next call
// works on what the file holds, so the caller begins again from Meta.
func (c *Catalog) Update(fn func(*Tx) error) error {
	return c.run(fn, func(db *bolt.DB, body func(*bolt.Tx) error) error { return db.Update(body) })
}

func (c *Catalog) run(fn func(*Tx) error, with func(*bolt.DB, func(*bolt.Tx) error) error) (err error) {
	db, err := c.use()
	if err != nil {
		return err
	}
	var theirs, returned bool // a panic or an error of fn is the caller's, not the file's
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if theirs {
			panic(p)
		}
		err = c.damaged(fmt.Errorf("catalog %s: %w: %v", c.path, ErrCorrupt, p))
	}()
	err = with(db, func(b *bolt.Tx) error {
		t := &Tx{path: c.path, damaged: c.damaged, tx: b, open: boltRecords(b)}
		theirs = true
		err := fn(t)
		theirs = false
		if err == nil && b.Writable() {
			err = t.flush()
		}
		returned = err != nil
		return err
	})
	if err != nil && !returned {
		c.mu.Lock()
		c.stale = true
		c.mu.Unlock()
		return fmt.Errorf("commit catalog %s: %w", c.path, err)
	}
	return err
}
