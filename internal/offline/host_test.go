package offline

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/batch"
)

// TestSlots: batch files are found by their names, in order; whatever else an account leaves in the store is passed over, and no link is followed.
func TestSlots(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	put := func(dir, name string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	if slots, err := slotsOf(dir, 0, 0); err != nil || len(slots) != 0 {
		t.Fatal(slots, err)
	}
	for _, at := range []struct {
		epoch batch.Epoch
		seq   batch.Seq
	}{{2, 20001}, {1, 2}, {1, 1}, {2, 2}, {1, 10000}} {
		put(dir, batch.Path(at.epoch, at.seq, at.seq))
	}
	group := filepath.Dir(batch.Path(1, 3, 3))
	put(dir, group+"/.tmp-1")
	put(dir, group+"/deeper/deeper/file")
	put(elsewhere, batch.Path(1, 4, 4))
	must(t, os.Mkdir(filepath.Join(dir, batch.Path(1, 5, 5)), 0o755),
		os.Symlink(filepath.Join(elsewhere, batch.Path(1, 4, 4)), filepath.Join(dir, batch.Path(1, 4, 4))),
		os.Symlink(filepath.Join(elsewhere, "batches/00000001"), filepath.Join(dir, "batches/00000003")))
	for _, tt := range []struct {
		from  uint64
		limit int
		want  []string
	}{
		{0, 0, []string{batch.Path(1, 1, 1), batch.Path(1, 2, 2), batch.Path(2, 2, 2), batch.Path(1, 10000, 10000), batch.Path(2, 20001, 20001)}},
		{2, 2, []string{batch.Path(1, 2, 2), batch.Path(2, 2, 2)}},
		{10001, 0, []string{batch.Path(2, 20001, 20001)}},
		{20002, 0, nil},
	} {
		slots, err := slotsOf(dir, tt.from, tt.limit)
		must(t, err)
		if len(slots) != len(tt.want) {
			t.Errorf("from %d: %v", tt.from, slots)
			continue
		}
		for i, s := range slots {
			if s.name != tt.want[i] {
				t.Errorf("from %d: %s, want %s", tt.from, s.name, tt.want[i])
			}
		}
	}
	must(t, os.RemoveAll(filepath.Join(dir, "batches")), os.Symlink(filepath.Join(elsewhere, "batches"), filepath.Join(dir, "batches")))
	if slots, err := slotsOf(dir, 0, 0); err == nil && len(slots) > 0 {
		t.Errorf("what lies behind a link is listed: %v", slots)
	}
}
