package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestInterrupted: who interrupts is told that, and neither in Go's words nor with what failed only because of it.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"src", "mnt", "state"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "p.yml")
	text := fmt.Sprintf("volume: projects\nnode: alpha\nsource: %[1]s/src\nmount: %[1]s/mnt\nstate: %[1]s/state\ncache: {url: %[1]s/cache}\n"+
		"recipients: [age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa]\n", dir)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	root := newRoot()
	root.SetArgs([]string{"doctor", "-c", path})
	var out, errs bytes.Buffer
	root.SetOut(&out)
	ran, err := root.ExecuteContextC(ctx)
	if code := report(&errs, ran, err); code != exitSignal || errs.String() != "slipway: interrupted\n" || out.Len() > 0 {
		t.Errorf("code %d, %q, %q", code, errs.String(), out.String())
	}
}
