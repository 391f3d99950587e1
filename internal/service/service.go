// Package service is how a daemon of slipway speaks to its surroundings: logs on standard error, and systemd's notifications.
//
// It keeps nothing, so a crash leaves nothing.
package service

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/lmittmann/tint"
	"golang.org/x/sync/errgroup"

	"slipway/internal/render"
)

// LogLevel is the environment variable that sets the level of logs.
const LogLevel = "SLIPWAY_LOG_LEVEL"

// Logger returns the log of one process: coloured on a terminal, without times where the journal of systemd adds them.
// LogLevel sets the level.
func Logger(w io.Writer, process string) *slog.Logger {
	level := slog.LevelInfo
	if err := level.UnmarshalText([]byte(os.Getenv(LogLevel))); err != nil {
		level = slog.LevelInfo
	}
	if render.Terminal(w) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""})).With("process", process)
	}
	opt := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opt.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opt)).With("process", process)
}

// Ready tells systemd that the service is up.
func Ready() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }

// Run runs fn, keeps systemd's watchdog content meanwhile, and says when the end begins.
func Run(ctx context.Context, fn func(context.Context) error) error {
	watched, stop := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return fn(ctx)
	})
	g.Go(func() error { return watchdog(ctx, watched) })
	return g.Wait()
}

// watchdog notifies until ended is done, and says once when ctx is.
func watchdog(ctx, ended context.Context) error {
	every := time.Hour
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		every = time.Duration(usec) * time.Microsecond / 2
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	stopping := ctx.Done()
	for {
		select {
		case <-ended.Done():
			return nil
		case <-stopping:
			_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
			stopping = nil
		case <-ticker.C:
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}
