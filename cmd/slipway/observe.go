package main

import (
	"context"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/alert"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/drill"
	"slipway/internal/health"
	"slipway/internal/monitor"
	"slipway/internal/reload"
	"slipway/internal/service"
)

// observe adds to a daemon what lets people see it and tells them of it: the socket, the status page, hooks and heartbeat. All ask the same
// reporter and share one judgement.
func observe(ctx context.Context, group *errgroup.Group, c *config.Config, known *reload.State, r control.Reporter, process string) {
	r = control.Amended{Reporter: control.Amended{Reporter: r, Amend: drill.Amend(c.State())}, Amend: known.Amend}
	judge, log := &health.Judge{}, service.Logger(os.Stderr, process)
	watcher := alert.New(alert.Options{Reporter: r, Health: judge, Hooks: c.Hooks(), Heartbeat: c.Heartbeat(), State: c.State(), Log: log})
	watched := control.Amended{Reporter: r, Amend: watcher.Amend}
	group.Go(func() error { return watcher.Run(ctx) })
	group.Go(func() error {
		return control.Serve(ctx, c.State(), control.Amended{Reporter: watched, Amend: judge.Amend}, time.Second)
	})
	if h := c.HTTP(); h.Listen != "" {
		group.Go(func() error {
			monitor.Serve(ctx, monitor.Options{Listen: h.Listen, Reporter: watched, Health: judge, Log: log})
			return nil
		})
	}
}
