package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// durableTo is a primary's configuration in which what lies below db waits for a stage.
func durableTo(stage, timeout string) string {
	return fmt.Sprintf("durability:\n  - {path: \"db/**\", stage: %s}\ndurability_timeout: %s", stage, timeout)
}

// startDurable starts a primary with a directory db, everything in it cached.
func startDurable(t *testing.T, opt siteOptions) *site {
	t.Helper()
	s := newSite(t, opt)
	s.startPrimary()
	must(t, os.Mkdir(filepath.Join(s.mount, "db"), 0o755))
	s.wait("sealed")
	return s
}

// sync writes to an open file and syncs it.
func syncWrite(t *testing.T, f *os.File, text string) (took time.Duration) {
	t.Helper()
	_, err := f.WriteString(text)
	must(t, err)
	began := time.Now()
	must(t, f.Sync())
	return time.Since(began)
}

// TestFsyncCached: the moment fsync returns, everything of this node may be lost, and the cache has what was written. The file stays open.
func TestFsyncCached(t *testing.T) {
	s := startDurable(t, siteOptions{plain: true, primary: durableTo("cached", "10s")})
	f, err := os.Create(filepath.Join(s.mount, "db/journal"))
	must(t, err)
	defer f.Close() //nolint:errcheck // the mount is gone by then
	want := ""
	for i := range 5 {
		line := fmt.Sprintf("transaction %d\n", i)
		want += line
		t.Logf("fsync took %v", syncWrite(t, f, line).Round(time.Millisecond))
	}
	s.primary.crash()
	must(t, os.RemoveAll(filepath.Join(s.dir, "state")))
	must(t, os.RemoveAll(s.source))
	got, err := os.ReadFile(filepath.Join(s.restorePlain("cache1", "--incomplete"), "db/journal"))
	if err != nil || string(got) != want {
		t.Errorf("restored %q, %v; want %q", got, err, want)
	}
}

// crash kills every process of a daemon at once.
func (p *process) crash() {
	for _, pid := range append(descendants(p.cmd.Process.Pid), p.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have died of another's death
	}
	<-p.done
}

// descendants returns the children of a process and theirs.
func descendants(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil && !slices.Contains(all, child) {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// restorePlain restores from a store that is a plain directory.
func (s *site) restorePlain(from string, more ...string) string {
	s.t.Helper()
	target := filepath.Join(s.t.TempDir(), "restored")
	s.slipway(append([]string{"restore", "--from", s.hosts[from].data, "--identity", s.ident, "--target", target}, more...)...)
	return target
}
