package spooler

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"slipway/internal/control"
)

// asked serves the control socket and returns a client of it.
func (r *rig) asked() *control.Client {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return control.Serve(ctx, r.cfg.State, r.s, time.Hour) })
	r.t.Cleanup(func() {
		stop()
		check(r.t, g.Wait())
	})
	c, err := control.Dial(r.cfg.State)
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		c, err = control.Dial(r.cfg.State)
	}
	check(r.t, err)
	return c
}

// TestLeftOut: what is excluded is shown by `spool pending`, `explain` and `ls`, with the line, and is not counted as pending.
func TestLeftOut(t *testing.T) {
	r := newRig(t)
	r.cfg.Exclude, r.cfg.ExcludeLines = []string{"*.tmp", "cache/"}, []int{7, 9}
	r.mount()
	r.open()
	r.mkdir("sub")
	r.mkdir("sub/cache")
	r.create("sub/cache/x", "left out")
	r.create("sub/a.tmp", "left out")
	r.create("sub/kept", "kept")
	r.drain()
	r.write("sub/kept", "once more")
	ask := r.asked()
	var rows []control.PendingRow
	for deadline := time.Now().Add(10 * time.Second); len(rows) == 0 || rows[0].Path != "sub/kept"; { // the journal's writer is on its way
		var err error
		rows, err = ask.Pending(t.Context(), 0)
		check(t, err)
		if time.Now().After(deadline) {
			t.Fatalf("the write is not seen: %+v", rows)
		}
	}
	for i := range rows {
		if rows[i].Since.IsZero() || rows[i].Since.Unix() == 0 {
			t.Errorf("since is missing: %+v", rows[i])
		}
		rows[i].Since = time.Time{}
	}
	want := []control.PendingRow{
		rows[0],
		{Path: "sub/a.tmp", State: "excluded", Bytes: 8, Why: "excluded by line 7 of the configuration"},
		{Path: "sub/cache", State: "excluded", Why: "excluded by line 9 of the configuration"},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	for limit, n := range map[int]int{1: 1, 2: 2, 9: 3} {
		if rows, err := ask.Pending(t.Context(), limit); err != nil || len(rows) != n {
			t.Errorf("at most %d: %+v, %v", limit, rows, err)
		}
	}
	st, err := ask.Status(t.Context())
	check(t, err)
	if st[0].Pending.Files != 1 {
		t.Errorf("status counts %+v", st[0].Pending)
	}
	r.listed(ask)
}

// listed is the second half: what `explain` and `ls` say.
func (r *rig) listed(ask *control.Client) {
	t := r.t
	t.Helper()
	if e, err := ask.Explain(t.Context(), "sub/cache"); err != nil || e.WaitingFor != "excluded by line 9 of the configuration" {
		t.Errorf("explain says %+v, %v", e, err)
	}
	for path, want := range map[string]string{
		"": "sub ", "sub": "sub/a.tmp excluded,sub/cache excluded,sub/kept ", "sub/cache": "sub/cache excluded", "sub/kept": "sub/kept ",
	} {
		rows, err := ask.List(t.Context(), path, false)
		if got := states(rows); got != want || err != nil {
			t.Errorf("ls %q: %q, %v, want %q", path, got, err, want)
		}
	}
	rows2, err := ask.List(t.Context(), "", true)
	if got := states(rows2); got != "sub ,sub/a.tmp excluded,sub/cache excluded,sub/kept " || err != nil {
		t.Errorf("ls -r: %q, %v", got, err)
	}
}

func states(rows []control.ListRow) (list string) {
	for i, r := range rows {
		if i > 0 {
			list += ","
		}
		list += r.Path + " " + r.State
		if (r.Why != "") != (r.State == "excluded") {
			list += "(" + r.Why + ")"
		}
	}
	return list
}
