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
	r.s.stages.Acked([]ack.Acks{
		{Store: "vault1", Kind: "backup"}, {Store: "vault2", Kind: "backup", Error: "another host key", State: ack.Refused},
		{Store: "vault3", Kind: "backup", Error: "no answer"}, {Store: "vault4", Kind: "backup", Error: "no room", Full: true},
		{Store: "vault5", Kind: "backup", Waits: &ack.Wait{From: 1, For: "the window 22:00-06:00"}},
	})
	st, err := r.s.Status(t.Context())
	check(t, err)
	want := map[string]string{"vault1": "ok", "vault2": "refused", "vault3": "down", "vault4": "full", "vault5": "waiting"}
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
	rows, err := r.s.Batches(t.Context(), "", 0, 0)
	check(t, err)
	head := rows[len(rows)-1].Seq
	list := []control.StoreStatus{{Name: "vault2", Batch: 0, LagBatches: countAtMost + 1}}
	for _, b := range rows {
		list = append(list, control.StoreStatus{Batch: b.Seq - 1, LagBatches: int64(head - b.Seq + 1)})
	}
	v.addBacklog(list)
	if list[0].LagFiles != 0 {
		t.Errorf("counted although there are so many: %+v", list[0])
	}
	for _, st := range list[1:] {
		var files, bytes int64
		for _, b := range rows {
			if b.Seq > st.Batch {
				files, bytes = files+b.Files, bytes+b.Bytes
			}
		}
		if st.LagFiles != files || st.LagBytes != bytes {
			t.Errorf("from batch %d on %d files, %d bytes; want %d, %d", st.Batch+1, st.LagFiles, st.LagBytes, files, bytes)
		}
	}
	if all := list[1]; all.LagFiles < 3 || all.LagBytes < 300 {
		t.Errorf("all of it: %+v", all)
	}
}
