package offline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/control"
	"slipway/internal/journal"
)

// TestLeftOut: what is excluded is told with the daemon dead, too, and is not counted as pending.
func TestLeftOut(t *testing.T) {
	c := primary(t)
	c.Primary.Source, c.Primary.Exclude, c.Primary.ExcludeLines = t.TempDir(), []string{"*.tmp", "cache/"}, []int{7, 9}
	must(t, os.MkdirAll(filepath.Join(c.Primary.Source, "reports", "cache", "deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(c.Primary.Source, "reports", "x.tmp"), []byte("left out"), 0o644))
	before := write(t, c, &journal.Record{Op: journal.OpCreate, Node: ident(30), Attr: journal.Attr{Mode: isFile, Nlink: 1, Size: 8}, Parent: ident(2), Name: "x.tmp"})
	seal(t, c, before)
	a := reach(t, c)
	const seven, nine = "excluded by line 7 of the configuration", "excluded by line 9 of the configuration"
	rows, err := a.Pending(t.Context(), 0)
	must(t, err)
	for i := range rows {
		rows[i].Since = time.Time{}
	}
	want := []control.PendingRow{
		{Path: "c", State: "written", Bytes: 7, Why: "the daemon is dead"},
		{Path: "reports/cache", State: "excluded", Why: nine}, {Path: "reports/x.tmp", State: "excluded", Bytes: 8, Why: seven},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if rows, err := a.Pending(t.Context(), 2); err != nil || len(rows) != 2 {
		t.Errorf("at most two: %+v, %v", rows, err)
	}
	list, err := a.Status(t.Context())
	must(t, err)
	if list[0].Pending.Files != 1 {
		t.Errorf("status counts %+v", list[0].Pending)
	}
	if e, err := a.Explain(t.Context(), "reports/cache/deep"); err != nil || e.WaitingFor != nine {
		t.Errorf("%+v, %v", e, err)
	}
	if rows, err := a.List(t.Context(), "reports/gone.tmp", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left out by its name, and not there: %+v, %v", rows, err)
	}
	c.Primary.Exclude, c.Primary.ExcludeLines = []string{"/c", "*.tmp", "cache/"}, []int{3, 7, 9}
	must(t, os.WriteFile(filepath.Join(c.Primary.Source, "c"), nil, 0o644))
	if rows, err := reach(t, c).List(t.Context(), "c", false); err != nil || len(rows) != 1 || rows[0].State != "excluded" || rows[0].Batch != 2 {
		t.Errorf("sealed before it was left out: %+v, %v", rows, err)
	}
	must(t, os.Remove(filepath.Join(c.Primary.Source, "c")))
	for path, want := range map[string]string{"reports": "reports/a reports/b reports/cache! reports/x.tmp!", "reports/cache": "reports/cache!", "": "c reports"} {
		rows, err := a.List(t.Context(), path, false)
		var got []string
		for _, r := range rows {
			if r.State == "excluded" && r.Why != "" {
				r.Path += "!"
			}
			got = append(got, r.Path)
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("ls %q: %q, %v, want %s", path, got, err, want)
		}
	}
}
