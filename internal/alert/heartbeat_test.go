package alert

import (
	"context"
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
	front := httptest.NewTLSServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer front.Close()
	h := newHeartbeat(config.Heartbeat{URL: front.URL})
	h.client.Transport = front.Client().Transport
	if err := h.send(t.Context()); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("led out of https: %v", err)
	}
}
