// Package stages knows how far batches are in the stores, and what they wait for there.
//
// It keeps nothing: after a crash the stores' acks and this node's own pushing say it again, and until then every stage reads lower
// than it is.
package stages

import (
	"maps"
	"slices"
	"sync"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/spooler/evict"
)

// Stages knows how far each store has got, from the acks files that the senders' polls bring and from what this node itself
// published durably. Acks are hints: a stage is never shown above what one of them claims.
type Stages struct {
	minReplicas int
	copies      int                      // from the configuration; 0: the cache's acks say
	trouble     func(kind string) string // what keeps a destination of a kind from being reached, behind ": "; "" for nothing

	mu       sync.Mutex // guards what follows
	replicas map[string]batch.Seq
	cache    batch.Seq
	cacheAs  string // the cache's name
	backups  map[string]ack.Acks
	others   map[string]ack.Acks // of the cache and the replica peers, by their names
	needed   int                 // copies asked for by the cache
}

// New returns what knows nothing of any store yet. trouble says what keeps a destination of a kind ("replica", "cache") from being
// reached, behind ": ", and is "" where nothing does.
func New(minReplicas, copies int, trouble func(kind string) string) *Stages {
	return &Stages{minReplicas: minReplicas, copies: copies, trouble: trouble}
}

// Acked takes over what an acks file says.
func (s *Stages) Acked(list []ack.Acks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range list {
		switch a.Kind {
		case "backup":
			if s.backups == nil {
				s.backups = map[string]ack.Acks{}
			}
			s.backups[a.Store] = a
		case "cache":
			s.needed = a.Copies
			fallthrough
		case "replica":
			if s.others == nil {
				s.others = map[string]ack.Acks{}
			}
			s.others[a.Store] = a
		}
	}
}

// Delivered notes how far a destination of this node's own pushing has got.
func (s *Stages) Delivered(kind, name string, head batch.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "cache" {
		s.cache, s.cacheAs = head, name
		return
	}
	if s.replicas == nil {
		s.replicas = map[string]batch.Seq{}
	}
	s.replicas[name] = head
}

// Need is how many backup hosts make "stored"; 0 while nobody has said.
func (s *Stages) Need() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.needLocked()
}

func (s *Stages) needLocked() int {
	if s.copies > 0 {
		return s.copies
	}
	return s.needed
}

// Of returns a sealed batch's stage and how many backup hosts have it. A stage that the configuration does not have is passed
// with the one before it.
func (s *Stages) Of(seq batch.Seq) (control.Stage, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copies, verified := 0, 0
	for _, a := range s.backups {
		if a.Head >= seq {
			copies++
		}
		if a.Verified >= seq {
			verified++
		}
	}
	replicas := 0
	for _, head := range s.replicas {
		if head >= seq {
			replicas++
		}
	}
	need := s.needLocked()
	switch {
	case replicas < s.minReplicas:
		return control.Sealed, copies
	case s.cache < seq:
		return control.Replicated, copies
	case need == 0 || copies < need:
		return control.Cached, copies
	case verified < need:
		return control.Stored, copies
	}
	return control.Verified, copies
}

// Holding names the stores that have a batch: replica peers, the cache, backup hosts.
func (s *Stages) Holding(seq batch.Seq) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.replicas)) {
		if s.replicas[name] >= seq {
			names = append(names, name)
		}
	}
	if s.cache >= seq {
		names = append(names, s.cacheAs)
	}
	for _, name := range slices.Sorted(maps.Keys(s.backups)) {
		if s.backups[name].Head >= seq {
			names = append(names, name)
		}
	}
	return names
}

// storedHead is the newest batch that so many backup hosts have; 0 if none.
func (s *Stages) storedHead() batch.Seq {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := s.needLocked()
	if need == 0 {
		return 0
	}
	var best batch.Seq
	for _, a := range s.backups {
		n := 0
		for _, b := range s.backups {
			if b.Head >= a.Head {
				n++
			}
		}
		if n >= need && a.Head > best {
			best = a.Head
		}
	}
	return best
}

// BackupAcks returns what the backup hosts acknowledged, by their names.
func (s *Stages) BackupAcks() []ack.Acks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedAcks(s.backups)
}

// EvictHeads says which batches are safe without this node's copy.
func (s *Stages) EvictHeads() evict.Heads {
	h := evict.Heads{Stored: s.storedHead()}
	s.mu.Lock()
	defer s.mu.Unlock()
	heads := []batch.Seq{s.cache}
	for _, r := range s.replicas {
		heads = append(heads, r)
	}
	for _, b := range s.backups {
		heads = append(heads, b.Head)
	}
	if len(heads) >= 2 {
		slices.Sort(heads)
		h.Twice = heads[len(heads)-2]
	}
	return h
}
