package store_test

import (
	"os"
	"strings"
	"testing"

	"slipway/internal/sshd"
	"slipway/internal/store"
)

// TestPowers: what an account may do beyond what slipway needs is found, and nothing is there afterwards.
func TestPowers(t *testing.T) {
	for want, opt := range map[string]sshd.Options{
		"": {}, "remove, change attributes, link": {AllowAll: true},
	} {
		server, data := serve(t, opt), t.TempDir()
		s := open(t, server.URL(data), options(server))
		for _, s := range []store.Store{s, store.Sub(s, "projects")} {
			got, err := store.Powers(t.Context(), s)
			if err != nil || strings.Join(got, ", ") != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		}
		if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	if got, err := store.Powers(t.Context(), open(t, t.TempDir(), store.Options{})); err != nil || got != nil {
		t.Errorf("a local directory: %q, %v", got, err)
	}
}
