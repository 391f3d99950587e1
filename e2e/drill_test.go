package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDrill: a sample comes back from each backup host and is compared with the files; a flipped byte fails, by file and host, a silent host
// fails, and the others are drilled all the same. The daemon's status, metrics and hook have it.
func TestDrill(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	s := newSite(t, siteOptions{ship: "  when: [{age: 0s}]\n  copies: 2\n  verify_after: 1d\n", primary: pageOn +
		"\nhooks: {verification_failed: [/bin/sh, \"-c\", 'echo \"$SLIPWAY_EVENT|$SLIPWAY_STORE|$SLIPWAY_MESSAGE\" >> " + told + "']}"})
	s.start()
	t.Setenv("TMPDIR", t.TempDir())
	page := s.pageOf(s.primary)
	must(t, os.MkdirAll(filepath.Join(s.mount, "dir"), 0o755))
	for i := range 30 {
		must(t, os.WriteFile(filepath.Join(s.mount, "dir", fmt.Sprint(i)), []byte(strings.Repeat(fmt.Sprint("content ", i), 1000)), 0o644))
	}
	s.wait("stored")
	must(t, os.WriteFile(filepath.Join(s.mount, "newest \xff"), []byte("some content of its own"), 0o644))
	s.wait("stored")
	drill := func(more ...string) (string, int) {
		return s.try(append([]string{"doctor", "--drill", "-c", s.config, "--identity", s.ident}, more...)...)
	}
	row := func(store string) map[string]any {
		for _, d := range s.status(s.config)["drills"].([]any) {
			if d := d.(map[string]any); d["store"] == store {
				return d
			}
		}
		return nil
	}

	if out, code := s.try("doctor", "--drill", "-c", s.config); code != 2 || !strings.Contains(out, "--identity is missing") {
		t.Errorf("without an identity: exit code %d\n%s", code, out)
	}
	out, code := drill()
	if code != 0 || strings.Count(out, "passed  vault") != 2 || !strings.Contains(out, ": 20 files,") || !strings.Contains(out, "20 compared with the source") || !strings.Contains(out, "--seed ") {
		t.Errorf("sound hosts: exit code %d\n%s", code, out)
	}
	if d := row("vault1"); d["passed"] != true || d["files"] != 20.0 {
		t.Errorf("status: %v", d)
	}
	if out := s.slipway("status", "-c", s.config); strings.Count(out, "last drill: passed") != 2 || !strings.Contains(out, "from vault2") {
		t.Errorf("status:\n%s", out)
	}
	if _, body := fetch(t, page+"metrics"); !strings.Contains(body, `slipway_drill_success{store="vault2",volume="projects"} 1`) {
		t.Errorf("metrics:\n%s", body)
	}

	s.flipByte("vault1")
	out, code = drill("--files", "100", "--json", "--seed", "7")
	var failed string
	for line := range strings.Lines(out) {
		if strings.Contains(line, `"passed":false`) {
			failed += line
		}
	}
	if code != 4 || strings.Count(failed, "\n") != 1 || !strings.Contains(failed, `"store":"vault1"`) || !strings.Contains(failed, `"path":"newest `) ||
		!strings.Contains(failed, `"path_b64":"`) || !strings.Contains(failed, `"seed":7`) || !strings.Contains(out, `"store":"vault2","at"`) {
		t.Errorf("a flipped byte: exit code %d\n%s", code, out)
	}
	s.eventually(20*time.Second, "the hook", func() error {
		if data, _ := os.ReadFile(told); !strings.Contains(string(data), "verification_failed|vault1|the drill of vault1 at ") {
			return fmt.Errorf("told %q", data)
		}
		return nil
	})
	if d := row("vault1"); d["passed"] != false || !strings.Contains(fmt.Sprint(d["problem"]), "newest") {
		t.Errorf("status: %v", d)
	}

	s.hosts["vault1"].down()
	out, code = drill()
	if code != 4 || !strings.Contains(out, "failed  vault1") || !strings.Contains(out, "connection refused") || !strings.Contains(out, "passed  vault2") {
		t.Errorf("a silent host: exit code %d\n%s", code, out)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "slipway-drill-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
