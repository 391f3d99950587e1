package monitor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"slipway/internal/control"
	"slipway/internal/health"
)

// daemon is a Reporter that says what a test wants.
type daemon struct {
	control.Reporter
	mu     sync.Mutex
	status []control.Status
	err    error
}

func (d *daemon) Status(context.Context) ([]control.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status, d.err
}

func (d *daemon) Batches(_ context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	if volume != "projects" {
		return nil, fmt.Errorf("volume %q: %w", volume, fs.ErrNotExist)
	}
	var rows []control.BatchRow
	for seq := from; seq < from+uint64(limit) && seq <= 300; seq++ {
		rows = append(rows, control.BatchRow{Volume: volume, Seq: seq, Stage: "stored"})
	}
	return rows, nil
}

func (d *daemon) Explain(_ context.Context, path string) (control.Explained, error) {
	if path == "stuck" {
		return control.Explained{}, errors.New("stuck")
	}
	if strings.HasPrefix(path, "gone") {
		return control.Explained{}, fmt.Errorf("%q is not in the volume: %w", path, fs.ErrNotExist)
	}
	return control.Explained{Path: path, Stage: "cached", Batch: 7, Copies: 1, WaitingFor: "the window 22:00-06:00"}, nil
}

func working() *daemon {
	return &daemon{status: []control.Status{{
		Volume: "projects", Node: "alpha", Role: "primary", Epoch: 1, HeadBatch: 300, Complete: true,
		Journal: control.JournalStatus{Head: 1000, Sealed: 900, Gaps: 2}, Pending: control.PendingStatus{Files: 3, Bytes: 4096, OldestSeconds: 1.5},
		Sender: control.SenderStatus{Node: "alpha", Here: "sending", Term: 2}, Spool: control.SpoolStatus{Bytes: 1 << 20, Cap: 1 << 30},
		Stores: []control.StoreStatus{
			{Name: "cache1", Kind: "cache", Batch: 299, LagBatches: 1, LagSeconds: 0.5, State: "sending"},
			{Name: "vault1", Kind: "backup", Batch: 290, LagBatches: 10, LagSeconds: 60, State: "waiting"},
		},
		Alarms: []control.Alarm{
			{Event: control.BehindRPO, Level: control.LevelWarning}, {Event: control.BehindRPO, Level: control.LevelError, Path: "db/"},
			{Event: control.BehindRPO, Level: control.LevelWarning, Path: "*.key"}, {Event: control.VerificationFailed, Level: control.LevelError},
		},
		Drills: []control.Drill{{Store: "vault1", At: time.Unix(1_800_000_000, 0), Passed: true, Seconds: 2.5}},
	}}}
}

// ask sends a request to the handler as a browser or a scraper on this host does.
func ask(m *monitor, target string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = "127.0.0.1:9847"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, r)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMetrics: names and help pass the linter, values are those of the status, and docs/monitoring.md lists each with its help.
func TestMetrics(t *testing.T) {
	m := newMonitor(working())
	found, err := testutil.CollectAndLint(&collector{m})
	must(t, err)
	for _, f := range found {
		t.Errorf("%s: %s", f.Metric, f.Text)
	}
	text := ask(m, "/metrics").Body.String()
	for _, line := range []string{
		"slipway_up 1", `slipway_pending_files{volume="projects"} 3`, `slipway_journal_unsealed_bytes{volume="projects"} 100`,
		`slipway_sender_active{volume="projects"} 1`, `slipway_store_lag_batches{kind="cache",store="cache1",volume="projects"} 1`, "slipway_stalled 0",
		`slipway_behind_rpo_warning{volume="projects"} 2`, `slipway_behind_rpo_error{volume="projects"} 1`,
		`slipway_drill_success{store="vault1",volume="projects"} 1`, `slipway_drill_last_timestamp_seconds{store="vault1",volume="projects"} 1.8e+09`,
		`slipway_drill_duration_seconds{store="vault1",volume="projects"} 2.5`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}

	doc, err := os.ReadFile("../../docs/monitoring.md")
	must(t, err)
	descs := make(chan *prometheus.Desc, 100)
	(&collector{m}).Describe(descs)
	close(descs)
	named := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)"`)
	for d := range descs {
		parts := named.FindStringSubmatch(d.String())
		if row := fmt.Sprintf("| `%s` | %s |", parts[1], parts[2]); !bytes.Contains(doc, []byte(row)) {
			t.Errorf("docs/monitoring.md has no row %s", row)
		}
	}
}

// TestMetricsOfASilentDaemon: a scrape says so, and has no old numbers.
func TestMetricsOfASilentDaemon(t *testing.T) {
	m := newMonitor(&daemon{err: errors.New("stuck")})
	text := ask(m, "/metrics").Body.String()
	if !strings.Contains(text, "slipway_up 0\n") || strings.Contains(text, "pending_files{") || strings.Contains(text, "slipway_stalled ") {
		t.Errorf("metrics:\n%s", text)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if w := ask(m, path); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "does not answer") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestReady: what has something to do and does not move for a minute is not ready, and says what it is; what waits for a condition is.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := working()
		m := newMonitor(d)
		look := func() (int, string) {
			w := ask(m, "/readyz")
			return w.Code, w.Body.String()
		}
		change := func(what func(s *control.Status)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			what(&d.status[0])
		}
		expect := func(when string, want int, says string) {
			t.Helper()
			if code, body := look(); code != want || !strings.Contains(body, says) {
				t.Errorf("%s: %d %s", when, code, body)
			}
		}
		expect("at first", 200, "")
		<-time.After(health.StallAfter - time.Second)
		expect("after 59 s", 200, "")
		change(func(s *control.Status) { s.Sender.Shards++ })
		expect("a shard was delivered", 200, "")
		<-time.After(health.StallAfter - time.Second)
		change(func(s *control.Status) { s.Stores[0].State, s.Stores[0].Error = "down", "connection refused" })
		<-time.After(time.Second)
		expect("nothing for a minute", 503, "cache1 lags 1 batch, down: connection refused")
		change(func(s *control.Status) { s.Stores[0].Batch++; s.Stores[0].LagBatches = 0; s.Journal.Sealed = 1000 })
		expect("it moved", 200, "")
		<-time.After(time.Hour)
		expect("only vault1's window is waited for", 200, "")
		if w := ask(m, "/livez"); w.Code != 200 {
			t.Errorf("/livez: %d", w.Code)
		}
		if w := ask(m, "/healthz"); w.Code != 503 || !strings.Contains(w.Body.String(), "cache1 is down") {
			t.Errorf("/healthz: %d %s", w.Code, w.Body)
		}
	})
}

// TestStrangers: neither a page of another origin nor a name that was made to lead here is answered, and nothing is ever changed.
func TestStrangers(t *testing.T) {
	m := newMonitor(working())
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	origin := func(s string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("Origin", s) } }
	site := func(s string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", s) } }
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"address", host("127.0.0.1:9847"), 200}, {"IPv6", host("[::1]:9847"), 200}, {"localhost", host("localhost:9847"), 200}, {"no port", host("10.0.0.7"), 200},
		{"another origin, told by an old browser", origin("http://evil.example"), 403}, {"no origin", origin("null"), 403}, {"its own", origin("http://127.0.0.1:9847"), 200},
		{"rebound name", host("evil.example:9847"), 403}, {"alike", host("127.0.0.1.evil.example"), 403}, {"empty", host(""), 403},
		{"own page", site("same-origin"), 200}, {"typed", site("none"), 200}, {"another page", site("cross-site"), 403}, {"a sister", site("same-site"), 403},
		{"POST", func(r *http.Request) { r.Method = http.MethodPost }, 405},
	} {
		for _, path := range []string{"/metrics", "/batches?volume=projects", "/explain?path=a", "/"} {
			if w := ask(m, path, c.change); w.Code != c.want {
				t.Errorf("%s, %s: %d, want %d", path, c.name, w.Code, c.want)
			}
		}
	}
	if csp := ask(m, "/").Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") {
		t.Errorf("policy %q", csp)
	}
}

// TestPage: the page, what it loads, and its two look-ups.
func TestPage(t *testing.T) {
	m := newMonitor(working())
	page := ask(m, "/").Body.String()
	for _, file := range []string{"page.css", "page.js"} {
		if !strings.Contains(page, `"`+file+`"`) || ask(m, "/"+file).Code != 200 {
			t.Errorf("the page has no %s", file)
		}
	}
	var rows []control.BatchRow
	d := working()
	d.status = append([]control.Status{{Volume: "media", HeadBatch: 1000}}, d.status...)
	must(t, json.Unmarshal(ask(newMonitor(d), "/batches?volume=projects").Body.Bytes(), &rows))
	if len(rows) != batchRows || rows[0].Seq != 101 {
		t.Errorf("beside another volume: %d batches from %+v", len(rows), rows[0])
	}
	d.status[1].HeadBatch = 5
	must(t, json.Unmarshal(ask(newMonitor(d), "/batches?volume=projects").Body.Bytes(), &rows))
	if rows[0].Seq != 1 {
		t.Errorf("few batches: from %+v", rows[0])
	}
	must(t, json.Unmarshal(ask(m, "/batches?volume=projects").Body.Bytes(), &rows))
	if len(rows) != batchRows || rows[0].Seq != 101 || rows[len(rows)-1].Seq != 300 {
		t.Errorf("%d batches, %+v to %+v", len(rows), rows[0], rows[len(rows)-1])
	}
	must(t, json.Unmarshal(ask(m, "/batches?volume=projects&from=299").Body.Bytes(), &rows))
	if len(rows) != 2 {
		t.Errorf("%d batches from 299 on", len(rows))
	}
	for target, want := range map[string]int{
		"/batches?volume=projects&from=x": 400, "/batches?volume=other": 404, "/explain?path=gone": 404, "/nothing": 404, "/page.html": 404, "/explain?path=stuck": 500,
	} {
		if w := ask(m, target); w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
	}
	if w := ask(m, "/explain?path=gone"); w.Body.String() != "\"gone\" is not in the volume\n" {
		t.Errorf("a path that is gone: %s", w.Body)
	}
	if w := ask(m, "/batches?volume=other"); w.Body.String() != "this node holds no volume \"other\"\n" {
		t.Errorf("another volume: %s", w.Body)
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	w := ask(newMonitor(&daemon{err: errors.New("stuck")}), "/events", func(r *http.Request) { *r = *r.WithContext(gone) })
	if !strings.Contains(w.Body.String(), `"error":"stuck"`) {
		t.Errorf("a silent daemon's picture: %s", w.Body)
	}
	var e control.Explained
	odd := "a\"<script>\nü"
	r := ask(m, "/explain?path=a%22%3Cscript%3E%0A%C3%BC")
	must(t, json.Unmarshal(r.Body.Bytes(), &e))
	if diff := cmp.Diff(odd, e.Path); diff != "" || e.WaitingFor == "" {
		t.Errorf("explained %+v", e)
	}
}

// TestListenerLost: the page comes to an end, and says why, when its listener does.
func TestListenerLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	if err := newMonitor(working()).serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestServe: over a real connection; the port is somebody else's at first.
func TestServe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	judge := &health.Judge{} // the daemon's, which looked before
	judge.Step(working().status, time.Now().Add(-2*health.StallAfter))
	said, says := io.Pipe()
	done := make(chan struct{})
	go func() {
		Serve(ctx, Options{Listen: taken.Addr().String(), Reporter: working(), Health: judge, Log: slog.New(slog.NewTextHandler(says, nil))})
		close(done)
	}()
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "no status page yet") {
		t.Fatalf("says %q", lines.Text())
	}
	must(t, taken.Close())
	if !lines.Scan() || !strings.Contains(lines.Text(), "http://"+taken.Addr().String()+"/") {
		t.Fatalf("says %q", lines.Text())
	}
	ready, err := http.Get("http://" + taken.Addr().String() + "/readyz") //nolint:noctx // ends with Serve
	must(t, err)
	must(t, ready.Body.Close())
	if ready.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("what has not moved for two minutes: %s", ready.Status)
	}
	resp, err := http.Get("http://" + taken.Addr().String() + "/events") //nolint:noctx // ends with Serve
	must(t, err)
	defer func() { must(t, resp.Body.Close()) }()
	events := bufio.NewScanner(resp.Body)
	for range 2 { // it goes on
		if !events.Scan() {
			t.Fatal(events.Err())
		}
		var p picture
		must(t, json.Unmarshal([]byte(strings.TrimPrefix(events.Text(), "data: ")), &p))
		if len(p.Volumes) != 1 || p.Volumes[0].HeadBatch != 300 {
			t.Errorf("picture %+v", p)
		}
		events.Scan() // the empty line
	}
	stop()
	<-done
}
