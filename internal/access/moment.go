package access

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/restore"
)

// ParseAt reads a moment: a batch number, RFC 3339, "2026-11-23 10:00[:00]" in local time, or "10m ago". "" is the newest.
func ParseAt(s string, now time.Time) (restore.At, error) {
	if s = strings.TrimSpace(s); s == "" {
		return restore.At{}, nil
	}
	if seq, err := strconv.ParseUint(s, 10, 64); err == nil && seq > 0 {
		return restore.At{Seq: batch.Seq(seq)}, nil
	}
	if ago, ok := strings.CutSuffix(s, " ago"); ok {
		d, err := config.ParseDuration(ago)
		if err != nil {
			return restore.At{}, fmt.Errorf("%w: --at: %w", ErrUsage, err)
		}
		return restore.At{Time: now.Add(-d)}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return restore.At{Time: t}, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return restore.At{Time: t}, nil
		}
	}
	return restore.At{}, fmt.Errorf("%w: --at: %q is no moment: a batch number, 2026-11-23T10:00:00Z, 2026-11-23 10:00, or 10m ago", ErrUsage, s)
}
