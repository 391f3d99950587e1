package spooler

import (
	"strings"
	"testing"

	"slipway/internal/ack"
	"slipway/internal/control"
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

// TestBacklog: what a store lacks is counted in files and bytes, for each store from where it is.
func TestBacklog(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	for _, name := range []string{"a", "b", "c"} {
		r.create(name, strings.Repeat(name, 100))
		r.drain()
	}
	v := r.s.vol
	head := uint64(v.meta.Head)
	list := []control.StoreStatus{
		{Name: "alpha", Batch: head}, {Name: "cache1", Batch: head - 1, LagBatches: 1}, {Name: "vault1", Batch: head - 2, LagBatches: 2},
		{Name: "vault2", Batch: 0, LagBatches: countAtMost + 1},
	}
	v.addBacklog(list)
	for i, want := range []int64{0, 1, 2, 0} {
		if list[i].LagFiles != want || list[i].LagBytes != 100*want {
			t.Errorf("%s lacks %d files, %d bytes, want %d files", list[i].Name, list[i].LagFiles, list[i].LagBytes, want)
		}
	}
}
