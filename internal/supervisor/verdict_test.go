package supervisor

import (
	"errors"
	"testing"
)

// TestSpoolerVerdict: a spooler is started again whatever ends it, unless the volume is not this node's any more.
func TestSpoolerVerdict(t *testing.T) {
	for _, code := range []int{-1, 0, 1, ExitConfig, 5} {
		if final, err := spoolerVerdict(code); final || err != nil {
			t.Errorf("exit code %d: %v %v", code, final, err)
		}
	}
	if final, err := spoolerVerdict(ExitSuperseded); !final || !errors.Is(err, ErrSuperseded) {
		t.Errorf("superseded: %v %v", final, err)
	}
}
