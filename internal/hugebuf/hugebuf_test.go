package hugebuf

import "testing"

func TestMake(t *testing.T) {
	for _, n := range []int{0, 1, huge, 2*huge - 1, 2 * huge, 8<<20 + 4097} {
		b := Make(n)
		if len(b) != n {
			t.Fatalf("%d bytes instead of %d", len(b), n)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("byte %d of %d is not zero", i, n)
			}
			b[i] = byte(i)
		}
	}
}
