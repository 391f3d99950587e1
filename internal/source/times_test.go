package source

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFarTimes: a time that 64 bits of nanoseconds cannot hold becomes the nearest one, not one centuries away.
func TestFarTimes(t *testing.T) {
	for sec, want := range map[int64]int64{
		0: 0, -1: -1e9, 9223372035: 9223372035e9, -9223372035: -9223372035e9,
		10413792000: math.MaxInt64, math.MaxInt64: math.MaxInt64, // the year 2300
		-10413792000: math.MinInt64, math.MinInt64: math.MinInt64,
	} {
		if got := nanoseconds(unix.StatxTimestamp{Sec: sec}); got != want {
			t.Errorf("%d s become %d ns, want %d", sec, got, want)
		}
	}
}
