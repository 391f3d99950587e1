package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func jsonNumber(x any) string {
	b, err := json.Marshal(x)
	if err != nil {
		return ""
	}
	return string(b)
}

// keysOf fails the test for each key of the JSON contract that a row lacks.
func keysOf(t *testing.T, what string, row map[string]any, keys ...string) {
	t.Helper()
	for _, k := range keys {
		obj, rest := row, k
		for {
			head, more, nested := strings.Cut(rest, ".")
			val, ok := obj[head]
			if !ok {
				t.Errorf("%s: key %s is missing: %v", what, k, row)
				break
			}
			if !nested {
				break
			}
			obj, ok = val.(map[string]any)
			if !ok {
				t.Errorf("%s: key %s is no object: %v", what, k, val)
				break
			}
			rest = more
		}
	}
}

var (
	statusKeys = []string{"volume", "node", "epoch", "sender.node", "sender.term", "sender.state", "journal.head", "journal.sealed",
		"pending.files", "pending.bytes", "pending.oldest_seconds", "head_batch", "stores"}
	storeKeys   = []string{"name", "kind", "url", "batch", "lag_batches", "lag_seconds", "state", "error"}
	batchKeys   = []string{"volume", "epoch", "seq", "sealed_at", "files", "bytes", "shards", "stage", "copies"}
	pendingKeys = []string{"path", "state", "since", "bytes", "writers"}
)

// TestInspect looks at everything that can be asked, with daemons running and with all of them dead.
func TestInspect(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	s.wait("stored")

	open, err := os.Create(filepath.Join(s.mount, "held open"))
	must(t, err)
	_, err = open.WriteString("not closed yet")
	must(t, err)
	s.inspect("running", "stored", true)

	rows := s.jsonLines("spool", "pending", "-c", s.config)
	if len(rows) != 1 || rows[0]["path"] != "held open" || rows[0]["writers"] != 1.0 {
		t.Errorf("pending: %v, want the file that is held open, with one writer", rows)
	}
	must(t, open.Close())
	s.wait("stored")
	s.primary.crash()
	s.shipper.crash()
	s.inspect("dead", "", false)
	if out := s.slipway("status", "-c", s.config); !strings.Contains(out, "dead") {
		t.Errorf("status does not say that the daemon is dead:\n%s", out)
	}
	s.slipway("verify", "--from", s.hosts["vault1"].url(), "--identity", s.ident, "--read-data", "--ssh-key", s.key, "--known-hosts", s.known)
}

// inspect checks every listing's keys, for the primary and the cache host.
func (s *site) inspect(what, stage string, pending bool) {
	t := s.t
	t.Helper()
	for _, conf := range []string{s.config, s.cacheCf} {
		role := what + ", " + filepath.Base(conf)
		status := s.jsonLines("status", "-c", conf)
		if len(status) != 1 {
			t.Fatalf("%s: status has %d rows, want 1", role, len(status))
		}
		keysOf(t, role+": status", status[0], statusKeys...)
		stores, _ := status[0]["stores"].([]any)
		if len(stores) < 3 {
			t.Errorf("%s: status lists %d stores: %v", role, len(stores), stores)
		}
		for _, x := range stores {
			row, ok := x.(map[string]any)
			if !ok {
				t.Fatalf("%s: store is %v", role, x)
			}
			keysOf(t, role+": store", row, storeKeys...)
		}
		batches := s.jsonLines("spool", "ls", "-c", conf)
		if len(batches) == 0 {
			t.Fatalf("%s: spool ls lists nothing", role)
		}
		for _, b := range batches {
			keysOf(t, role+": spool ls", b, batchKeys...)
		}
		if stage != "" && !slices.ContainsFunc(batches, func(b map[string]any) bool { return b["stage"] == stage && b["copies"] == 2.0 }) {
			t.Errorf("%s: no batch is %s in 2 copies: %v", role, stage, batches)
		}
		s.slipway("spool", "ls", "-c", conf)
		s.slipway("spool", "show", jsonNumber(batches[0]["seq"]), "-c", conf)
		s.slipway("spool", "verify", "-c", conf)
		s.slipway("status", "-c", conf)
	}
	for _, p := range s.jsonLines("spool", "pending", "-c", s.config) {
		keysOf(t, what+": spool pending", p, pendingKeys...)
		pending = false
	}
	if pending {
		t.Errorf("%s: spool pending lists nothing", what)
	}
	s.slipway("spool", "pending", "-c", s.config)
}

// TestInspectStopped: with every daemon stopped everything that is asked is answered from the disk, with how old it is, what was written
// since among it; what has to be done by the daemon says: try again later.
func TestInspectStopped(t *testing.T) {
	s := newSite(t, siteOptions{plain: true, vaults: []string{"vault1"}})
	s.start()
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	s.wait("stored")
	s.eventually(20*time.Second, "the last status on disk", func() error {
		data, err := os.ReadFile(filepath.Join(s.dir, "state", "status.json"))
		if err == nil && !strings.Contains(string(data), `"name":"vault1","kind":"backup","url":`+strconv.Quote(s.hosts["vault1"].data)+`,"batch":`+s.head()) {
			err = errors.New("it does not say yet that vault1 has everything")
		}
		return err
	})
	head := s.head()
	for _, pid := range append(s.child("spooler"), s.shipper.cmd.Process.Pid) {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		defer func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }()
	}
	for _, conf := range []string{s.config, s.cacheCf} {
		role := filepath.Base(conf)
		if out, code := s.try("status", "-c", conf); code != 0 || !strings.Contains(out, "the daemon is not answering; its last answer is ") {
			t.Errorf("%s: status says\n%s", role, out)
		}
		out, code := s.try("spool", "ls", "-c", conf)
		if code != 0 || !strings.Contains(out, "the daemon does not answer: this is what lies on disk; how far the stores are is as of ") {
			t.Errorf("%s: spool ls says\n%s", role, out)
		}
		if !regexp.MustCompile(`(?m)^` + head + ` .* stored +1 +.*vault1$`).MatchString(out) {
			t.Errorf("%s: spool ls does not show batch %s as stored\n%s", role, head, out)
		}
		if out, code := s.try("spool", "show", head, "-c", conf); code != 0 || !strings.Contains(out, "stored, 1 copy on") {
			t.Errorf("%s: spool show says\n%s", role, out)
		}
	}
	s.besideStopped(head)
	if out, code := s.try("wait", "--stage", "stored", "--timeout", "300ms", "-c", s.config); code != 124 || !strings.Contains(out, "does not answer") {
		t.Errorf("wait: exit code %d\n%s", code, out)
	}
	if out, code := s.try("spool", "hold", head, "-c", s.cacheCf); code != 5 || !strings.Contains(out, "does not answer") {
		t.Errorf("hold: exit code %d\n%s", code, out)
	}
}

// besideStopped asks a primary whose spooler is stopped, and the mount goes on.
func (s *site) besideStopped(head string) {
	t := s.t
	t.Helper()
	must(t, os.WriteFile(filepath.Join(s.mount, "since"), []byte("nobody has read this"), 0o644))
	rows := s.jsonLines("spool", "pending", "-c", s.config)
	if len(rows) != 1 || rows[0]["path"] != "since" || rows[0]["why"] != "the daemon does not answer" {
		t.Errorf("pending: %v, want the file that was written since", rows)
	}
	status := s.jsonLines("status", "-c", s.config)
	if p, _ := status[0]["pending"].(map[string]any); p["files"] != 1.0 || status[0]["daemon"] != "not answering" || status[0]["stale"] != true {
		t.Errorf("status: %v", status)
	}
	for _, tt := range [][]string{
		{"the daemon does not answer: nothing is sealed unless it goes on", "explain", filepath.Join(s.mount, "since")},
		{"stored", "explain", filepath.Join(s.mount, "file")},
		{head, "explain", filepath.Join(s.mount, "file")},
		{" file\n", "ls"},
	} {
		if out := s.slipway(append(tt[1:], "-c", s.config)...); !strings.Contains(out, tt[0]) {
			t.Errorf("%q: no %q in\n%s", tt[1:], tt[0], out)
		}
	}
}
