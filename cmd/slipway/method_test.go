package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMethodDocument: every file, function and test that docs/method.md names is there.
func TestMethodDocument(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs/method.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "M") {
			continue
		}
		rows++
		file := ""
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			if strings.HasSuffix(m[1], ".go") {
				file = m[1]
			}
			if !strings.HasSuffix(m[1], ".go") && !defines(t, filepath.Join(root, file), m[1]) {
				t.Errorf("%s: %s has no %s", strings.TrimSpace(cells[1]), file, m[1])
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Error(err)
			}
		}
		dir := ""
		for _, m := range quoted.FindAllStringSubmatch(cells[4], -1) {
			if !strings.HasPrefix(m[1], "Test") {
				dir = m[1]
				continue
			}
			files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
			found := false
			for _, f := range files {
				found = found || defines(t, f, m[1])
			}
			if err != nil || !found {
				t.Errorf("%s: %s has no %s", strings.TrimSpace(cells[1]), dir, m[1])
			}
		}
	}
	if rows < 8 {
		t.Errorf("only %d steps are in the table", rows)
	}
}

// defines tells whether a Go file defines a function or method.
func defines(t *testing.T, file, name string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return false
	}
	return regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + regexp.QuoteMeta(name) + `\(`).Match(text)
}
