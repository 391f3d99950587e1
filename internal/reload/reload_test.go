package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"slipway/internal/config"
	"slipway/internal/control"
)

// rig is a daemon that does nothing but run, and a configuration file that a test writes.
type rig struct {
	t     *testing.T
	asked chan os.Signal
	file  *config.Config // what the file holds
	fault error          // or what is wrong with it
	runs  []int          // batches: copies of each configuration it ran with
	ends  int
	known *State
	fail  error // of the daemon, instead of running
}

func cache(copies int) *config.Config {
	return &config.Config{Path: "cache1.yml", Cache: &config.Cache{Node: "cache1", Store: "/srv/spool", State: "/var/lib/slipway/cache", Ship: config.Ship{Copies: copies}}}
}

// run starts it and returns what ends it and returns its error.
func (r *rig) run() (stop func() error) {
	r.asked = make(chan os.Signal, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Config: cache(1), Asked: r.asked, Log: slog.New(slog.DiscardHandler),
			again: func(string) (*config.Config, error) { return r.file, r.fault },
			Run: func(ctx context.Context, c *config.Config, known *State) error {
				r.runs, r.known = append(r.runs, c.Cache.Ship.Copies), known
				if r.fail != nil && len(r.runs) > 1 {
					return r.fail
				}
				<-ctx.Done()
				r.ends++
				return nil
			},
		})
	}()
	synctest.Wait()
	return func() error { cancel(); return <-ended }
}

func (r *rig) ask() {
	r.asked <- syscall.SIGHUP
	synctest.Wait()
}

func (r *rig) status() control.Status {
	list := []control.Status{{}}
	r.known.Amend(list)
	return list[0]
}

func (r *rig) want(runs ...int) {
	r.t.Helper()
	if len(r.runs) != len(runs) {
		r.t.Fatalf("it ran with %v, want %v", r.runs, runs)
	}
	for i := range runs {
		if r.runs[i] != runs[i] {
			r.t.Errorf("it ran with %v, want %v", r.runs, runs)
		}
	}
}

// TestReload: each wish ends the daemon and runs it with what the file says then; a file that is not fit changes nothing and is told until
// it is mended.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t}
		stop := r.run()
		started := time.Now()
		<-time.After(time.Minute)
		r.file = cache(2)
		r.ask()
		r.want(1, 2)
		if r.ends != 1 || r.status().Config.Error != "" || len(r.status().Warnings) > 0 {
			t.Errorf("%d ends, %+v", r.ends, r.status())
		}
		loaded := r.status().Config.LoadedAt
		if !loaded.Equal(started.Add(time.Minute)) {
			t.Errorf("loaded at %v, started at %v", loaded, started)
		}
		<-time.After(time.Minute)
		r.fault = &config.Faults{Found: []config.Fault{{Line: 4, Message: "unknown key cpies"}, {Line: 7, Message: "no such unit"}}}
		r.ask()
		r.want(1, 2)
		if s := r.status(); s.Config.Error != "line 4: unknown key cpies; line 7: no such unit" || !s.Config.LoadedAt.Equal(loaded) || len(s.Warnings) != 1 ||
			!strings.Contains(s.Warnings[0], "was not read again") || r.ends != 1 {
			t.Errorf("%d ends, %+v", r.ends, s)
		}
		r.fault, r.file = nil, cache(3)
		r.file.Cache.Store = "/srv/other"
		r.ask()
		r.want(1, 2)
		if s := r.status(); s.Config.Error != "this needs a restart of the daemon: store" {
			t.Errorf("%+v", s)
		}
		r.file = cache(4)
		r.ask()
		r.want(1, 2, 4)
		if s := r.status(); s.Config.Error != "" || len(s.Warnings) > 0 {
			t.Errorf("%+v", s)
		}
		if err := stop(); err != nil || r.ends != 3 {
			t.Errorf("%d ends, %v", r.ends, err)
		}
	})
}

// TestEndsByItself: a daemon that ends for reasons of its own is not run again, be it asked for at that moment or not.
func TestEndsByItself(t *testing.T) {
	if err := Run(t.Context(), Options{Config: cache(1), Log: slog.New(slog.DiscardHandler), Run: func(context.Context, *config.Config, *State) error { return nil }}); err != nil {
		t.Error(err)
	}
	asked, stuck := make(chan os.Signal, 1), errors.New("the store is full")
	asked <- syscall.SIGHUP
	runs := 0
	err := Run(t.Context(), Options{
		Config: cache(1), Asked: asked, Log: slog.New(slog.DiscardHandler), again: func(string) (*config.Config, error) { return cache(2), nil },
		Run: func(ctx context.Context, _ *config.Config, _ *State) error { runs++; <-ctx.Done(); return stuck },
	})
	if !errors.Is(err, stuck) || runs != 1 {
		t.Errorf("%d runs, %v", runs, err)
	}
}

// TestRead: a file that is gone is no configuration.
func TestRead(t *testing.T) {
	if c, err := read(t.TempDir() + "/gone.yml"); err == nil {
		t.Errorf("%+v", c)
	}
}

// TestReloadFails: a daemon that does not come up with the new configuration ends, as it would at a start.
func TestReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, file: cache(2), fail: errors.New("the store is a file")}
		stop := r.run()
		r.ask()
		if err := stop(); !errors.Is(err, r.fail) {
			t.Error(err)
		}
	})
}
