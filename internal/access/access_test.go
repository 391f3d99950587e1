package access

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
	"slipway/internal/store"
)

// volume seals a batch with one file into stores of the given names and returns it with an identity file for it.
func volume(t *testing.T, names ...string) (v *volumetest.Volume, identity string) {
	t.Helper()
	v = volumetest.New(t, names...)
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC).UnixNano()
	v.Seal(&batch.Body{
		Secret: &v.Secret,
		Inodes: []batch.Inode{
			{ID: batch.Root, Mode: 0o40755, Mtime: now},
			{ID: 2, Mode: 0o100644, Mtime: now, Content: v.Content("hello\n")},
			{ID: 3, Mode: 0o40700, Mtime: now}, {ID: 4, Mode: 0o120777, Mtime: now, Target: "../a"},
		},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "a", ID: 2}, {Parent: batch.Root, Name: "dir", ID: 3}, {Parent: 3, Name: "link", ID: 4}},
	}, func(e *batch.Envelope) { e.Complete = true })
	identity = filepath.Join(t.TempDir(), "identity")
	text := fmt.Sprintf("# owner alpha %s\n%s\n", v.Owner.Key, v.Identity)
	if err := os.WriteFile(identity, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return v, identity
}

func open(t *testing.T, r Request) *Volume {
	t.Helper()
	v, err := Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func cat(t *testing.T, v *Volume) string {
	t.Helper()
	tree, err := restore.Load(t.Context(), v.Source, restore.At{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tree.Cat(t.Context(), "a", &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFreshMachine: identity file and store, nothing else; the store's root or the volume's own directory.
func TestFreshMachine(t *testing.T) {
	made, identity := volume(t, "vault1")
	for _, from := range []string{made.Dirs[0], filepath.Dir(made.Dirs[0]), "vault1=" + made.Dirs[0]} {
		v := open(t, Request{From: []string{from}, Identity: identity})
		if got := cat(t, v); got != "hello\n" {
			t.Errorf("%s: %q", from, got)
		}
	}
	v := open(t, Request{From: []string{"vault1=" + filepath.Dir(made.Dirs[0])}, Volume: "projects"})
	if v.Name != "projects" || v.Stores[0].Name != "vault1" || len(v.Owners) != 0 || len(v.IDs) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestConfigured: a primary's stores in the order of nearness, its own key among the owners; those without the volume left out.
func TestConfigured(t *testing.T) {
	made, identity := volume(t, "own", "vault1")
	dir := t.TempDir()
	if err := keys.NewNodeKey(state.Dir(dir).NodeKey(), "alpha"); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Primary: &config.Primary{
		Volume: "projects", Node: "alpha", State: dir, Spool: config.Spool{Dir: filepath.Dir(made.Dirs[0])},
		Cache:   config.Store{Name: "cache1", URL: t.TempDir()},
		Backups: []config.Store{{Name: "vault1", URL: filepath.Dir(made.Dirs[1])}},
	}}
	v := open(t, Request{Config: c, Identity: identity})
	if len(v.Stores) != 2 || v.Stores[0].Name != "alpha" || v.Stores[1].Name != "vault1" || len(v.Owners) != 2 || cat(t, v) != "hello\n" {
		t.Errorf("%+v", v.Source)
	}
	if r := OwnStore(c); !r.Evicts(r.From[0]) || r.Evicts("vault1") || !r.Evicts("cache1") {
		t.Error("wrong stores may evict")
	}
	cache := &config.Config{Cache: &config.Cache{
		Name: "cache1", Store: filepath.Dir(made.Dirs[0]), Owners: map[string][]string{"projects": {made.Owner.Key}, "other": {"k"}},
		Ship: config.Ship{To: []config.Store{{Name: "vault1", URL: filepath.Dir(made.Dirs[1])}}},
	}}
	v = open(t, Request{Config: cache})
	if len(v.Owners) != 1 || v.Owners[0] != made.Owner.Key || v.Stores[0].Name != "cache1" {
		t.Errorf("%+v", v.Source)
	}
	if r := OwnStore(cache); !r.Evicts("cache1") || !r.Evicts(cache.Cache.Store) || r.Evicts("vault1") {
		t.Error("wrong stores may evict")
	}
}

func TestRefused(t *testing.T) {
	made, identity := volume(t, "vault1")
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte(made.Identity.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		r    Request
		want error
	}{
		"nothing named":    {Request{}, ErrUsage},
		"bad URL":          {Request{From: []string{"sftp:host:x"}}, ErrUsage},
		"SSH, but how":     {Request{From: []string{"sftp://a@vault1/data"}, Identity: identity}, ErrUsage},
		"named twice":      {Request{From: []string{"/a", "/a"}}, ErrUsage},
		"one name":         {Request{From: []string{"v=/a", "v=/b"}}, ErrUsage},
		"readable by all":  {Request{From: []string{made.Dirs[0]}, Identity: open}, keys.ErrMode},
		"missing identity": {Request{From: []string{made.Dirs[0]}, Identity: open + "x"}, os.ErrNotExist},
		"nothing there":    {Request{From: []string{t.TempDir()}, Identity: identity}, nil},
		"another volume":   {Request{From: []string{filepath.Dir(made.Dirs[0])}, Volume: "other"}, nil},
	} {
		_, err := Open(t.Context(), tt.r)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseAt(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]restore.At{
		"": {}, "42": {Seq: 42}, "10m ago": {Time: now.Add(-10 * time.Minute)}, "1d ago": {Time: now.Add(-24 * time.Hour)},
		"2026-11-23T10:00:00Z":           {Time: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)},
		"2026-11-23T10:00:00.000000007Z": {Time: time.Date(2026, 11, 23, 10, 0, 0, 7, time.UTC)},
		"2026-11-23T12:00:00+02:00":      {Time: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)},
		"2026-11-23 10:00":               {Time: time.Date(2026, 11, 23, 10, 0, 0, 0, time.Local)},
		"2026-11-23 10:00:30":            {Time: time.Date(2026, 11, 23, 10, 0, 30, 0, time.Local)},
		"2026-11-23":                     {Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.Local)},
	} {
		if got, err := ParseAt(in, now); err != nil || got.Seq != want.Seq || !got.Time.Equal(want.Time) {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
	for _, in := range []string{"yesterday", "0", "-3", "10 ago", "2026-13-01", "10m", "99999999999999999999999"} {
		if got, err := ParseAt(in, now); !errors.Is(err, ErrUsage) {
			t.Errorf("%q is taken as %+v", in, got)
		}
	}
}

func TestRows(t *testing.T) {
	made, _ := volume(t, "vault1")
	tree, err := restore.Load(t.Context(), made.Source(), restore.At{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path      string
		recursive bool
		want      string
	}{
		{"", false, "file a,dir dir"}, {"", true, "file a,dir dir,symlink dir/link"}, {"dir", false, "symlink dir/link"},
		{"dir", true, "symlink dir/link"}, {"a", false, "file a"}, {"a", true, "file a"},
	} {
		rows, err := Rows(tree, tt.path, tt.recursive)
		var got []string
		for _, r := range rows {
			got = append(got, r.Type+" "+r.Path)
		}
		if strings.Join(got, ",") != tt.want || err != nil {
			t.Errorf("%q %v: %q %v", tt.path, tt.recursive, got, err)
		}
	}
	if _, err := Rows(tree, "none", false); err == nil {
		t.Error("a path that is not there is listed")
	}
	rows, _ := Rows(tree, "", true)
	if r := rows[0]; r.Size != 6 || r.Mode != 0o644 || r.Links != 1 {
		t.Errorf("%+v", r)
	}
	if r := rows[2]; r.Target != "../a" || r.Mode != 0o777 {
		t.Errorf("%+v", r)
	}
}

func TestShowBatch(t *testing.T) {
	made, _ := volume(t, "vault1")
	r := Request{From: []string{made.Dirs[0]}}
	b, err := ShowBatch(t.Context(), r, 1)
	if err != nil || b.Last != 1 || b.OwnerKey != made.Owner.Key || len(b.Introduces) != 1 || b.Digest != *made.Prev {
		t.Fatalf("%+v %v", b, err)
	}
	if _, err := ShowBatch(t.Context(), r, 2); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("a batch that is not there: %v", err)
	}
	path := filepath.Join(made.Dirs[0], batch.Path(1, 1, 1))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := []byte(strings.Replace(string(data), `"removals":0`, `"removals":7`, 1))
	if err := errors.Join(os.Remove(path), os.WriteFile(path, spoiled, 0o600)); err != nil {
		t.Fatal(err)
	}
	if b, err := ShowBatch(t.Context(), r, 1); !errors.Is(err, batch.ErrSignature) {
		t.Errorf("a changed envelope is shown: %+v %v", b, err)
	}
}
