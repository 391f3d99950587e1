package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// systemd listens where NOTIFY_SOCKET says, as the init system does.
func systemd(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotifications(t *testing.T) {
	conn := systemd(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	Ready()
	if got := next(t, conn); got != "READY=1" {
		t.Errorf("%q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	fault := errors.New("fault")
	err := Run(ctx, func(ctx context.Context) error {
		for range 2 {
			if got := next(t, conn); got != "WATCHDOG=1" {
				t.Errorf("%q", got)
			}
		}
		stop()
		for {
			if got := next(t, conn); got == "STOPPING=1" {
				break
			} else if got != "WATCHDOG=1" {
				t.Errorf("%q", got)
			}
		}
		if got := next(t, conn); got != "WATCHDOG=1" { // it is still alive while it ends
			t.Errorf("%q", got)
		}
		return fault
	})
	if !errors.Is(err, fault) {
		t.Errorf("%v", err)
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "soon")
	Ready()
	if err := Run(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestLogger(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	for level, want := range map[string]int{"": 1, "debug": 2, "error": 0, "nonsense": 1} {
		t.Setenv("SLIPWAY_LOG_LEVEL", level)
		var b bytes.Buffer
		log := Logger(&b, "spooler")
		log.Info("sealed", "batch", 4)
		log.Debug("looked")
		if n := strings.Count(b.String(), "\n"); n != want {
			t.Errorf("level %q: %d lines, want %d", level, n, want)
		}
		if want > 0 && !strings.Contains(b.String(), "msg=sealed process=spooler batch=4") {
			t.Errorf("%q", b.String())
		}
	}
}

// TestJournaldText: attributes stand behind the message as a text log has them, and each is a field with a name that journald allows.
func TestJournaldText(t *testing.T) {
	attrs := []slog.Attr{slog.String("store", "vault1"), slog.Any("error", errors.New("no route")), slog.Group("g", slog.Time("time", time.Unix(0, 0).UTC()))}
	if got := inText(attrs); got != `store=vault1 error="no route" g.time=1970-01-01T00:00:00.000Z` {
		t.Errorf("%q", got)
	}
	if got := fieldName("again_in-9ü"); got != "AGAIN_IN_9_" {
		t.Error(got)
	}
	for level, want := range map[slog.Level]journal.Priority{
		slog.LevelDebug: journal.PriDebug, slog.LevelInfo: journal.PriInfo, slog.LevelWarn: journal.PriWarning, slog.LevelError: journal.PriErr, slog.LevelError + 4: journal.PriErr,
	} {
		if got := priority(level); got != want {
			t.Errorf("%v: %v, want %v", level, got, want)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Setenv(LogFormat, "json")
	var b bytes.Buffer
	Logger(&b, "spooler").Info("sealed", "batch", 4)
	if got := b.String(); !strings.Contains(got, `"msg":"sealed","process":"spooler","batch":4}`) {
		t.Errorf("%q", got)
	}
}

// TestNobodyListens: a systemd that takes nothing keeps nobody waiting for long.
func TestNobodyListens(t *testing.T) {
	systemd(t) // its queue holds a few messages, and is never read
	t.Setenv("WATCHDOG_USEC", "1000")
	ended := make(chan error, 1)
	go func() {
		for range 12 {
			Say("still here")
		}
		ended <- Run(t.Context(), func(context.Context) error { return nil })
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits to be heard")
	}
}
