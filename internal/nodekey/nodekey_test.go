package nodekey

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/keys"
	"slipway/internal/store"
)

func newKey(t *testing.T, node string) string {
	t.Helper()
	signer, err := keys.EnsureNodeKey(filepath.Join(t.TempDir(), "node.key"), node)
	if err != nil {
		t.Fatal(err)
	}
	return keys.PublicLine(signer)
}

func TestPublishAndRead(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(ctx, s, "bravo"); !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("nothing there: %v", err)
	}
	line := newKey(t, "bravo")
	for range 2 {
		if err := Publish(ctx, s, "bravo", line); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Read(ctx, s, "bravo"); err != nil || got != line {
		t.Fatalf("%q %v", got, err)
	}
	for name, text := range map[string]string{"rsa": "ssh-rsa AAAA bravo\n", "two": line + "\n" + line + "\n", "none": "", "large": line + strings.Repeat(" ", maxFile)} {
		if err := os.WriteFile(filepath.Join(dir, "keys/bravo.pub"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(ctx, s, "bravo"); err == nil {
			t.Errorf("%s: taken for a key: %q", name, got)
		}
	}
	if err := Publish(ctx, s, "bravo", line); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(ctx, s, "bravo"); err != nil || got != line {
		t.Fatalf("what lay there was not replaced: %q %v", got, err)
	}
	if _, err := Read(ctx, s, "../bravo"); err == nil {
		t.Error("a name that leads elsewhere was read")
	}
}

func TestFirstContact(t *testing.T) {
	k := Known(filepath.Join(t.TempDir(), "peers"))
	first, second := newKey(t, "bravo"), newKey(t, "bravo")
	if got, err := k.Get("bravo"); got != "" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	for range 2 {
		if err := k.Meet("bravo", first); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Meet("bravo", second); !errors.Is(err, ErrOther) {
		t.Fatalf("another key: %v", err)
	}
	if got, err := k.Get("bravo"); got != first || err != nil {
		t.Fatalf("recorded %q %v", got, err)
	}
	if err := os.WriteFile(k.path("bravo"), []byte("ssh-"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Meet("bravo", second); err == nil {
		t.Error("a damaged record let another key in")
	}
}
