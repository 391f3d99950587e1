package capture

import (
	"slices"
	"testing"

	"slipway/internal/batch"
)

// TestMostHoles: a file with more holes than a record may name keeps the largest of them, in order.
func TestMostHoles(t *testing.T) {
	var many [][2]int64
	for i := range int64(batch.MaxHoles + 100) {
		length := int64(8192)
		if i%300 == 7 {
			length = 4096 // the ones to go
		}
		many = append(many, [2]int64{i * 65536, length})
	}
	kept := largestHoles(many)
	if len(kept) != batch.MaxHoles {
		t.Fatalf("%d holes kept, want %d", len(kept), batch.MaxHoles)
	}
	if !slices.IsSortedFunc(kept, func(a, b [2]int64) int { return int(a[0] - b[0]) }) {
		t.Error("the holes are not in order")
	}
	small := 0
	for _, h := range kept {
		if h[1] == 4096 {
			small++
		}
	}
	if want := len(many)/300 + 1 - 100; small > max(want, 0)+1 {
		t.Errorf("%d of the smallest holes are kept while larger ones went", small)
	}
}
