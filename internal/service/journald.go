package service

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journald is a log that goes to the journal of systemd: the message with its attributes as text, so that `journalctl -u` shows them, and
// each attribute as a field of its own besides, SLIPWAY_<NAME>, so that `journalctl SLIPWAY_STORE=vault1` finds it.
type journald struct {
	level  slog.Level
	attrs  []slog.Attr
	orElse slog.Handler // where the journal does not take it
}

// Enabled implements slog.Handler.
func (h *journald) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs implements slog.Handler.
func (h *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journald{h.level, append(slices.Clip(h.attrs), attrs...), h.orElse.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler. Nobody here groups attributes.
func (h *journald) WithGroup(string) slog.Handler { return h }

// Handle implements slog.Handler.
func (h *journald) Handle(ctx context.Context, r slog.Record) error {
	all := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool { all = append(all, a); return true })
	fields := map[string]string{}
	for _, a := range all {
		fields["SLIPWAY_"+fieldName(a.Key)] = a.Value.Resolve().String()
	}
	if err := journal.Send(strings.TrimSpace(r.Message+" "+inText(all)), priority(r.Level), fields); err != nil {
		return h.orElse.Handle(ctx, r)
	}
	return nil
}

// inText writes attributes as a text log does.
func inText(attrs []slog.Attr) string {
	var b bytes.Buffer
	bare := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	var r slog.Record // without a time it has none
	r.AddAttrs(attrs...)
	_ = bare.Handle(context.Background(), r) // a buffer takes everything
	return strings.TrimSpace(b.String())
}

// fieldName keeps what journald allows in a field's name: capitals, digits, underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(key))
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
