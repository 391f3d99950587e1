// Package store is a directory of shards, batches and a few small files, wherever it lies: on a local disk or behind a
// plain OpenSSH server. Both are one interface with one conformance suite (storetest).
//
// After a crash, of this machine or of the store's, at any instant: an object is there whole or not at all, and whatever a
// method reported as done is there. What may be left besides are files under temporary names, which List does not show,
// and directories. A method that ended with ErrTemporary, or with its context, may or may not have taken effect, and a
// request that a stalled server still holds may take effect later: call it again, which looks before it writes.
package store

import (
	"context"
	"errors"
	"time"
)

// Classes of errors. Everything else is ErrPermanent-like: tell the operator and try again later, with back-off.
var (
	ErrNotExist  = errors.New("object does not exist")
	ErrExist     = errors.New("object exists")
	ErrDiffers   = errors.New("object exists with other content")
	ErrFull      = errors.New("store is full")
	ErrReadOnly  = errors.New("store is read-only")
	ErrTemporary = errors.New("store did not answer")           // connection lost, refused, stalled: reconnect and try again
	ErrHostKey   = errors.New("host key is not the pinned one") // needs an operator
	ErrAuth      = errors.New("store refused the key")
	ErrReadSide  = errors.New("store cannot remove objects") // Remove over SFTP
	ErrName      = errors.New("not a name for an object")    // a programming error, or a hostile input further up
	ErrTooLarge  = errors.New("object is too large")         // Read's bound
	ErrLacks     = errors.New("server lacks an extension")   // named in the text; Replace needs posix-rename@openssh.com
	ErrNotDir    = errors.New("store is not a directory")    // a local one; needs an operator
)

// Info is what is known of an object without reading it.
type Info struct {
	Name    string // base name for List, whole name for Stat
	Size    int64
	ModTime time.Time // whole seconds over SFTP
	Dir     bool
}

// Store is a directory of immutable objects (shards, batches, claims) and a few replaced ones (progress, acks), wherever it
// lies. Names are slash-separated, relative, made of [a-z A-Z 0-9 . _ -]; others are refused (CheckName). Safe for
// concurrent use. Every method that changes something returns only when the change is durable at the store.
type Store interface {
	// Publish makes the object; present and equal is success (the directory is synced all the same), present with another
	// size or other bytes is ErrDiffers. Never seen half: exclusive temporary name, write, fsync, size check, rename
	// without replacing, fsync of the directory and of every directory made on the way. Over SFTP a shard that is present
	// is compared by its size alone, since its name is its digest and whoever holds the store checks that.
	Publish(ctx context.Context, name string, data []byte) error
	// CreateExclusive makes the object; ErrExist if there is one, whoever made it. After ErrTemporary it may be there, or
	// come to be: read it to know whose it is.
	CreateExclusive(ctx context.Context, name string, data []byte) error
	// Replace puts data in place of the object, or makes it (posix-rename).
	Replace(ctx context.Context, name string, data []byte) error
	// Read returns the whole object; one larger than max is an error, so that a hostile store cannot exhaust memory.
	Read(ctx context.Context, name string, max int64) ([]byte, error)
	// Stat tells size and time, or ErrNotExist.
	Stat(ctx context.Context, name string) (Info, error)
	// List returns the objects and directories of one directory, sorted by name, without temporary names and without names
	// outside the grammar. An absent directory is empty. The store's own directory is "".
	List(ctx context.Context, dir string) ([]Info, error)
	// Remove removes an object; absent is success. Local directories only.
	Remove(ctx context.Context, name string) error
	// Close frees connections. What is under way ends with an error.
	Close() error
}

// Options say how SFTP stores are reached.
type Options struct {
	KeyFile     string        // private SSH key, mode 0600
	KnownHosts  []string      // pinned host keys; no key for the host: ErrHostKey naming the line to add
	Connections int           // at most so many at once, default 4; of several, one is kept for small objects
	StallAfter  time.Duration // no byte of an answer for so long: the connection is closed, ErrTemporary; default 10 s
	Limit       Limiter       // may be nil
	// Unseen: a local path that is not a directory is no error of Open. Every method then ends with ErrNotDir, until it is one.
	Unseen bool
}

// Limiter slows writes down (golang.org/x/time/rate's WaitN). It is asked for at most 32 KiB at a time.
type Limiter interface {
	WaitN(ctx context.Context, n int) error
}

// limitPiece is the most that a Limiter is asked for at once, and so the least burst it can have.
const limitPiece = 32 << 10

// Open opens the store at url: "sftp://user@host:port/abs/path" or a directory path. Nothing is contacted yet; connections
// are made on use and made anew after a fault (one attempt a call; back-off is the caller's).
func Open(url string, opt Options) (Store, error) {
	p, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if p.host == "" {
		return newLocalDir(p.path, opt)
	}
	return newSFTP(p, opt), nil
}

// described is what the functions below ask a store of this package.
type described interface {
	localPath() (string, bool)
	weak() []string
	space(ctx context.Context) (free, total uint64, err error)
	powers(ctx context.Context) ([]string, error)
	confirmed() int64
	readInto(ctx context.Context, name string, max int64, buf []byte) ([]byte, error)
	sum(ctx context.Context, name string, max int64) (digest [32]byte, size int64, err error)
}

// LocalPath returns the directory of a local store, for fsnotify; false for SFTP.
func LocalPath(s Store) (string, bool) {
	d, ok := s.(described)
	if !ok {
		return "", false
	}
	return d.localPath()
}

// Weak names what the server lacks ("fsync@openssh.com"), after the first contact; empty for none. Without fsync a
// publish is not known to survive the loss of power at the store. Without posix-rename Replace is refused. Without statvfs
// a full disk cannot be told from other faults. An account that may only read offers none of the three.
func Weak(s Store) []string {
	d, ok := s.(described)
	if !ok {
		return nil
	}
	return d.weak()
}

// Space tells free and total bytes at the store (statvfs), for status and doctor.
func Space(ctx context.Context, s Store) (free, total uint64, err error) {
	d, ok := s.(described)
	if !ok {
		return 0, 0, errors.New("ask for space: not a store that can tell")
	}
	return d.space(ctx)
}

// pace lets n bytes pass the limiter.
func pace(ctx context.Context, limit Limiter, n int) error {
	for limit != nil && n > 0 {
		piece := min(n, limitPiece)
		if err := limit.WaitN(ctx, piece); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}
