package offline

import (
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/control"
)

// last returns what the daemon last wrote, by volume.
func (h *Host) last() map[string]control.Status {
	byVolume := map[string]control.Status{}
	list, _ := control.LastStatus(h.state) // without it there are the acks
	for _, st := range list {
		byVolume[st.Volume] = st
	}
	return byVolume
}

// known returns what is known of each store: its acks where they lie here, and else what the daemon last wrote.
func known(acks []ack.Acks, last []control.StoreStatus, head uint64) (list []control.StoreStatus) {
	seen := map[string]bool{}
	for _, a := range acks {
		seen[a.Store] = true
		list = append(list, storeStatus(a, head))
	}
	for _, st := range last {
		if !seen[st.Name] {
			st.LagBatches = max(0, int64(head)-int64(st.Batch))
			list = append(list, st)
		}
	}
	return list
}

func storeStatus(a ack.Acks, head uint64) control.StoreStatus {
	s := control.StoreStatus{
		Name: a.Store, Kind: a.Kind, URL: a.URL, Batch: uint64(a.Head), State: a.Word(), Error: a.Error,
		LagBatches: max(0, int64(head)-int64(a.Head)),
	}
	if s.State == "ok" && s.LagBatches > 0 {
		s.State = "waiting"
	}
	if s.LagBatches > 0 {
		s.LagSeconds = max(0, time.Since(a.At).Seconds())
	}
	return s
}

// heads are how far the stores are that a host knows of.
type heads struct {
	own      batch.Seq
	peer     bool
	need     int // backup hosts that make a batch stored
	stores   []control.StoreStatus
	verified []batch.Seq
}

func (h *Host) heads(acks []ack.Acks, last control.Status) *heads {
	t := &heads{peer: h.role == "peer", need: last.Copies, stores: known(acks, last.Stores, 0)}
	for _, a := range acks {
		if a.Store == h.name {
			t.own = a.Head
		}
		if a.Copies > 0 {
			t.need = a.Copies
		}
		if a.Kind == "backup" {
			t.verified = append(t.verified, a.Verified)
		}
	}
	if t.need = max(1, t.need); h.role == "cache" {
		t.need = h.copies
	}
	return t
}

// row says where a batch is, as the daemon would. One that was not acknowledged here is not known to be whole.
func (t *heads) row(volume string, b batchlist.Row) control.BatchRow {
	r := control.BatchRow{
		Volume: volume, Epoch: uint32(b.Epoch), Seq: uint64(b.Seq), SealedAt: b.SealedAt, Files: b.Files, Bytes: b.Bytes, Shards: b.Shards,
	}
	stage := control.Cached
	if t.peer {
		stage = control.Replicated
	}
	for _, st := range t.stores {
		if st.Batch < r.Seq {
			continue
		}
		r.Stores = append(r.Stores, st.Name)
		switch st.Kind {
		case "cache":
			stage = control.Cached
		case "backup":
			r.Copies++
		}
	}
	verified := 0
	for _, seq := range t.verified {
		if seq >= b.Seq {
			verified++
		}
	}
	switch {
	case b.Seq > t.own:
		stage = control.Sealed
	case verified >= t.need:
		stage = control.Verified
	case r.Copies >= t.need:
		stage = control.Stored
	}
	r.Stage = stage.String()
	return r
}
