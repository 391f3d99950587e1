package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const scratch = ".slipway-doctor-scratch"

// findings are doctor's of a check, as "level: says".
func (s *site) findings(check string) (list []string) {
	s.t.Helper()
	out, code := s.try("doctor", "-c", s.config, "--json")
	if code != 0 {
		s.t.Errorf("doctor: exit code %d\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		var f struct{ Check, Level, Says string }
		if json.Unmarshal([]byte(line), &f) == nil && f.Check == check {
			list = append(list, f.Level+": "+f.Says)
		}
	}
	return list
}

func (s *site) nothingLeft() {
	s.t.Helper()
	for _, dir := range []string{s.dir, s.source, filepath.Join(s.dir, "state")} {
		if _, err := os.Lstat(filepath.Join(dir, scratch)); !os.IsNotExist(err) {
			s.t.Errorf("%s in %s: %v", scratch, dir, err)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), filepath.Join(s.dir, "state")) {
		s.t.Errorf("a mount is left: %v", err)
	}
}

// TestDoctorMounts: doctor mounts by the real mount process and finds out whether data is passed through, also beside the volume's own mount.
func TestDoctorMounts(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	for _, when := range []string{"before", "beside the mount"} {
		if got := s.findings("mount"); len(got) != 1 || !strings.HasPrefix(got[0], "ok: mounted, written and read; the kernel passes data through") {
			t.Errorf("%s: %q", when, got)
		}
		s.nothingLeft()
		if when == "before" {
			s.start()
		}
	}
}

// TestDoctorStacked: on a stacked file system there is no passthrough, and doctor finds out by trying.
func TestDoctorStacked(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	below := t.TempDir()
	options := ""
	for _, name := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(below, name), 0o755))
		options += fmt.Sprintf(",%sdir=%s", name, filepath.Join(below, name))
	}
	must(t, unix.Mount("overlay", s.source, "overlay", 0, options[1:]))
	t.Cleanup(func() { must(t, unix.Unmount(s.source, 0)) })
	if got := s.findings("mount"); len(got) != 1 || !strings.HasPrefix(got[0], "warning: mounted, written and read; every read and write goes through the daemon") {
		t.Errorf("%q", got)
	}
	if got := s.findings("source"); len(got) == 0 || !strings.Contains(got[0], "stacked on another") {
		t.Errorf("%q", got)
	}
	s.nothingLeft()
}
