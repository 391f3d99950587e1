package config

import (
	"path/filepath"
	"testing"
)

// TestExamples: the packages' example configurations have no faults.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../dist/examples/*.yml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if _, err := Load(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
