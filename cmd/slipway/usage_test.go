package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"testing"

	"slipway/internal/control"
)

// TestRemedies: an error that leaves open what to do about it is told with that, and no other one is.
func TestRemedies(t *testing.T) {
	for want, err := range map[string]error{
		"or as the user that the daemon runs as": &net.OpError{Op: "dial", Net: "unix", Err: fs.ErrPermission},
		"and its log":                            control.ErrSilent,
		"why it ended":                           control.ErrNoDaemon,
	} {
		if got := remedy(fmt.Errorf("ask: %w", err)); !strings.HasPrefix(got, "; ") || !strings.HasSuffix(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
	for _, err := range []error{fs.ErrPermission, &net.OpError{Op: "dial", Net: "unix", Err: errors.New("refused")}, &net.OpError{Op: "dial", Net: "tcp", Err: fs.ErrPermission}} {
		if got := remedy(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}
