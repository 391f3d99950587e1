package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/config"
)

// more adds lines to a configuration.
func more(t *testing.T, path, lines string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("\n" + lines + "\n")
	must(t, err)
	must(t, f.Close())
}

// secondRecipient makes a volume of which nothing is to be warned.
func (s *site) secondRecipient() {
	t := s.t
	t.Helper()
	said := s.slipway("keygen", "--identity", filepath.Join(s.dir, "second.identity"))
	at := strings.Index(said, "age1")
	if at < 0 {
		t.Fatalf("keygen says %q", said)
	}
	second := strings.Fields(said[at:])[0]
	text, err := os.ReadFile(s.config)
	must(t, err)
	c, err := config.Load(s.config)
	must(t, err)
	first := c.Primary.Recipients[0]
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), "  - "+first+"\n", "  - "+first+"\n  - "+second+"\n", 1)), 0o600))
}

// flipByte spoils the newest shard in a host's store.
func (s *site) flipByte(host string) {
	t := s.t
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.hosts[host].data, "projects", "shards", "*", "*.shard"))
	must(t, err)
	newest, at := "", time.Time{}
	for _, f := range files {
		st, err := os.Stat(f)
		must(t, err)
		if st.ModTime().After(at) {
			newest, at = f, st.ModTime()
		}
	}
	data, err := os.ReadFile(newest)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(newest, data, 0o660))
}

// TestAlerts: on a real primary and a real cache host the operator's commands are told what happens there, the heartbeat stops with it and comes
// back, and status says the same words.
func TestAlerts(t *testing.T) {
	var beats atomic.Int64
	listener := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { beats.Add(1) }))
	defer listener.Close()
	s := newSite(t, siteOptions{roomy: true, hosts: []string{"cache1", "vault1", "bravo"}, replicas: []string{"bravo"}, vaults: []string{"vault1"},
		primary: "rpo: 1s\nprefer_after: 1d", ship: "  when: [{age: 0s}]\n  verify_after: 5s\n"})
	s.secondRecipient()
	hook, told := filepath.Join(s.dir, "hook"), filepath.Join(s.dir, "told")
	must(t, os.WriteFile(hook, []byte("#!/bin/sh\necho \"$SLIPWAY_EVENT|$SLIPWAY_VOLUME|$SLIPWAY_NODE|$SLIPWAY_STORE|$SLIPWAY_MESSAGE\" >> "+told+"\necho heard\n"), 0o755))
	hooks := fmt.Sprintf("hooks: {stalled: [%[1]s], behind_rpo: [%[1]s], verification_failed: [%[1]s], takeover: [%[1]s]}", hook)
	more(t, s.config, hooks+"\nheartbeat: {url: \""+listener.URL+"\", every: 1s}")
	more(t, s.cacheCf, hooks)
	bravo := filepath.Join(s.dir, "bravo.yml")
	must(t, os.WriteFile(bravo, fmt.Appendf(nil, "node: bravo\nstore: %s\nstate: %s\npeer: {cache: {name: cache1, url: %q}, prefer_after: 1s}\nssh: {key: %s, known_hosts: %s}\n%s\n",
		s.hosts["bravo"].data, filepath.Join(s.dir, "bravo-state"), s.hosts["cache1"].url(), s.key, s.known, hooks), 0o600))
	for _, conf := range []string{s.config, s.cacheCf} {
		s.slipway("config", "check", "-c", conf)
	}
	s.start()
	s.spawn("bravo", "peer", "peer", "-c", bravo)
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	s.wait("stored")
	hears := func(words string) (line string) {
		t.Helper()
		s.eventually(30*time.Second, "a hook to be told "+words, func() error {
			data, _ := os.ReadFile(told)
			for l := range strings.Lines(string(data)) {
				if strings.Contains(l, words) {
					line = strings.TrimSpace(l)
					return nil
				}
			}
			return fmt.Errorf("told %q", data)
		})
		return line
	}
	beating := func(when string) {
		t.Helper()
		n := beats.Load()
		s.eventually(60*time.Second, "the heartbeat "+when, func() error {
			if beats.Load() < n+2 {
				return fmt.Errorf("heard %d, status %v", beats.Load()-n, s.status(s.config))
			}
			return nil
		})
	}
	beating("at first")

	s.hosts["cache1"].down()
	must(t, os.WriteFile(filepath.Join(s.mount, "late"), []byte("content"), 0o644))
	line := hears("behind_rpo|projects|alpha|cache1|")
	if said := fmt.Sprint(s.status(s.config)); !strings.Contains(said, "behind rpo 1s: cache1 lacks") || !strings.Contains(said, "event:behind_rpo") {
		t.Errorf("the hook was told %q, status says %s", line, said)
	}
	n := beats.Load()
	s.eventually(10*time.Second, "three seconds without a heartbeat", func() func() error {
		began := time.Now()
		return func() error {
			if beats.Load() > n+1 { // one may have been on its way
				t.Fatalf("%d heartbeats while cache1 is down", beats.Load()-n)
			}
			if time.Since(began) < 3*time.Second {
				return fmt.Errorf("not over yet")
			}
			return nil
		}
	}())
	s.serve(s.hosts["cache1"])
	s.wait("stored")
	beating("afterwards")

	s.slipway("sender", "pin", "bravo", "-c", bravo)
	hears("takeover|projects|alpha||bravo sends projects in the place of alpha, term ")
	hears("takeover|projects|bravo||bravo sends projects in the place of alpha, term ")

	must(t, os.WriteFile(filepath.Join(s.mount, "next"), []byte("some other content"), 0o644))
	s.wait("stored")
	s.flipByte("vault1")
	hears("verification_failed|projects|cache1|vault1|")
	data, err := os.ReadFile(told)
	must(t, err)
	if n := strings.Count(string(data), "behind_rpo|projects|alpha|cache1|"); n != 1 {
		t.Errorf("behind_rpo was told %d times", n)
	}
}
