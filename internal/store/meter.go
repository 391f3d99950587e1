package store

import (
	"sync"
	"time"
)

// Meter measures how many bytes a second a store confirms. It is asked from time to time, and measures between its askings. The zero
// value is not usable; NewMeter makes one. Safe for concurrent use.
type Meter struct {
	s Store

	mu    sync.Mutex
	at    time.Time
	bytes int64
	rate  float64
}

// meterEvery is the shortest time that is measured over: until then the last rate holds.
const meterEvery = time.Second

// meterLongest is the longest one: after a pause nothing is known of the rate.
const meterLongest = time.Minute

// NewMeter makes a meter of a store.
func NewMeter(s Store) *Meter { return &Meter{s: s} }

// Rate returns the bytes a second confirmed since it was asked the last time.
func (m *Meter) Rate(now time.Time) float64 {
	bytes := Confirmed(m.s)
	m.mu.Lock()
	defer m.mu.Unlock()
	passed := now.Sub(m.at)
	if passed >= 0 && passed < meterEvery {
		return m.rate
	}
	m.rate = 0
	if passed > 0 && passed <= meterLongest {
		m.rate = float64(bytes-m.bytes) / passed.Seconds()
	}
	m.at, m.bytes = now, bytes
	return m.rate
}
