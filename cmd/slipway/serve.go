package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/loop"
	"slipway/internal/reload"
	"slipway/internal/render"
	"slipway/internal/service"
)

// daemon is a role's process.
type daemon interface {
	control.Reporter
	Run(ctx context.Context) error
	Close() error
}

// serve runs the daemon that a configuration makes until ctx ends, in the foreground, and again with what the file says then on SIGHUP.
func serve(ctx context.Context, c *config.Config, process string, open func(*config.Config) (daemon, error)) error {
	return ended(ctx, service.Run(ctx, func(ctx context.Context) error {
		defer saying(ctx, c.State())()
		return reloading(ctx, c, process, func(ctx context.Context, c *config.Config, known *reload.State) error {
			d, err := open(c)
			if err != nil {
				return err
			}
			group, working := errgroup.WithContext(ctx)
			group.Go(func() error { return d.Run(working) })
			observe(working, group, c, known, d, process)
			service.Ready()
			return errors.Join(ended(ctx, group.Wait()), d.Close())
		})
	}))
}

// reloading runs a daemon, and again on SIGHUP.
func reloading(ctx context.Context, c *config.Config, process string, run func(context.Context, *config.Config, *reload.State) error) error {
	asked, stop := hangups()
	defer stop()
	return reload.Run(ctx, reload.Options{Config: c, Asked: asked, Run: run, Log: service.Logger(os.Stderr, process)})
}

// hangups tells of SIGHUP, which would end the process otherwise.
func hangups() (asked <-chan os.Signal, stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup, func() { signal.Stop(hup) }
}

// sayEvery is how old the line is at most that systemctl status shows.
const sayEvery = 5 * time.Second

// saying keeps telling systemd in a line how the daemon with a state directory is, until stop is called. Without systemd it does nothing.
func saying(ctx context.Context, state string) (stop func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		return loop.Every(ctx, sayEvery, nil, func() time.Duration {
			daemon, list, err := control.FindState(ctx, state)
			if err != nil || daemon != control.Running {
				return 200 * time.Millisecond // it is just beginning, or ending
			}
			service.Say(render.Line(list))
			return 0
		})
	})
	return func() {
		cancel()
		_ = g.Wait() // it has no other end than this
	}
}
