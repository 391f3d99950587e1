package sender

import (
	"testing"

	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// TestOrderBeforeTheFirstStep: an operator may be faster than the loop; the claim is of the present epoch all the same.
func TestOrderBeforeTheFirstStep(t *testing.T) {
	own, err := store.Open(t.TempDir(), store.Options{})
	must(t, err)
	cache, err := store.Open(t.TempDir(), store.Options{})
	must(t, err)
	id := batch.NewVolumeID()
	s := New(Options{
		Node: "bravo", VolumeID: id, Volume: "projects", Own: own, Cache: Place{Name: "cache1", Store: cache},
		Present: func() Present { return Present{Epoch: 3, Owner: "alpha", Peers: []string{"bravo", "charlie"}} },
		Pusher:  push.New(push.Target{Name: "cache1", Kind: "cache", Dest: cache, Own: own}),
	})
	must(t, s.Do(t.Context(), "pin", "charlie"))
	c, found, err := claim.Newest(t.Context(), cache, id, 3)
	if err != nil || !found || c.Term != 1 || c.Node != "charlie" {
		t.Errorf("claim %+v, %v, %v", c, found, err)
	}
}
