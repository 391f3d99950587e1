package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const pageOn = "http: {listen: \"127.0.0.1:0\"}"

// pageOf returns where a daemon shows its status page, as its log says.
func (s *site) pageOf(p *process) string {
	s.t.Helper()
	said := regexp.MustCompile(`msg="status page" .*url=(http://\S+/)`)
	var at string
	s.eventually(10*time.Second, "the status page of "+p.name, func() error {
		if m := said.FindStringSubmatch(p.log.String()); m != nil {
			at = m[1]
			return nil
		}
		return fmt.Errorf("the log says nothing of it")
	})
	return at
}

// fetch returns the code and the body.
func fetch(t *testing.T, address string) (int, string) {
	t.Helper()
	resp, err := http.Get(address) //nolint:noctx // a local daemon
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	return resp.StatusCode, string(body)
}

// TestMonitoring: primary and cache host are scraped by a real Prometheus, with the rules and the dashboard's queries of dist/; health turns bad
// when the cache host is cut off, says so, and good again.
func TestMonitoring(t *testing.T) {
	s := newSite(t, siteOptions{roomy: true, vaults: []string{"vault1"}, primary: pageOn})
	f, err := os.OpenFile(s.cacheCf, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(pageOn + "\n")
	must(t, err)
	must(t, f.Close())
	s.start()
	primary, cache := s.pageOf(s.primary), s.pageOf(s.shipper)
	must(t, os.WriteFile(filepath.Join(s.mount, "file"), []byte("content"), 0o644))
	s.wait("stored")

	for _, page := range []string{primary, cache} {
		for _, path := range []string{"livez", "readyz"} {
			if code, body := fetch(t, page+path); code != 200 {
				t.Errorf("%s%s: %d %s", page, path, code, body)
			}
		}
		_, metrics := fetch(t, page+"metrics")
		lint := exec.Command("promtool", "check", "metrics")
		lint.Stdin = strings.NewReader(metrics)
		if out, err := lint.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
	if code, body := fetch(t, primary+"explain?path=file"); code != 200 || !strings.Contains(body, `"stage":"stored"`) {
		t.Errorf("explain: %d %s", code, body)
	}
	if code, body := fetch(t, cache+"batches?volume=projects"); code != 200 || !strings.Contains(body, `"stage":"stored"`) {
		t.Errorf("batches: %d %s", code, body)
	}

	s.scraped(primary, cache)

	s.hosts["cache1"].down()
	s.health(primary, "healthz", 503, "cache1 is down")
	s.serve(s.hosts["cache1"])
	s.wait("stored")
	if code, body := fetch(t, primary+"healthz"); strings.Contains(body, "cache1") {
		t.Errorf("healthz afterwards: %d %s", code, body)
	}
	s.health(primary, "readyz", 200, `"ok":true`)
}

// health waits for a verdict.
func (s *site) health(page, path string, want int, says string) {
	s.t.Helper()
	n := 0
	s.eventually(60*time.Second, fmt.Sprintf("health %d", want), func() error {
		n++
		must(s.t, os.WriteFile(filepath.Join(s.mount, "more"), fmt.Append(nil, n), 0o644)) // something to push
		if code, body := fetch(s.t, page+path); code != want || !strings.Contains(body, says) {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

// scraped runs Prometheus over both pages until every query of the dashboard and every rule has been evaluated.
func (s *site) scraped(pages ...string) {
	t := s.t
	t.Helper()
	rules, err := filepath.Abs("../dist/prometheus/slipway.rules.yml")
	must(t, err)
	dir := t.TempDir()
	var targets []string
	for _, p := range pages {
		u, err := url.Parse(p)
		must(t, err)
		targets = append(targets, u.Host)
	}
	conf := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs: [{job_name: slipway, static_configs: [{targets: [%s]}]}]\n",
		rules, strings.Join(targets, ", ")), 0o644))
	if out, err := exec.Command("promtool", "check", "config", conf).CombinedOutput(); err != nil {
		t.Fatalf("promtool check config: %v\n%s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	at := free.Addr().String()
	must(t, free.Close())
	log := &lockedBuffer{}
	server := exec.Command("prometheus", "--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at)
	server.Stdout, server.Stderr = log, log
	must(t, server.Start())
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", tail(log.String(), 20))
		}
	}()

	text, err := os.ReadFile("../dist/grafana/slipway.json")
	must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(text, &dashboard))
	if len(dashboard.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			s.eventually(30*time.Second, fmt.Sprintf("an answer to %q (%s)", q.Expr, p.Title), func() error {
				return answered("http://"+at+"/api/v1/query?query="+url.QueryEscape(q.Expr), `"result":[{`)
			})
		}
	}
	s.eventually(30*time.Second, "the rules to be evaluated", func() error {
		return answered("http://"+at+"/api/v1/rules?type=alert", `"health":"ok"`, `"health":"unknown"`, `"health":"err"`)
	})
}

// answered asks Prometheus: the answer has one text and none of the others.
func answered(address, has string, not ...string) error {
	resp, err := http.Get(address) //nolint:noctx // a local process
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	bad := !strings.Contains(string(body), has)
	for _, n := range not {
		bad = bad || strings.Contains(string(body), n)
	}
	if bad {
		return fmt.Errorf("%s", tail(string(body), 1))
	}
	return nil
}
