package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestManPages makes the man pages: groff finds nothing wrong with any, and every command that is shown in a help has one.
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	commands, err := exec.Command(binary, "commands").Output()
	must(t, err)
	gen := exec.Command("go", "run", "slipway/tools/man", "../docs", dir)
	gen.Stdin = bytes.NewReader(commands)
	if out, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wanted := []string{"slipway.yml.5", "slipway-format.7", "mount.fuse.slipway.8"}
	for _, path := range shownCommands(t, "slipway") {
		wanted = append(wanted, strings.ReplaceAll(path, " ", "-")+".1")
	}
	if len(wanted) < 40 {
		t.Errorf("only %d pages: %v", len(wanted), wanted)
	}
	for _, name := range wanted {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		// man's own check: undefined requests and fonts, lines that do not fit.
		check := exec.Command("man", "--warnings=all", "-E", "UTF-8", "-l", "-")
		check.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8")
		check.Stdin = bytes.NewReader(page)
		var text, warnings bytes.Buffer
		check.Stdout, check.Stderr = &text, &warnings
		if err := check.Run(); err != nil || warnings.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, warnings.String())
		}
		for _, part := range []string{"NAME", "DESCRIPTION", "SEE ALSO"} {
			if !strings.Contains(text.String(), part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
	}
	made, err := os.ReadDir(dir)
	if err != nil || len(made) != len(wanted) {
		t.Errorf("%d pages, %d are wanted: %v", len(made), len(wanted), err)
	}
}

// shownCommands are a command and those below it, as the help shows them.
func shownCommands(t *testing.T, path string) []string {
	t.Helper()
	help, err := exec.Command(binary, append(strings.Fields(path)[1:], "--help")...).Output()
	must(t, err)
	list := []string{path}
	_, below, found := strings.Cut(string(help), "Available Commands:\n")
	if !found {
		return list
	}
	below, _, _ = strings.Cut(below, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^  (\S+)`).FindAllStringSubmatch(below, -1) {
		if m[1] != "help" { // cobra's own, the same as --help
			list = append(list, shownCommands(t, path+" "+m[1])...)
		}
	}
	return list
}
