package store_test

import (
	"testing"
	"time"

	"slipway/internal/store"
)

func TestMeter(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	m := store.NewMeter(s)
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		name   string
		bytes  int
		passed time.Duration
		want   float64
	}{
		{"nothing is known at first", 500, 0, 0},
		{"half a second is too short", 1000, 500 * time.Millisecond, 0},
		{"two seconds", 3000, 1500 * time.Millisecond, 2000},
		{"asked again at once", 100, 0, 2000},
		{"nothing but that came", 0, time.Second, 100},
		{"after a pause nothing is known", 1000, time.Hour, 0},
		{"a clock set back", 0, -2 * time.Hour, 0},
		{"and on", 300, 3 * time.Second, 100},
	} {
		if step.bytes > 0 {
			if err := s.Publish(t.Context(), "object-"+step.name[:3], make([]byte, step.bytes)); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(step.passed)
		if got := m.Rate(now); got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
