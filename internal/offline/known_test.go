package offline

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/restore/volumetest"
)

// TestPeer: of the stores whose acks do not lie here, a dead peer's last words count; and a batch that nobody has acknowledged here yet
// is only sealed, as far as is known.
func TestPeer(t *testing.T) {
	v := volumetest.New(t, "bravo")
	for range 4 {
		v.Seal(&batch.Body{Inodes: []batch.Inode{{ID: batch.Root, Mode: isDirectory}}}, func(e *batch.Envelope) { e.Volume = "projects" })
	}
	s := v.Stores[0].Store
	must(t, s.Publish(t.Context(), "volume.json", []byte(`{"format":1}`)))
	must(t, ack.Write(t.Context(), s, ack.Acks{Format: 1, VolumeID: v.ID, Epoch: 1, At: time.Now().Add(-time.Hour), Store: "bravo", Kind: "replica", Head: 3}))
	c := &config.Config{Peer: &config.Peer{Node: "bravo", Name: "bravo", Store: filepath.Dir(v.Dirs[0]), State: t.TempDir()}}
	stages := func() string {
		t.Helper()
		rows, err := AllBatches(t.Context(), reach(t, c))
		must(t, err)
		var list []string
		for _, r := range rows {
			list = append(list, fmt.Sprint(r.Stage, r.Copies, r.Stores))
		}
		return strings.Join(list, " ")
	}
	if got, want := stages(), "replicated0 [bravo] replicated0 [bravo] replicated0 [bravo] sealed0 []"; got != want {
		t.Errorf("without a last word: %s, want %s", got, want)
	}
	said := time.Now().Add(-time.Minute).Round(0)
	lastStatus(t, c.State(), control.Status{Volume: "projects", Role: "peer", HeadBatch: 3, Complete: true, Copies: 2, At: said, Stores: []control.StoreStatus{
		{Name: "bravo", Kind: "replica", Batch: 2}, {Name: "cache1", Kind: "cache", Batch: 2, State: "down"},
		{Name: "vault1", Kind: "backup", Batch: 2}, {Name: "vault2", Kind: "backup", Batch: 1},
	}})
	want := "stored2 [bravo cache1 vault1 vault2] cached1 [bravo cache1 vault1] replicated0 [bravo] sealed0 []"
	if got := stages(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	list, err := Status(t.Context(), c)
	must(t, err)
	st := list[0]
	if !st.Complete || !st.At.Equal(said) || st.HeadBatch != 3 || len(st.Stores) != 4 || st.Daemon != control.Dead || !st.Stale {
		t.Errorf("%+v", st)
	}
	if cache := st.Stores[1]; cache.State != "down" || cache.LagBatches != 1 {
		t.Errorf("%+v", cache)
	}
}

// TestVerified: how many hosts make a batch stored, or verified, is the cache's word, and the cache host's own configuration there.
func TestVerified(t *testing.T) {
	acks := []ack.Acks{{Store: "cache1", Kind: "cache", Head: 9, Copies: 2}, {Store: "vault1", Kind: "backup", Head: 9, Verified: 5}, {Store: "vault2", Kind: "backup", Head: 8, Verified: 7}}
	for _, c := range []struct {
		host Host
		want string
	}{
		{Host{role: "peer", name: "cache1"}, "verified stored stored cached"},
		{Host{role: "cache", name: "cache1", copies: 1}, "verified verified stored stored"},
	} {
		told := c.host.heads(acks, control.Status{})
		var got []string
		for _, seq := range []batch.Seq{5, 7, 8, 9} {
			got = append(got, told.row("projects", batchlist.Row{Seq: seq}).Stage)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %s", c.host.role, got, c.want)
		}
	}
}

// TestCopiesOfTheCache: what makes a batch stored is the cache's word where the primary's configuration has none.
func TestCopiesOfTheCache(t *testing.T) {
	v := &Volume{cfg: &config.Primary{}, last: control.Status{Copies: 2, Stores: []control.StoreStatus{
		{Name: "cache1", Kind: "cache", Batch: 5}, {Name: "vault1", Kind: "backup", Batch: 5}, {Name: "vault2", Kind: "backup", Batch: 4},
	}}}
	for seq, want := range map[uint64]control.Stage{4: control.Stored, 5: control.Cached} {
		if got, _ := v.stage(seq); got != want {
			t.Errorf("batch %d: %v, want %v", seq, got, want)
		}
	}
}
