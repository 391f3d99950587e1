// Package memlimit sets the garbage collector's soft limit by what a process really needs. A limit below the live heap makes the collector run
// without end.
//
// It keeps nothing, so a crash leaves nothing.
package memlimit

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"slipway/internal/loop"
)

// lookEvery is how often the live heap is looked at.
const lookEvery = time.Second

// Keep keeps the limit at floor bytes, or at one and a half times the live heap and what the runtime needs besides where that is more, until
// ctx ends.
func Keep(ctx context.Context, floor int64) error {
	debug.SetMemoryLimit(floor)
	return loop.Every(ctx, lookEvery, nil, func() time.Duration {
		debug.SetMemoryLimit(limit(floor, live()))
		return 0
	})
}

func limit(floor, live int64) int64 { return max(floor, live+live/2+floor/4) }

// live returns the bytes of the heap that the last collection found in use.
func live() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
