// Package monitor shows over HTTP what a daemon knows of itself: a status page, metrics for Prometheus, health.
//
// It only reads, and asks the same control.Reporter as the command line, so it cannot say anything else. It keeps nothing, so a crash leaves
// nothing. A port that somebody else has is tried again and again; the daemon's work never depends on it.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"slipway/internal/control"
	"slipway/internal/health"
)

const (
	// observeEvery is the pause between two looks at whether things move.
	observeEvery = 5 * time.Second
	// listenAgain is the pause before a port that somebody else has is tried again.
	listenAgain = time.Second
	// answerWithin bounds how long a daemon may take to answer for itself.
	answerWithin = 5 * time.Second
)

// Options say what is shown, and where.
type Options struct {
	Listen   string // HOST:PORT; with port 0 the log says which one it became
	Reporter control.Reporter
	Health   *health.Judge // nil: one of its own
	Log      *slog.Logger
}

// Serve answers until ctx ends.
func Serve(ctx context.Context, opt Options) {
	m := newMonitor(opt.Reporter)
	if opt.Health != nil {
		m.health = opt.Health
	}
	why := "" // the page did not come up, said once
	for {
		l, err := net.Listen("tcp", opt.Listen)
		if err == nil {
			opt.Log.Info("status page", "url", "http://"+l.Addr().String()+"/")
			err = m.serve(ctx, l)
		}
		if ctx.Err() != nil {
			return
		}
		if said := err.Error(); said != why {
			opt.Log.Warn("no status page yet: another address can be set with http.listen in the configuration", "listen", opt.Listen, "error", err)
			why = said
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenAgain):
		}
	}
}

type monitor struct {
	reporter control.Reporter
	health   *health.Judge
	handler  http.Handler
}

func newMonitor(r control.Reporter) *monitor {
	m := &monitor{reporter: r, health: &health.Judge{}}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{m})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /livez", m.livez)
	mux.HandleFunc("GET /readyz", m.readyz)
	mux.HandleFunc("GET /healthz", m.healthz)
	m.page(mux)
	m.handler = guard(mux)
	return m
}

// serve owns a listener, and the goroutine that looks whether things move.
func (m *monitor) serve(ctx context.Context, l net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler:           m.handler,
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the status page: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error { return m.observe(ctx) })
	return group.Wait()
}

// observe looks until ctx ends.
func (m *monitor) observe(ctx context.Context) error {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		if list, err := m.status(ctx); err == nil {
			m.health.Step(list, time.Now())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// status asks the daemon.
func (m *monitor) status(ctx context.Context) ([]control.Status, error) {
	ctx, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	list, err := m.reporter.Status(ctx)
	health.Advise(list, func() (control.Barrier, error) { return m.reporter.Barrier(ctx, control.Barrier{}) })
	return list, err
}

// guard lets nobody in by a name that is not this host's own: a page of another origin whose name was made to lead here could read along
// otherwise. Nothing may frame the page, and it loads nothing from elsewhere.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		foreign := site == "cross-site" || site == "same-site" || origin != "" && origin != "http://"+r.Host // a browser that sends no Sec-Fetch-Site
		if !ownName(r.Host) || foreign {
			http.Error(w, "ask by address or as localhost, and not from another page", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownName: an address cannot be made to lead elsewhere.
func ownName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}
