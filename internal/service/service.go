// Package service is how a daemon of slipway speaks to its surroundings: logs on standard error, and systemd's notifications.
//
// It keeps nothing, so a crash leaves nothing.
package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"github.com/lmittmann/tint"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/render"
)

// The environment variables that set the level of logs, and their form: "text" or "json".
const (
	LogLevel  = "SLIPWAY_LOG_LEVEL"
	LogFormat = "SLIPWAY_LOG_FORMAT"
)

// Logger returns the log of one process: JSON where that is asked for, coloured on a terminal, into systemd's journal with a field for each
// attribute where standard error leads there, and text everywhere else.
func Logger(w io.Writer, process string) *slog.Logger {
	level := slog.LevelInfo
	if err := level.UnmarshalText([]byte(os.Getenv(LogLevel))); err != nil {
		level = slog.LevelInfo
	}
	return slog.New(handler(w, level)).With("process", process)
}

func handler(w io.Writer, level slog.Level) slog.Handler {
	opt := &slog.HandlerOptions{Level: level}
	if os.Getenv(LogFormat) == "json" {
		return slog.NewJSONHandler(w, opt)
	}
	if render.Terminal(w) {
		return tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""})
	}
	text := slog.NewTextHandler(w, opt)
	if is, err := journal.StderrIsJournalStream(); err == nil && is && w == io.Writer(os.Stderr) {
		return &journald{level: level, orElse: text}
	}
	return text
}

// notifyWithin bounds how long systemd may take to take a message. One that does not listen must not keep a daemon from ending.
const notifyWithin = time.Second

// notify sends a message to systemd (sd_notify(3)), if it started this process.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return // nothing depends on being heard
	}
	defer func() { _ = conn.Close() }()
	if conn.SetWriteDeadline(time.Now().Add(notifyWithin)) == nil {
		_, _ = conn.Write([]byte(state)) // likewise
	}
}

// Ready tells systemd that the service is up.
func Ready() { notify(daemon.SdNotifyReady) }

// Reloading tells systemd that the configuration is being read again; Ready ends that.
func Reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // there is one
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

// Say tells systemd in a line how the service is, which `systemctl status` shows.
func Say(line string) { notify("STATUS=" + strings.ReplaceAll(line, "\n", " ")) }

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
			notify(daemon.SdNotifyStopping)
			stopping = nil
		case <-ticker.C:
			notify(daemon.SdNotifyWatchdog)
		}
	}
}
