package fusefs

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/source"
)

const (
	firstProbe = 5 * time.Millisecond // the kernel lets go of the file below shortly after it has sent the release
	lastProbe  = 2 * time.Second      // a mapping may live for days
)

// settler finds out when a file that was written in passthrough is really quiet: a shared mapping outlives the release and
// changes the times unseen. Until a lease says that nobody writes, its attributes are not cached. It tells the kernel
// nothing then, because nothing is cached that could be wrong.
type settler struct {
	step func(n *node) (done bool)
	wake chan struct{}

	mu      sync.Mutex
	waiting []probe
}

type probe struct {
	node  *node
	due   time.Time
	delay time.Duration
}

// add puts a node in line; it is held until its probes are over.
func (s *settler) add(n *node, nodes *nodeTable) {
	nodes.hold(n)
	s.put(probe{node: n, due: time.Now().Add(firstProbe), delay: firstProbe})
}

func (s *settler) put(p probe) {
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take removes the probes that are due and says when the next one is.
func (s *settler) take(now time.Time) (due []probe, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	later := s.waiting[:0]
	for _, p := range s.waiting {
		if !p.due.After(now) {
			due = append(due, p)
			continue
		}
		if later = append(later, p); next.IsZero() || p.due.Before(next) {
			next = p.due
		}
	}
	clear(s.waiting[len(later):])
	s.waiting = later
	return due, next
}

// run probes until ctx ends.
func (s *settler) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := s.take(time.Now())
		for _, p := range due {
			if !s.step(p.node) {
				p.delay = min(2*p.delay, lastProbe)
				p.due = time.Now().Add(p.delay)
				s.put(p)
			}
		}
		if len(due) > 0 {
			continue // put may have made an earlier one
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// settleStep probes one node and lets go of it when there is nothing left to find out.
func (f *filesystem) settleStep(n *node) bool {
	if !f.settled(n) {
		return false
	}
	f.nodes.drop(n)
	return true
}

// settled tells whether n needs no more probes: nobody writes, or somebody opened it again and will have it probed later.
func (f *filesystem) settled(n *node) bool {
	fd, err := f.openat(unix.AT_FDCWD, procPath(n.fd), unix.O_RDONLY|unix.O_NOATIME, 0)
	if err != nil {
		return false
	}
	file := os.NewFile(uintptr(fd), "probe")
	defer func() { _ = file.Close() }()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writers > 0 {
		return true
	}
	quiet, err := source.Quiet(file)
	if err != nil {
		return true // the file system has no leases: it is never cached
	}
	if quiet {
		n.unsettled.Store(false)
	}
	return quiet
}
