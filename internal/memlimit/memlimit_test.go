package memlimit

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestKeep: a heap that has outgrown the floor gets room above it.
func TestKeep(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	const floor = 8 << 20
	held := make([]byte, 64<<20)
	runtime.GC()
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return Keep(ctx, floor) })
	deadline := time.After(time.Minute)
	for debug.SetMemoryLimit(-1) < int64(len(held)) || debug.SetMemoryLimit(-1) == math.MaxInt64 {
		select {
		case <-deadline:
			t.Fatalf("the limit is %d with %d in use", debug.SetMemoryLimit(-1), len(held))
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(held)
}

func TestLimit(t *testing.T) {
	for live, want := range map[int64]int64{0: 160, 40: 160, 100: 190, 1000: 1540} {
		if got := limit(160, live); got != want {
			t.Errorf("%d in use: %d, want %d", live, got, want)
		}
	}
}
