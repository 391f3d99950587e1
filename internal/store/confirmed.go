package store

import "sync"

// Confirmed returns how many bytes of objects being published the other side has confirmed so far, shards on their way
// included: over SFTP what the server's kernel had acknowledged at the last answer of its sftp-server, and a little beyond; in a
// directory what is durable there. It never goes back while s is open, and tells a slow line, on which it moves, from one that
// delivers nothing, and from a server that has stopped behind a kernel that still takes what comes. 0 for a store that cannot tell.
func Confirmed(s Store) int64 {
	d, ok := s.(described)
	if !ok {
		return 0
	}
	return d.confirmed()
}

// beyondAnswer is how much counts that was acknowledged by the server's kernel alone: the largest packet, whose answer takes long
// on a slow line.
const beyondAnswer = 256 << 10

// tally counts confirmed bytes. Safe for concurrent use.
type tally struct {
	mu      sync.Mutex
	total   int64            // of what has ended
	most    int64            // returned so far
	running map[*conn]uint64 // what had been confirmed on the connection when its transfer began
}

// add counts bytes that are durable.
func (t *tally) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += int64(n)
}

// follow counts what is confirmed on a connection until the function that it returns is called.
func (t *tally) follow(c *conn) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == nil {
		t.running = map[*conn]uint64{}
	}
	began := c.wire.acked()
	c.answers.acked.Store(began)
	t.running[c] = began
	return func() {
		acked := c.wire.acked()
		t.mu.Lock()
		defer t.mu.Unlock()
		if acked > t.running[c] { // a closed connection tells nothing
			t.total += int64(acked - t.running[c])
		}
		delete(t.running, c)
	}
}

// sum returns the bytes confirmed so far. A connection that broke cannot be asked any more, and what it confirmed is not taken
// back.
func (t *tally) sum() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.total
	for c, began := range t.running {
		if acked := min(c.wire.acked(), c.answers.acked.Load()+beyondAnswer); acked > began {
			sum += int64(acked - began)
		}
	}
	t.most = max(t.most, sum)
	return t.most
}
