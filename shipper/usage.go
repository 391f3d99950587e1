package shipper

import (
	"context"
	"sync"
	"time"

	"slipway/internal/intake"
)

// usage is what the store holds, in bytes. It is counted by listing now and then, and estimated in between.
type usage struct {
	mu      sync.Mutex
	volumes map[string]int64
	counted time.Time     // when the last count began
	took    time.Duration // how long it took
}

// total returns the bytes of all volumes.
func (u *usage) total() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	var n int64
	for _, b := range u.volumes {
		n += b
	}
	return n
}

func (u *usage) of(volume string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.volumes[volume]
}

// add notes what has come (or gone, below zero) since the last count.
func (u *usage) add(volume string, bytes int64, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.volumes == nil {
		u.volumes = map[string]int64{}
	}
	if at.After(u.counted) {
		u.volumes[volume] = max(0, u.volumes[volume]+bytes)
	}
}

// due tells whether to count again: never for more than a fiftieth of the time, however large the store.
func (u *usage) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return now.Sub(u.counted) >= max(maintainEvery, 50*u.took)
}

// count lists the store.
func (s *Shipper) count(ctx context.Context) {
	begun := s.now()
	start := time.Now()
	found := map[string]int64{}
	for _, v := range s.all() {
		n, err := intake.TreeSize(ctx, v.in.Dir)
		if err != nil {
			s.log.Warn("count the store", "volume", v.name, "error", err)
			return
		}
		found[v.name] = n
	}
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.usage.volumes, s.usage.counted, s.usage.took = found, begun, time.Since(start)
}
