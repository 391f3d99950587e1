package store

import (
	"errors"
	"sync"
)

var errNotRegular = errors.New("not a regular file")

// dirSet remembers directories that have been fsynced into their parents while this store was open, so that it is done
// once and not before every object.
type dirSet struct {
	mu    sync.Mutex
	known map[string]struct{}
}

func (s *dirSet) has(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[dir]
	return ok
}

func (s *dirSet) add(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]struct{}{}
	}
	s.known[dir] = struct{}{}
}

func (s *dirSet) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}
