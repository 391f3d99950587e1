package durability

import (
	"testing"

	"slipway/internal/config"
	"slipway/internal/control"
)

func newRules(t *testing.T, exclude []string, rules ...config.Durability) *Rules {
	t.Helper()
	r, err := New(&config.Primary{Durability: rules, Exclude: exclude})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRules(t *testing.T) {
	r := newRules(t, []string{"*.tmp"},
		config.Durability{Path: "db/**", Stage: "cached"},
		config.Durability{Path: "db/scratch", Stage: "local"},
		config.Durability{Path: "mail/*.eml", Stage: "replicated"},
		config.Durability{Path: "/top", Stage: "stored"},
	)
	for path, want := range map[string]control.Stage{
		"db/a": control.Cached, "db/x/y": control.Cached, "db": control.Pending, "other/db/a": control.Pending,
		"db/scratch": control.Pending, "db/scratch/a": control.Pending, // the last one decides
		"mail/1.eml": control.Replicated, "mail/1.txt": control.Pending, "mail/x/1.eml": control.Pending,
		"top": control.Stored, "sub/top": control.Pending,
		"db/a.tmp": control.Pending, // is left out
	} {
		if got := r.File(path); got != want {
			t.Errorf("file %s: %v, want %v", path, got, want)
		}
	}
	for path, want := range map[string]control.Stage{
		".": control.Stored, "db": control.Cached, "db/x": control.Cached, "db/scratch": control.Pending,
		"mail": control.Replicated, "mail/x": control.Pending, "sub": control.Pending,
	} {
		if got := r.Dir(path); got != want {
			t.Errorf("directory %s: %v, want %v", path, got, want)
		}
	}
}

// TestRulesAnywhere: what a pattern may match in every directory, the names of every directory are about.
func TestRulesAnywhere(t *testing.T) {
	for _, pattern := range []string{"*.db", "**/a.db", "/**/a.db"} {
		r := newRules(t, nil, config.Durability{Path: pattern, Stage: "cached"})
		for path, want := range map[string]control.Stage{"a.db": control.Cached, "x/a.db": control.Cached, "x/a": control.Pending} {
			if got := r.File(path); got != want {
				t.Errorf("%s: file %s: %v, want %v", pattern, path, got, want)
			}
		}
		if r.Dir(".") != control.Cached || r.Dir("x") != control.Cached {
			t.Errorf("%s: directories %v, %v", pattern, r.Dir("."), r.Dir("x"))
		}
	}
	r := newRules(t, nil, config.Durability{Path: "*.db", Stage: "cached"}, config.Durability{Path: "scratch/", Stage: "local"})
	if r.Dir("scratch") != control.Pending || r.File("scratch/a.db") != control.Pending || r.Dir(".") != control.Cached {
		t.Errorf("an exception: %v, %v, %v", r.Dir("scratch"), r.File("scratch/a.db"), r.Dir("."))
	}
	r = newRules(t, nil, config.Durability{Path: "mail/*.eml", Stage: "cached"}, config.Durability{Path: "/top", Stage: "sealed"})
	if r.Dir(".") != control.Sealed || r.Dir("") != control.Sealed || r.Dir("mail") != control.Cached {
		t.Errorf("the root: %v, %v, %v", r.Dir("."), r.Dir(""), r.Dir("mail"))
	}
	for _, bad := range []config.Primary{
		{Durability: []config.Durability{{Path: "a", Stage: "odd"}}}, {Durability: []config.Durability{{Path: "a[", Stage: "local"}}},
		{Durability: []config.Durability{{Path: "a", Stage: "local"}}, Exclude: []string{"a["}},
	} {
		if r, err := New(&bad); err == nil {
			t.Errorf("%+v is taken: %+v", bad, r)
		}
	}
	if r := newRules(t, nil); r.File("a") != control.Pending || r.Dir(".") != control.Pending {
		t.Error("without rules something is waited for")
	}
}
