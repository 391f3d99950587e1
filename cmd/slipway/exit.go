package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/catalog"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/drill"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/internal/supervisor"
)

// The exit codes of the contract.
const (
	exitError    = 1
	exitUsage    = 2
	exitPartly   = 3
	exitFindings = 4
	exitLater    = 5
	exitTimeout  = 124
	exitSignal   = 130
)

// coded is an error with the exit code it asks for.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// errInterrupted is what a person is told who interrupts; where the context was noticed matters to nobody.
var errInterrupted = errors.New("interrupted")

func usagef(format string, args ...any) error { return &coded{exitUsage, fmt.Errorf(format, args...)} }

// exitCode finds the code of an error by its class.
func exitCode(err error) int {
	var c *coded
	var faults *config.Faults
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c):
		return c.code
	case errors.As(err, &faults) || errors.Is(err, access.ErrUsage) || errors.Is(err, drill.ErrUsage) || errors.Is(err, keys.ErrMode) || errors.Is(err, supervisor.ErrPlace) || errors.Is(err, supervisor.ErrConfig):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitSignal
	case errors.Is(err, state.ErrSuperseded):
		return supervisor.ExitSuperseded
	}
	for _, later := range []error{store.ErrTemporary, durable.ErrLocked, catalog.ErrBusy, control.ErrNoDaemon, control.ErrSilent, supervisor.ErrBusy, supervisor.ErrMounted} {
		if errors.Is(err, later) {
			return exitLater
		}
	}
	return exitError
}

// report tells an error once, on stderr: as text, or as one JSON object where the verb was asked for JSON.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	code := exitCode(err)
	if err == nil {
		return 0
	}
	if code == exitSignal {
		err = errInterrupted
	}
	if !isSet(cmd, "json") {
		text := "slipway: " + err.Error() + remedy(err) + "\n"
		if code == exitUsage && !errors.As(err, new(*config.Faults)) {
			text += "see " + cmd.CommandPath() + " --help\n"
		}
		_, _ = io.WriteString(w, text)
		return code
	}
	line := struct {
		MessageType string         `json:"message_type"`
		Code        int            `json:"code"`
		Message     string         `json:"message"`
		Faults      []config.Fault `json:"faults,omitempty"`
	}{"exit_error", code, err.Error() + remedy(err), nil}
	var faults *config.Faults
	if errors.As(err, &faults) {
		line.Faults = faults.Found
	}
	_ = json.NewEncoder(w).Encode(line)
	return code
}
