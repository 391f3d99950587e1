package spooler

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/loopdisk"
)

// TestSpaceWarnings: a disk that is nearly full is told, whose it is too; one with room is not.
func TestSpaceWarnings(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.open()
	state, roomy := r.cfg.State, loopdisk.New(t, "ext4", 16<<20, "") // the machine's own disk may be full
	r.s.opt.Config.State, r.s.vol.ownDir = roomy, roomy
	defer func() { r.s.opt.Config.State = state }()
	warned := func() string {
		list, err := r.s.Status(context.Background())
		check(t, err)
		return strings.Join(list[0].Warnings, "\n")
	}
	if w := warned(); strings.Contains(w, "make room") {
		t.Errorf("with room: %s", w)
	}
	disk := loopdisk.New(t, "ext4", 16<<20, "")
	f, err := os.Create(filepath.Join(disk, "filler"))
	check(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	check(t, f.Close())
	r.s.vol.ownDir = disk
	if w := warned(); !strings.Contains(w, "the own store's disk has 0 B of") || !strings.Contains(w, "make room") {
		t.Errorf("full: %s", w)
	}
}
