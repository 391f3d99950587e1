package receive

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/config"
	"slipway/internal/intake"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
	"slipway/internal/store"
)

// rig is a receiver's store into which a volume's batches are published.
type rig struct {
	t   *testing.T
	v   *volumetest.Volume
	cfg *config.Receive
	r   *Receiver
	now time.Time
	log bytes.Buffer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, v: volumetest.New(t, "vault1"), now: time.Unix(1e9, 0)}
	root := t.TempDir()
	dir := filepath.Join(root, "projects")
	must(t, os.Mkdir(dir, 0o755))
	s, err := store.Open(dir, store.Options{})
	must(t, err)
	r.v.Stores[0].Store, r.v.Dirs[0] = s, dir
	data, err := json.Marshal(state.Volume{Format: 1, Name: "projects", ID: r.v.ID})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, intake.VolumeFile), data, 0o640))
	r.cfg = &config.Receive{Node: "vault1", Name: "vault1", Store: root, State: t.TempDir(), Owners: map[string][]string{"projects": {r.v.Owner.Key}}}
	r.restart()
	return r
}

// restart makes a Receiver as after the start of a process.
func (r *rig) restart() {
	r.t.Helper()
	var err error
	r.r, err = New(Options{Config: r.cfg, Now: func() time.Time { return r.now }, Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	must(r.t, err)
}

// seal publishes a batch with one file.
func (r *rig) seal(content string) {
	r.t.Helper()
	id := batch.FileID(r.v.Next + 1)
	pieces := r.v.Pieces([]byte(content), chunk.Max)
	r.v.Seal(&batch.Body{
		Inodes:  []batch.Inode{{ID: id, Mode: unix.S_IFREG | 0o644, Content: &batch.Content{Size: int64(len(content)), Pieces: pieces, Clean: true}}},
		Entries: []batch.Entry{{Parent: batch.Root, Name: strings.Repeat("f", int(id)), ID: id}},
	}, nil)
}

// step looks once at everything, some time later.
func (r *rig) step() {
	r.t.Helper()
	r.now = r.now.Add(time.Minute)
	for _, v := range r.r.Discover(r.t.Context()) {
		v.ArriveOnce(r.t.Context())
	}
}

func (r *rig) row() Row {
	r.t.Helper()
	rows, err := List(r.t.Context(), r.cfg)
	must(r.t, err)
	if len(rows) != 1 {
		r.t.Fatalf("%d volumes: %+v", len(rows), rows)
	}
	return rows[0]
}

func TestAccepts(t *testing.T) {
	r := newRig(t)
	if row := r.row(); row.State != "waiting" || row.Batch != 0 {
		t.Errorf("nothing has come: %+v", row)
	}
	r.seal("one")
	r.seal("two")
	r.step()
	row := r.row()
	if row.State != "ok" || row.Batch != 2 || row.Node != "alpha" || row.Epoch != 1 || row.Bytes == 0 || row.SealedAt == nil || row.Refused != 0 {
		t.Errorf("two batches: %+v", row)
	}
	r.restart()
	r.seal("three")
	r.step()
	if row := r.row(); row.Batch != 3 {
		t.Errorf("after a restart: %+v", row)
	}
	list, err := r.r.Status(t.Context())
	if err != nil || len(list) != 1 || list[0].HeadBatch != 3 || list[0].Role != "receiver" {
		t.Errorf("status %+v, %v", list, err)
	}
	if rows, err := r.r.Batches(t.Context(), "", 2, 0); err != nil || len(rows) != 2 || rows[0].Volume != "projects" || rows[0].Seq != 2 {
		t.Errorf("batches %+v, %v", rows, err)
	}
}

// An unknown owner's batch is set aside and counted; the volume of somebody who was never named is not touched.
func TestStrangers(t *testing.T) {
	r := newRig(t)
	r.seal("one")
	r.v.Owner = volumetest.NewOwner(t, "mallory")
	r.seal("two")
	must(t, os.Mkdir(filepath.Join(r.cfg.Store, "other"), 0o755))
	r.step()
	rows, err := List(t.Context(), r.cfg)
	must(t, err)
	if len(rows) != 2 || rows[0].Volume != "other" || rows[0].State != "refused" || rows[1].Batch != 1 || rows[1].Refused != 1 {
		t.Errorf("%+v", rows)
	}
	if !strings.Contains(r.log.String(), `volume=other`) {
		t.Errorf("the log says nothing of the stranger:\n%s", r.log.String())
	}
	if kept, err := filepath.Glob(filepath.Join(r.v.Dirs[0], "refused", "*")); err != nil || len(kept) == 0 {
		t.Errorf("what was refused is not kept: %v, %v", kept, err)
	}
}

// The first key seen is not believed.
func TestFirstIsStranger(t *testing.T) {
	r := newRig(t)
	r.v.Owner = volumetest.NewOwner(t, "mallory")
	r.seal("one")
	r.step()
	if row := r.row(); row.Batch != 0 || row.Refused != 1 || row.State != "waiting" {
		t.Errorf("%+v", row)
	}
}

// Over its quota a volume is kept as it is, and goes on when there is room again.
func TestQuota(t *testing.T) {
	r := newRig(t)
	r.cfg.Quotas = map[string]int64{"projects": 20_000}
	r.seal("one")
	r.step()
	var big strings.Builder
	for i := range 40_000 {
		big.WriteByte(byte(i * i >> 7)) // does not compress to nothing
	}
	r.seal(big.String())
	r.step()
	if row := r.row(); row.Bytes > 20_000 && (row.State != "full" || row.Batch != 1) || row.Bytes <= 20_000 {
		t.Fatalf("over the quota: %+v", row)
	}
	r.cfg.Quotas["projects"] = 1 << 20
	r.step()
	if row := r.row(); row.State != "ok" || row.Batch != 2 || row.Quota != 1<<20 {
		t.Errorf("with room again: %+v", row)
	}
}
