package shipper

import "testing"

// TestLookedAtOnceKnown: a host that could not be looked at when the shipper started, since the volume was not known to be whole, is looked
// at as soon as it is, and not only after lookEvery: until then nothing is read back from it.
func TestLookedAtOnceKnown(t *testing.T) {
	c := newCacheHost(t, "vault1")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil))
	c.mustOnce()
	v := c.ship.all()[0]
	cur := v.cursors[0]
	for _, tt := range []struct {
		known, looked bool
		want          State
	}{{false, false, Idle}, {true, false, Looking}, {true, true, Idle}} {
		v.mu.Lock()
		v.known, cur.looked, cur.contact = tt.known, tt.looked, c.clock.now()
		v.mu.Unlock()
		wakeUp(cur.wake)
		if got := cur.resting(t.Context()); got != tt.want {
			t.Errorf("known %v, looked at %v: %v, want %v", tt.known, tt.looked, got, tt.want)
		}
	}
}
