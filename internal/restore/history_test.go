package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
)

// past is a volume with a history: seven batches, the sixth of them a full one.
func past(t *testing.T) *volumetest.Volume {
	v := volumetest.New(t, "vault1")
	w := newWriter(t, v)
	dir := w.dir(batch.Root, "dir")
	first := w.file(dir, "report", "one")
	w.file(batch.Root, "odd\xff", "odd")
	w.seal()

	next := func() { w.body = &batch.Body{} }
	in := func(id batch.FileID, change func(*batch.Inode)) {
		n := batch.Inode{ID: id, Mode: unix.S_IFREG | 0o644, Mtime: testTime, Content: v.Content("two, longer")}
		if change != nil {
			change(&n)
		}
		w.body.Inodes = append(w.body.Inodes, n)
	}
	next() // 2: content
	in(first, nil)
	w.seal()
	next() // 3: attributes
	in(first, func(n *batch.Inode) { n.Mode = unix.S_IFREG | 0o600 })
	w.seal()
	next() // 4: another file takes the name, as editors do
	second := w.file(dir, "report", "three")
	w.seal()
	next() // 5: moved with its directory
	w.link(batch.Root, "dir", 0)
	w.link(batch.Root, "moved", dir)
	w.seal()
	next() // 6: everything again; the odd file is not in it
	w.body.Inodes = append(w.body.Inodes, batch.Inode{ID: batch.Root, Mode: unix.S_IFDIR | 0o750, Mtime: testTime},
		batch.Inode{ID: dir, Mode: unix.S_IFDIR | 0o755, Mtime: testTime + int64(dir)})
	in(second, func(n *batch.Inode) { n.Content, n.Mtime = v.Content("three"), testTime+int64(second) })
	w.link(batch.Root, "moved", dir)
	w.link(dir, "report", second)
	w.body.Secret = &v.Secret
	v.Seal(w.body, func(e *batch.Envelope) { e.Full = true })
	next() // 7: a file out of the directory
	w.link(dir, "report", 0)
	w.link(batch.Root, "kept", second)
	w.seal()
	return v
}

func versions(t *testing.T, v *volumetest.Volume, path string) (lines, holes []string) {
	t.Helper()
	list, holes, err := restore.Versions(context.Background(), v.Source(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		lines = append(lines, fmt.Sprintf("%d %s %o %d", x.Seq, x.Change, x.Row.Mode, x.Row.Size))
	}
	return lines, holes
}

func TestVersions(t *testing.T) {
	v := past(t)
	for path, want := range map[string][]string{
		"dir/report":   {"1 created 100644 3", "2 content 100644 11", "3 attributes 100600 11", "4 replaced 100644 5", "5 gone 100644 5"},
		"moved/report": {"5 created 100644 5", "7 gone 100644 5"},
		"kept":         {"7 created 100644 5"},
		"odd\xff":      {"1 created 100644 3", "6 gone 100644 3"},
		"/dir//":       {"1 created 40755 0", "5 gone 40755 0"},
		"":             {"1 created 40750 0"},
	} {
		got, holes := versions(t, v, path)
		if diff := cmp.Diff(want, got); diff != "" || len(holes) > 0 {
			t.Errorf("%q: %s %q", path, diff, holes)
		}
	}
	for path, want := range map[string]error{"dir/none": restore.ErrNotFound, "../dir": restore.ErrPath} {
		if _, _, err := restore.Versions(context.Background(), v.Source(), path); !errors.Is(err, want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestVersionsWithAHole: a batch that no store has is said, and the rest is told.
func TestVersionsWithAHole(t *testing.T) {
	v := past(t)
	found := 0
	for _, dir := range v.Dirs {
		name := filepath.Join(dir, batch.Path(v.Epoch, 2, 2))
		if os.Remove(name) == nil {
			found++
		}
	}
	if found == 0 {
		t.Fatal("no batch was removed")
	}
	got, holes := versions(t, v, "dir/report")
	want := []string{"1 created 100644 3", "3 content 100600 11", "4 replaced 100644 5", "5 gone 100644 5"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s %q", diff, holes)
	}
	if len(holes) != 1 || !strings.Contains(holes[0], "batches 2 to 2 are in no store") {
		t.Errorf("holes %q", holes)
	}
}

func TestFind(t *testing.T) {
	v := past(t)
	find := func(pattern string) (lines []string) {
		list, holes, err := restore.Find(context.Background(), v.Source(), func(name string) bool {
			ok, _ := path.Match(pattern, path.Base(name))
			return ok
		})
		if err != nil || len(holes) > 0 {
			t.Fatal(err, holes)
		}
		for _, f := range list {
			lines = append(lines, fmt.Sprintf("%q %d %d-%d %q", f.Row.Path, f.Row.Size, f.Since.Seq, f.Until.Seq, f.To))
		}
		return lines
	}
	for pattern, want := range map[string][]string{
		"report":  {`"dir/report" 11 1-4 ""`, `"moved/report" 5 4-7 "kept"`},
		"odd*":    {`"odd\xff" 3 1-6 ""`},
		"dir":     {`"dir" 0 1-5 "moved"`},
		"kept":    {`"kept" 5 7-0 ""`},
		"nothing": nil,
	} {
		if diff := cmp.Diff(want, find(pattern)); diff != "" {
			t.Errorf("%s: %s", pattern, diff)
		}
	}
}

func TestDiff(t *testing.T) {
	v := past(t)
	diff := func(first, second batch.Seq, below string) (lines []string) {
		a, b, err := restore.LoadTwo(context.Background(), v.Source(), restore.At{Seq: first}, restore.At{Seq: second})
		if err != nil {
			t.Fatal(err)
		}
		list, err := restore.Diff(a, b, below)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %q %s %s", d.Change, d.Path, d.From, strings.Join(d.What, ","))))
		}
		return lines
	}
	for _, c := range []struct {
		first, second batch.Seq
		below         string
		want          []string
	}{
		{1, 1, "", nil},
		{1, 2, "", []string{`changed "dir/report"  content,time`}},
		{2, 3, "", []string{`changed "dir/report"  mode`}},
		{3, 4, "dir", []string{`changed "dir/report"  content,mode,time`}},
		{4, 5, "", []string{`moved "moved" dir`, `moved "moved/report" dir/report`}},
		{5, 6, "", []string{`removed "odd\xff"`}},
		{6, 7, "", []string{`moved "kept" moved/report`}},
		{7, 6, "", []string{`moved "moved/report" kept`}},
		{1, 7, "odd\xff", []string{`removed "odd\xff"`}},
		{6, 7, "kept", []string{`added "kept"`}},
	} {
		if d := cmp.Diff(c.want, diff(c.first, c.second, c.below)); d != "" {
			t.Errorf("%d to %d, %q: %s", c.first, c.second, c.below, d)
		}
	}
	a, b, err := restore.LoadTwo(context.Background(), v.Source(), restore.At{Seq: 1}, restore.At{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restore.Diff(a, b, "never"); !errors.Is(err, restore.ErrNotFound) {
		t.Errorf("a path that neither has: %v", err)
	}
}
