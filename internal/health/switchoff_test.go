package health

import (
	"testing"

	"slipway/internal/control"
)

// TestAdvise: whether a node may be switched off, for each reason that there is against it.
func TestAdvise(t *testing.T) {
	primary := func(change func(*control.Status)) control.Status {
		s := control.Status{Role: "primary", HeadBatch: 7, Complete: true, Daemon: control.Running, Stores: []control.StoreStatus{
			{Name: "alpha", Kind: "own", Batch: 7, State: "ok"}, {Name: "cache1", Kind: "cache", Batch: 7, State: "ok"}, {Name: "vault1", Kind: "backup", Batch: 7, State: "ok"},
		}}
		change(&s)
		return s
	}
	unsealed := func(s *control.Status) { s.Journal = control.JournalStatus{Head: 9, Sealed: 8} }
	behind := func(st *control.StoreStatus, n int64) { st.Batch, st.LagBatches = 7-uint64(n), n }
	holder := func(role, kind string, lag int64, state string) control.Status {
		return control.Status{Role: role, HeadBatch: 7, Daemon: control.Running, Stores: []control.StoreStatus{
			{Name: "here", Kind: role, Batch: 7, State: "ok"}, {Name: "there", Kind: kind, Batch: uint64(7 - lag), LagBatches: lag, State: state},
		}}
	}
	for _, row := range []struct {
		status control.Status
		safe   bool
		why    string
	}{
		{primary(unsealed), false, "not all is sealed: on this node alone; it waits for: the next batch"},
		{primary(func(s *control.Status) { unsealed(s); s.HeadBatch = 6 }), true, "everything up to batch 6 is in cache1, vault1"}, // only what is excluded
		{primary(func(s *control.Status) { unsealed(s); s.HeadBatch = 4 }), false, "batch 5 was sealed just now: on this node alone until the next look"},
		{primary(func(s *control.Status) { unsealed(s); s.HeadBatch = 5 }), false, "nobody knows: no daemon is running"},
		{primary(func(*control.Status) {}), true, "everything up to batch 7 is in cache1, vault1"},
		{primary(func(s *control.Status) { s.Pending = control.PendingStatus{Files: 1, Bytes: 2048} }), false, "1 file of 2.0 KiB not sealed: on this node alone"},
		{primary(func(s *control.Status) { s.Complete = false }), false, "the files have not all been compared with what was sealed"},
		{primary(func(s *control.Status) { s.Waiting = "a start: 3 directories" }), false, "the files have not all been compared with what was sealed"},
		{primary(func(s *control.Status) { behind(&s.Stores[2], 2) }), true, "everything up to batch 7 is in cache1; not in vault1"},
		{primary(func(s *control.Status) { behind(&s.Stores[1], 1); behind(&s.Stores[2], 2) }), false, "1 batch in no other store that answers"},
		{primary(func(s *control.Status) { s.Stores = s.Stores[:1] }), false, "7 batches in no other store that answers"},
		{primary(func(s *control.Status) { s.Stores[1].State = "down"; behind(&s.Stores[2], 2) }), false, "2 batches in no other store that answers"},
		{primary(func(s *control.Status) { s.Stores[1].State = "down" }), true, "everything up to batch 7 is in vault1; not in cache1, which is down"},
		{primary(func(s *control.Status) { s.Stores[1].State = "refused" }), true, "everything up to batch 7 is in vault1; not in cache1, which is refused"},
		{primary(func(s *control.Status) { s.Stores[1].LagBatches = 1 }), true, "everything up to batch 7 is in vault1; not in cache1"},
		{primary(func(s *control.Status) { s.Stores[1].Batch = 6 }), true, "everything up to batch 7 is in vault1; not in cache1"},
		{primary(func(s *control.Status) { unsealed(s); s.Daemon = control.Dead }), false, "everything up to batch 7 is in cache1, vault1; what has come since the daemon ended is not known"},
		{primary(func(s *control.Status) { s.Daemon = control.Dead }), false, "everything up to batch 7 is in cache1, vault1; what has come since the daemon ended is not known"},
		{primary(func(s *control.Status) { s.Daemon = control.NotAnswering }), false, "everything up to batch 7 is in cache1, vault1; what has come since the daemon last answered is not known"},
		{holder("cache", "backup", 0, "ok"), true, "everything up to batch 7 is in there"},
		{holder("cache", "backup", 2, "ok"), false, "there lacks 2 batches of what lies here"},
		{holder("cache", "backup", 0, "down"), false, "there is down and may lack some of what lies here"},
		{holder("cache", "backup", 2, "full"), false, "there lacks 2 batches of what lies here"},
		{holder("cache", "backup", 0, "full"), true, "everything up to batch 7 is in there"},
		{holder("peer", "cache", 1, "ok"), false, "there lacks 1 batch of what lies here"},
		{holder("peer", "backup", 1, "ok"), false, "nothing else is known to have what lies here"},
	} {
		list := []control.Status{row.status}
		Advise(list, func() (control.Barrier, error) {
			if row.status.HeadBatch == 5 {
				return control.Barrier{}, control.ErrNoDaemon
			}
			return control.Barrier{Sealed: row.status.HeadBatch < 7, Seq: max(5, row.status.HeadBatch), Why: "the next batch"}, nil
		})
		if got := list[0].SwitchOff; got == nil || *got != (control.SwitchOff{Safe: row.safe, Why: row.why}) {
			t.Errorf("%+v, want %v %q", got, row.safe, row.why)
		}
	}
	list := []control.Status{{Role: "receiver", Daemon: control.Running}}
	if Advise(list, nil); list[0].SwitchOff != nil {
		t.Errorf("a receiver: %+v", list[0].SwitchOff)
	}
}
