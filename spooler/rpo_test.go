package spooler

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/config"
	"slipway/internal/control"
)

// late returns what status says is late some time from now, as level, path and store.
func (r *rig) late(after time.Duration) (list []string) {
	r.t.Helper()
	r.skew = after
	defer func() { r.skew = 0 }()
	st, err := r.s.Status(context.Background())
	check(r.t, err)
	for _, a := range st[0].Alarms {
		if a.Event != control.BehindRPO {
			continue
		}
		list = append(list, strings.TrimSpace(strings.Join([]string{a.Level, a.Path, a.Store}, " ")))
		if !strings.Contains(strings.Join(st[0].Warnings, "\n"), a.Message) {
			r.t.Errorf("not among the warnings: %s", a.Message)
		}
	}
	return list
}

// TestLatePaths: a path's own deadline holds for what is pending below it, as it is called now, and for what was sealed and is not on the cache.
func TestLatePaths(t *testing.T) {
	r := newRig(t)
	r.cfg.RPO = config.RPO{Deadline: config.Deadline{Error: time.Hour}, Paths: []config.PathDeadline{
		{Path: "db/", Deadline: config.Deadline{Warn: 5 * time.Second, Error: 30 * time.Second}}, {Path: "*.key", Deadline: config.Deadline{Error: 10 * time.Second}},
	}}
	expect := func(when string, after time.Duration, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, r.late(after)); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	fold := func() {
		t.Helper()
		v := r.s.vol
		v.mu.Lock()
		defer v.mu.Unlock()
		check(t, v.tree.Within(func() error {
			_, err := v.mirror.Fold()
			return err
		}))
	}
	r.mount()
	r.open()
	r.mkdir("db")
	r.mkdir("other")
	r.create("other/file", "1")
	r.drain()
	delivered := func() {
		t.Helper()
		_, err := r.cachePusher().PushOnce(t.Context())
		check(t, err)
	}
	delivered()
	expect("nothing is pending", 20*time.Second)

	r.write("other/file", "22")
	fold()
	expect("below no path", 20*time.Second)
	r.rename("other/file", "db/file", 0)
	fold()
	expect("it has been moved there", 4*time.Second)
	expect("it warns", 20*time.Second, "warning db/")
	expect("it is an error", 40*time.Second, "error db/")
	r.rename("db", "dc", 0)
	fold()
	expect("its directory is called otherwise", 40*time.Second)
	r.rename("dc", "db", 0)
	r.drain()
	expect("sealed, and not on the cache", 20*time.Second, "warning db/ cache1")
	expect("for longer", 40*time.Second, "error db/ cache1")
	delivered()
	expect("on the cache", 40*time.Second)

	r.create("other/x.key", "1")
	r.drain()
	expect("another path", 40*time.Second, "error *.key cache1")
	r.create("other/y", "1")
	r.drain()
	delivered()
	r.create("other/z", "1")
	r.drain()
	expect("no path at all", 40*time.Second)
	r.close()
	r.open()
	expect("of what was sealed before the start nothing is known", 40*time.Second, "error db/ cache1", "error *.key cache1")
	delivered()
	expect("on the cache", 40*time.Second)
	r.remove("other/x.key")
	r.drain()
	expect("a removal is a change", 40*time.Second, "error *.key cache1")
	delivered()
	r.remove("db/file")
	r.drain()
	expect("there too", 40*time.Second, "error db/ cache1")
	expect("everything", 2*time.Hour, "error  cache1", "error db/ cache1")
}
