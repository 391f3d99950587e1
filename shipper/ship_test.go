package shipper

import (
	"testing"
)

func TestShipsInOrder(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	p := newPrimary(t, "projects")
	b1, b2, b3 := p.seal([]int{1000, 2000}, nil), p.seal(nil, nil), p.seal([]int{300_000}, nil)
	p.put(c.store, b1, b2, b3)
	c.mustOnce()
	for _, host := range []string{"vault1", "vault2"} {
		c.wantCopy(host, p, b1, b2, b3)
		c.wantHead("projects", host, 3)
	}
	c.wantHead("projects", "cache1", 3)
	a := c.acks("projects", "cache1")
	if a.VolumeID != p.id || a.Kind != "cache" || a.Copies != 2 || a.HeadDigest != b3.Digest || len(a.Recent) != 3 {
		t.Errorf("acks of the cache: %+v", a)
	}
	if n := c.log.find("pin the first owner key"); n != 1 {
		t.Errorf("the pinned key was announced %d times", n)
	}
	b4 := p.seal([]int{10}, nil)
	p.put(c.store, b4)
	c.start() // another process
	c.mustOnce()
	c.wantCopy("vault1", p, b1, b2, b3, b4)
	c.wantHead("projects", "vault1", 4)
	if n := c.hosts["vault1"].count(); n != 4+4 {
		t.Errorf("%d objects were sent to vault1, want 8", n)
	}
	c.noneIllegal()
}
