package spooler

import (
	"testing"

	"slipway/internal/ack"
)

// TestBackupHostStates: what the acks say of a backup host is what status shows.
func TestBackupHostStates(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	r.s.stages.acked([]ack.Acks{
		{Store: "vault1", Kind: "backup"}, {Store: "vault2", Kind: "backup", Error: "another host key", State: ack.Refused},
		{Store: "vault3", Kind: "backup", Error: "no answer"}, {Store: "vault4", Kind: "backup", Error: "no room", Full: true},
	})
	st, err := r.s.Status(t.Context())
	check(t, err)
	want := map[string]string{"vault1": "ok", "vault2": "refused", "vault3": "down", "vault4": "full"}
	for _, s := range st[0].Stores {
		if s.Kind == "backup" && s.State != want[s.Name] {
			t.Errorf("%s is %s, want %s", s.Name, s.State, want[s.Name])
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}
