package alert

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/control"
)

// listener counts what it hears, and answers as it is told.
func listener(t *testing.T) (s *httptest.Server, heard *atomic.Int64, code *atomic.Int64) {
	heard, code = &atomic.Int64{}, &atomic.Int64{}
	code.Store(200)
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s", r.Method)
		}
		heard.Add(1)
		w.WriteHeader(int(code.Load()))
	}))
	t.Cleanup(s.Close)
	return s, heard, code
}

// TestHeartbeat: it is heard while nothing is wrong, stops when something is, and begins again.
func TestHeartbeat(t *testing.T) {
	s, heard, _ := listener(t)
	d := well()
	w := watch(t, d, t.TempDir(), config.Hooks{}, config.Heartbeat{URL: s.URL, Every: 10 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx) })
	more := func() { n := heard.Load(); until(t, "heartbeats", func() bool { return heard.Load() > n+2 }) }
	more()
	for name, wrong := range map[string]func(s *control.Status){
		"a warning":    func(s *control.Status) { s.Warnings = []string{"one recipient only"} },
		"an error":     func(s *control.Status) { s.Alarms = []control.Alarm{behind("cache1")} },
		"a store down": func(s *control.Status) { s.Stores[0].State = "down" },
	} {
		d.change(wrong)
		w.beatOnce(ctx) // takes its turn behind whatever is on its way
		n := heard.Load()
		for range 5 {
			w.beatOnce(ctx)
		}
		if got := heard.Load(); got > n+1 { // one may have been on its way
			t.Errorf("%s: %d heartbeats", name, got-n)
		}
		d.change(func(s *control.Status) { *s = well().status[0] })
		more()
	}
	d.change(func(s *control.Status) { // what only warns of the rpo is no end of it
		s.Warn(control.Alarm{Event: control.BehindRPO, Level: control.LevelWarning, Message: "behind rpo 5s"})
	})
	more()
	stop()
	must(t, g.Wait())
}

// TestHeartbeatFails: an address that does not answer well is a warning without the address in it, which ends with the first good answer; the
// heartbeat goes on meanwhile.
func TestHeartbeatFails(t *testing.T) {
	s, heard, code := listener(t)
	w := watch(t, well(), t.TempDir(), config.Hooks{}, config.Heartbeat{URL: s.URL + "/secret"})
	warned := func() string {
		list := []control.Status{{}}
		w.Amend(list)
		return strings.Join(list[0].Warnings, "\n")
	}
	code.Store(404)
	for range 2 {
		w.beatOnce(t.Context())
	}
	if got := warned(); !strings.Contains(got, "has not been heard since") || !strings.Contains(got, "404 Not Found") || heard.Load() != 2 {
		t.Errorf("warns %q, heard %d", got, heard.Load())
	}
	code.Store(204)
	w.beatOnce(t.Context())
	if got := warned(); got != "" {
		t.Errorf("warns %q", got)
	}
	s.Close()
	w.beatOnce(t.Context())
	if got := warned(); !strings.Contains(got, "connection refused") || strings.Contains(got, "secret") {
		t.Errorf("warns %q", got)
	}
	w.Amend(nil) // a daemon that says nothing
	if err := newHeartbeat(config.Heartbeat{URL: ":secret"}).send(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no address: %v", err)
	}
}

// TestHeartbeatEnds: a request that the daemon's end cuts short has not failed.
func TestHeartbeatEnds(t *testing.T) {
	s, _, _ := listener(t)
	w := watch(t, well(), t.TempDir(), config.Hooks{}, config.Heartbeat{URL: s.URL})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	w.beatOnce(ctx)
	if got := w.beat.failure(); got != "" {
		t.Error(got)
	}
}

// TestFailuresInARow are said once, since the first of them.
func TestFailuresInARow(t *testing.T) {
	h, began := newHeartbeat(config.Heartbeat{}), time.Date(2026, 12, 1, 10, 0, 0, 0, time.Local)
	for i, c := range []struct {
		err  error
		said bool
	}{{nil, false}, {io.EOF, true}, {io.EOF, false}} {
		if got := h.note(c.err, began.Add(time.Duration(i)*time.Hour)); got != c.said {
			t.Errorf("%d: said %v", i, got)
		}
	}
	if got := h.failure(); !strings.Contains(got, "since 2026-12-01 11:00:00: EOF") {
		t.Error(got)
	}
}

// TestHeartbeatRedirects: a few addresses may lead to the one that listens, not any number.
func TestHeartbeatRedirects(t *testing.T) {
	for n, want := range map[int]string{maxRedirects: "", maxRedirects + 1: "too many redirections"} {
		left := n
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left--; left >= 0 {
				http.Redirect(w, r, "/", http.StatusFound)
			}
		}))
		err := newHeartbeat(config.Heartbeat{URL: s.URL}).send(t.Context())
		if got := ""; err != nil {
			if got = err.Error(); want == "" || !strings.Contains(got, want) {
				t.Errorf("%d redirections: %v", n, err)
			}
		} else if want != "" {
			t.Errorf("%d redirections are followed", n)
		}
		s.Close()
	}
	inside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/there", http.StatusFound)
		}
	}))
	defer inside.Close()
	h := newHeartbeat(config.Heartbeat{URL: inside.URL})
	h.client.Transport = inside.Client().Transport
	if err := h.send(t.Context()); err != nil {
		t.Errorf("led within https: %v", err)
	}
	front := httptest.NewTLSServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer front.Close()
	h = newHeartbeat(config.Heartbeat{URL: front.URL})
	h.client.Transport = front.Client().Transport
	if err := h.send(t.Context()); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("led out of https: %v", err)
	}
}
