package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRPO(t *testing.T) {
	for text, want := range map[string]RPO{
		"":                              {},
		"rpo: 30s\n":                    {Deadline: Deadline{30 * time.Second, 30 * time.Second}},
		"rpo: {warn: 2m}\n":             {Deadline: Deadline{2 * time.Minute, 0}},
		"rpo: {error: 5m}\n":            {Deadline: Deadline{0, 5 * time.Minute}},
		"rpo: {warn: 30s, error: 5m}\n": {Deadline: Deadline{30 * time.Second, 5 * time.Minute}},
		"rpo: {warn: 30s, paths: [{path: db, warn: 5s}]}\n": {Deadline: Deadline{30 * time.Second, 0}, Paths: []PathDeadline{{"db", Deadline{5 * time.Second, 0}}}},
		"rpo:\n  paths:\n    - {path: \"db/\", warn: 5s, error: 30s}\n    - {path: \"*.key\", error: 1s}\n": {
			Paths: []PathDeadline{{"db/", Deadline{5 * time.Second, 30 * time.Second}}, {"*.key", Deadline{0, time.Second}}},
		},
	} {
		c, err := Parse("p.yml", []byte(primaryYAML+text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, c.Primary.RPO); d != "" {
			t.Errorf("%q: %s", text, d)
		}
		late := text == "" || strings.Contains("rpo: {error: 5m}\nrpo: {warn: 2m}\n", text)
		if warns := strings.Contains(strings.Join(c.Warnings, "\n"), "is sealed every open_interval, 1m"); warns == late {
			t.Errorf("%q: warnings %q", text, c.Warnings)
		}
	}
}

func TestRPOFaults(t *testing.T) {
	for text, fault := range map[string]string{
		"rpo: 1ms\n":                    "write at least 1s",
		"rpo: [30s]\n":                  "a duration such as 90s",
		"rpo: {}\n":                     "nothing is asked for",
		"rpo: {warn: 5m, error: 30s}\n": "rpo: warn 5m comes after error 30s",
		"rpo: {error: 5m, paths: [{path: \"db/\"}]}\n":            "rpo.paths[0]: nothing is asked for",
		"rpo: {error: 5m, paths: [{error: 5s}]}\n":                `"rpo.paths[0].path" is missing`,
		"rpo: {error: 5m, paths: [{path: \"!x\", error: 5s}]}\n":  "cannot be negated",
		"rpo: {error: 5m, paths: [{path: \"a[\", error: 5s}]}\n":  `"a[" matches nothing`,
		"rpo: {error: 5m, paths: [{path: \"#x\", error: 5s}]}\n":  "matches nothing",
		"rpo: {error: 5m, paths: [{path: \"db/\", error: 5m}]}\n": "5m is not shorter than rpo.error, which holds for every file",
		"rpo: {eror: 5m}\n": `did you mean "error"?`,
		"rpo: {paths: [" + strings.Repeat("{path: a, error: 1s}, ", maxDeadlines) + "{path: a, error: 1s}]}\n": "65 limits",
	} {
		if _, err := Parse("p.yml", []byte(primaryYAML+text)); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%.60q: %v, want %q in it", text, err, fault)
		}
	}
}
