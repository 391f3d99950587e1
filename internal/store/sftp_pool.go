package store

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
	"time"
)

const (
	defaultConnections = 4
	defaultStall       = 10 * time.Second
	bulk               = 256 << 10 // from this size on, an object is not to keep small ones waiting
	idleFor            = time.Minute
	guessedDial        = 250 * time.Millisecond // before there was one
)

// sftpStore is a store behind an OpenSSH server. One operation has one connection to itself, so that ending it (its
// context is cancelled, the server has stalled) ends nothing else.
type sftpStore struct {
	place place
	opt   Options
	dirs  dirSet
	left  leftovers
	tally tally

	all   chan struct{} // one token a connection
	large chan struct{} // one token a connection for large objects; a progress file must not queue behind shards
	done  chan struct{} // closed by Close

	freed chan struct{} // told of each connection that has become idle or come to an end

	mu     sync.Mutex
	closed bool
	idle   []*conn
	open   int           // connections, those in the making included
	toDial time.Duration // what the last connection took to make

	lineKnown bool // there was a connection
	roundTrip time.Duration
	running   map[*operation]struct{}
	lacks     []string
}

// operation is one that runs, for Close.
type operation struct{ cancel context.CancelCauseFunc }

func newSFTP(p place, opt Options) *sftpStore {
	if opt.Connections <= 0 {
		opt.Connections = defaultConnections
	}
	if opt.StallAfter <= 0 {
		opt.StallAfter = defaultStall
	}
	return &sftpStore{place: p, opt: opt, done: make(chan struct{}), running: map[*operation]struct{}{},
		freed: make(chan struct{}, opt.Connections), toDial: guessedDial,
		all: make(chan struct{}, opt.Connections), large: make(chan struct{}, max(1, opt.Connections-1))}
}

// with runs f on a connection and gives what it returns its class. size is how much f transfers.
func (s *sftpStore) with(ctx context.Context, verb, name string, size int64, f func(ctx context.Context, c *conn) error) error {
	err := s.begin(ctx, size, func(ctx context.Context) error {
		c, err := s.take(ctx, size >= bulk)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { c.wire.fail(context.Cause(ctx)) })
		err = f(ctx, c)
		stop()
		ended := c.wire.ended()
		s.give(c)
		if err != nil && ended != nil {
			return fmt.Errorf("%w: %w", ErrTemporary, ended)
		}
		return err
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s at %s: %w", verb, path.Join(s.place.path, name), s.place.addr(), err)
}

// begin waits for a token and runs f with a context that ends with the store too.
func (s *sftpStore) begin(ctx context.Context, size int64, f func(ctx context.Context) error) error {
	tokens := []chan struct{}{s.all}
	if size >= bulk {
		tokens = []chan struct{}{s.large, s.all} // always in this order
	}
	for _, token := range tokens {
		select {
		case token <- struct{}{}:
			defer func() { <-token }()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return os.ErrClosed
		}
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	op := &operation{cancel: cancel}
	if !s.register(op) {
		return os.ErrClosed
	}
	defer s.unregister(op)
	if err := inner.Err(); err != nil {
		return err
	}
	err := f(inner)
	if cause := context.Cause(inner); err != nil && cause != nil {
		return cause // all else follows from it
	}
	return err
}

func (s *sftpStore) register(op *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running[op] = struct{}{}
	}
	return !s.closed
}

func (s *sftpStore) unregister(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, op)
}

// take returns an idle connection that is good as far as one can see, or a new one. Who is patient waits for one as long as it pays:
// each connection costs the server processes.
func (s *sftpStore) take(ctx context.Context, patient bool) (*conn, error) {
	began := time.Now()
	for {
		left := s.patience() - time.Since(began)
		c, dial := s.pop(patient && left > 0)
		switch {
		case dial:
			return s.connect(ctx)
		case c != nil && c.wire.ended() == nil:
			return c, nil
		case c != nil:
			s.drop(c)
			continue
		}
		if err := s.await(ctx, left); err != nil {
			return nil, err
		}
	}
}

// await returns when a connection may be idle, and after d at the latest.
func (s *sftpStore) await(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.freed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// patience is how long waiting for a connection pays. On a short line one carries as much as four, so that only one that hangs is not
// waited for; on others making one takes long, and so does what the others carry.
func (s *sftpStore) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lineKnown && inFlight(s.roundTrip) == fewInFlight {
		return s.opt.StallAfter / 2
	}
	return 4 * s.toDial
}

// pop takes an idle connection; dial: one is to be made, and is counted already.
func (s *sftpStore) pop(patient bool) (c *conn, dial bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		if dial = s.open == 0 || !patient; dial {
			s.open++
		}
		return nil, dial
	}
	c = s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	return c, false
}

// connect makes a connection and notes how long that takes.
func (s *sftpStore) connect(ctx context.Context) (*conn, error) {
	began := time.Now()
	c, err := s.dial(ctx)
	if err != nil {
		s.uncount()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.toDial, s.roundTrip, s.lineKnown = time.Since(began), c.wire.roundTrip(), true
	return c, nil
}

// uncount notes that a connection has ended.
func (s *sftpStore) uncount() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.tellFreed()
}

// tellFreed wakes one that waits for a connection.
func (s *sftpStore) tellFreed() {
	select {
	case s.freed <- struct{}{}:
	default: // as many as can wait will look already
	}
}

// drop closes a connection that is of no use any more.
func (s *sftpStore) drop(c *conn) {
	c.close()
	s.uncount()
}

// give takes a connection back, and closes those that have not been needed for long.
func (s *sftpStore) give(c *conn) {
	c.used = time.Now()
	var old []*conn
	s.mu.Lock()
	s.idle = append(s.idle, c)
	s.idle = slices.DeleteFunc(s.idle, func(i *conn) bool {
		useless := s.closed || i.wire.ended() != nil || c.used.Sub(i.used) > idleFor
		if useless {
			old = append(old, i)
		}
		return useless
	})
	s.mu.Unlock()
	for _, c := range old {
		s.drop(c)
	}
	s.tellFreed()
}

// Close ends what is under way, waits for it to have ended, and closes all connections.
func (s *sftpStore) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	for op := range s.running {
		op.cancel(os.ErrClosed)
	}
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	for range cap(s.all) {
		s.all <- struct{}{} // never given back: nothing begins any more
	}
	return nil
}

// note records what a new connection's server can do.
func (s *sftpStore) note(c *conn) {
	var lacks []string
	for _, ext := range []struct {
		name, version string
		has           *bool
	}{
		{"fsync@openssh.com", "1", &c.canSync},
		{"posix-rename@openssh.com", "1", &c.canReplace},
		{"statvfs@openssh.com", "2", &c.canStatVFS},
	} {
		version, ok := c.sftp.HasExtension(ext.name)
		*ext.has = ok && version == ext.version
		if !*ext.has {
			lacks = append(lacks, ext.name)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacks = lacks
}

func (s *sftpStore) weak() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lacks)
}

func (s *sftpStore) confirmed() int64 { return s.tally.sum() }

func (s *sftpStore) localPath() (string, bool) { return "", false }
