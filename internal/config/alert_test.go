package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const receiveYAML = "node: vault2\nstore: /srv/received\nstate: /var/lib/slipway/receive\nowners: {projects: [\"" + publicKey + "\"]}\nreceive: {}\n"

// TestAlerts: every role has hooks and a heartbeat.
func TestAlerts(t *testing.T) {
	const alerts = "hooks:\n  stalled: [/usr/local/bin/tell, \"--now\"]\n  takeover: [/bin/true]\nheartbeat: {url: \"https://beats.example/1\"}\n"
	for name, text := range map[string]string{"primary": primaryYAML, "cache": cacheYAML, "peer": peerYAML, "receive": receiveYAML} {
		c, err := Parse("c.yml", []byte(text+alerts))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(Hooks{Stalled: []string{"/usr/local/bin/tell", "--now"}, Takeover: []string{"/bin/true"}}, c.Hooks()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if d := cmp.Diff(Heartbeat{"https://beats.example/1", time.Minute}, c.Heartbeat()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if _, err := Parse("c.yml", []byte(cacheYAML+"heartbeat: {url: \"http://10.0.0.1/beat\"}\n")); err != nil {
		t.Errorf("without TLS, inside: %v", err)
	}
}

func TestAlertFaults(t *testing.T) {
	for text, fault := range map[string]string{
		"hooks: {stalled: \"tell --now\"}\n":              `write a list: ["/usr/local/bin/tell", "argument"]`,
		"hooks: {stalled: []}\n":                          "hooks.stalled is empty",
		"hooks: {stalled: [tell]}\n":                      "not an absolute path",
		"hooks: {stalled: [/bin/tell, {}]}\n":             "a mapping, not a text",
		"hooks: {staled: [/bin/tell]}\n":                  `did you mean "stalled"?`,
		"heartbeat: {every: 1m}\n":                        `"heartbeat.url" is missing`,
		"heartbeat: {url: \"beats\"}\n":                   "not the address of a web page",
		"heartbeat: {url: \"ftp://a/b\"}\n":               "not the address of a web page",
		"heartbeat: {url: \"https:///b\"}\n":              "not the address of a web page",
		"heartbeat: {url: \"https://a b\"}\n":             "not the address of a web page",
		"heartbeat: {url: \"https://a/b\", every: 1ms}\n": "out of range",
	} {
		if _, err := Parse("c.yml", []byte(cacheYAML+text)); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q in it", text, err, fault)
		}
	}
}

// TestHookPrograms: `config check` looks at the programs.
func TestHookPrograms(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode  os.FileMode
		fault string
	}{"good": {0o755, ""}, "plain": {0o644, "is not a program"}, "open": {0o777, "chmod go-w"}, "gone": {0, "no such file"}, "directory": {os.ModeDir, "is not a program"}} {
		program := filepath.Join(dir, name)
		if c.mode.IsDir() {
			if err := os.Mkdir(program, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if c.mode != 0 {
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(program, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		conf, err := Parse("c.yml", []byte("node: vault2\nstore: "+dir+"\nstate: "+dir+"x\nowners: {projects: [\""+publicKey+"\"]}\nreceive: {}\nhooks: {stalled: ["+program+"]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		switch err := conf.Check(); {
		case c.fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), "c.yml:6:")):
			t.Errorf("%s: %v, want %q in line 6", name, err, c.fault)
		}
	}
}
