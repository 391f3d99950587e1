package leftout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/control"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes a tree: names that end in a slash are directories.
func tree(t *testing.T, names ...string) *config.Primary {
	t.Helper()
	cfg := &config.Primary{Source: t.TempDir()}
	for _, n := range names {
		full := filepath.Join(cfg.Source, n)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if strings.HasSuffix(n, "/") {
			must(t, os.MkdirAll(full, 0o755))
		} else {
			must(t, os.WriteFile(full, []byte("content"), 0o644))
		}
	}
	return cfg
}

func open(t *testing.T, cfg *config.Primary) *Finder {
	t.Helper()
	f, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func words(found []Found) string {
	var list []string
	for _, x := range found {
		list = append(list, fmt.Sprintf("%s:%d", x.Path, x.Line))
	}
	return strings.Join(list, " ")
}

// TestIn: a matched directory is one row, and nobody looks below it; the lines are the configuration's.
func TestIn(t *testing.T) {
	cfg := tree(t, "a.tmp", "kept", "cache/deep/x", "sub/cache/y", "sub/b.tmp", "sub/deeper/c.tmp", "build", "sub/build/z")
	cfg.Exclude, cfg.ExcludeLines = []string{"*.tmp", "/cache", "build/", "!keep.tmp"}, []int{11, 12, 14, 15}
	f := open(t, cfg)
	for _, tt := range []struct {
		dir       string
		recursive bool
		limit     int
		want      string
	}{
		{"", false, 0, "a.tmp:11 cache:12"},
		{"", true, 0, "a.tmp:11 cache:12 sub/b.tmp:11 sub/build:14 sub/deeper/c.tmp:11"},
		{"", true, 3, "a.tmp:11 cache:12 sub/b.tmp:11"},
		{"sub", false, 0, "sub/b.tmp:11 sub/build:14"},
		{"cache", false, 0, "cache/deep:12"}, // asked for it by name
		{"kept", true, 0, ""}, {"nowhere", true, 0, ""},
	} {
		found, err := f.In(t.Context(), tt.dir, tt.recursive, tt.limit)
		if got := words(found); got != tt.want || err != nil {
			t.Errorf("%q: %s, %v, want %s", tt.dir, got, err, tt.want)
		}
	}
}

func TestAt(t *testing.T) {
	cfg := tree(t, "a.tmp", "kept", "build/z", "sub/build")
	cfg.Exclude = []string{"*.tmp", "build/"}
	f := open(t, cfg)
	for path, want := range map[string]string{
		"a.tmp": "excluded true", "kept": " true", "gone.tmp": "excluded false", "gone": " false", "build": "excluded true",
		"build/gone": "excluded false", "sub/build": " true", "": " true", "kept/x": " false",
	} {
		x, there := f.At(path)
		if got := fmt.Sprint(x.State, " ", there); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

// TestElsewhere: a file system that is mounted below the source is not the volume's, unless it is asked for by name; a part of its own that is
// mounted there is. What has become a link leads nowhere.
func TestElsewhere(t *testing.T) {
	cfg := tree(t, "a.tmp", "other/", "same/", "sub/b.tmp")
	cfg.Exclude = []string{"*.tmp"}
	other, same := filepath.Join(cfg.Source, "other"), filepath.Join(cfg.Source, "same")
	must(t, unix.Mount("none", other, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(other, 0)) })
	must(t, unix.Mount(filepath.Join(cfg.Source, "sub"), same, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(same, 0)) })
	must(t, os.WriteFile(filepath.Join(other, "c.tmp"), nil, 0o600))
	must(t, os.Symlink("sub", filepath.Join(cfg.Source, "link")))
	f := open(t, cfg)
	for dir, want := range map[string]string{"": "a.tmp:1 same/b.tmp:1 sub/b.tmp:1", "other": "other/c.tmp:1", "link": ""} {
		if found, err := f.In(t.Context(), dir, true, 0); words(found) != want || err != nil {
			t.Errorf("%q: %s, %v, want %s", dir, words(found), err, want)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if found, err := f.In(ctx, "", true, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %+v, %v", found, err)
	}
	if rows, err := f.Mark(ctx, nil, "", true); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %+v, %v", rows, err)
	}
}

// TestUnsearched: what was not looked at is said, and is not taken for a tree in which nothing is left out.
func TestUnsearched(t *testing.T) {
	cfg := tree(t, "a.tmp", "sub/")
	cfg.Exclude = []string{"*.tmp"}
	found, err := open(t, cfg).in(t.Context(), "", true, 0, time.Now())
	if err != nil || len(found) != 1 || found[0].State != Unsearched || found[0].Path != "" || !strings.Contains(found[0].Why, "longer") {
		t.Errorf("out of time: %+v, %v", found, err)
	}
	cfg.Source += "/nowhere"
	rows, err := open(t, cfg).Pending(t.Context(), 0)
	if err != nil || len(rows) != 1 || rows[0].State != Unsearched || !strings.Contains(rows[0].Why, "no such file") {
		t.Errorf("no source: %+v, %v", rows, err)
	}
	cfg.Exclude = nil
	if rows, err := open(t, cfg).Pending(t.Context(), 0); len(rows) != 0 || err != nil {
		t.Errorf("nothing is excluded: %+v, %v", rows, err)
	}
}

func TestMark(t *testing.T) {
	cfg := tree(t, "a/", "a-b", "a/x.tmp", "was.tmp")
	must(t, os.Symlink("target", filepath.Join(cfg.Source, "link.tmp")))
	cfg.Exclude = []string{"*.tmp"}
	sealed := []control.ListRow{{Path: "a"}, {Path: "a/y"}, {Path: "a-b"}, {Path: "was.tmp", Batch: 3, State: "pending"}}
	rows, err := open(t, cfg).Mark(t.Context(), sealed, "", true)
	must(t, err)
	var got []string
	for _, r := range rows {
		got = append(got, r.Path+":"+r.State)
	}
	if want := "a: a/x.tmp:excluded a/y: a-b: link.tmp:excluded was.tmp:excluded"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r := rows[4]; r.Type != "symlink" || r.Target != "target" || r.Why != "excluded by line 1 of the configuration" {
		t.Errorf("%+v", r)
	}
	if r := rows[5]; r.Batch != 3 || r.Why == "" {
		t.Errorf("what was sealed before lost its row: %+v", r)
	}
}
