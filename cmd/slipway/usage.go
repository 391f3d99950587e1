package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/control"
)

// unknownCommand says so, and what may have been meant.
func unknownCommand(cmd *cobra.Command, arg string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := ""
	if near := cmd.SuggestionsFor(arg); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	if cmd.HasParent() {
		return usagef("unknown command %q for %q%s", arg, cmd.CommandPath(), hint)
	}
	return usagef("unknown command %q%s", arg, hint)
}

// strict makes wrong arguments a matter of usage, for c and everything below it, in words of our own: cobra's speak of its functions.
func strict(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return wrongArguments(cmd, args)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

func wrongArguments(cmd *cobra.Command, args []string) error {
	takes := strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use
	switch {
	case len(args) == 0:
		return usagef("an argument is missing: %s", takes)
	case len(cmd.ValidArgs) > 0 && len(args) == 1:
		return usagef("%q is none of %s", args[0], strings.Join(cmd.ValidArgs, ", "))
	}
	return usagef("%q is too much: %s", args[len(args)-1], takes)
}

// wrongFlag says of a flag's value that is none only that; what the parser of numbers thought is of no use.
func wrongFlag(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return usagef("--%s: %q is not a value of this flag", invalid.GetFlag().Name, invalid.GetValue())
	}
	return usagef("%v", err)
}

// logLevel checks --log-level, which a daemon that cannot read it would pass over.
func logLevel(word string) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(word)); err != nil {
		return usagef("--log-level: %q is none of debug, info, warn, error", word)
	}
	return nil
}

// limitOf reads --limit.
func limitOf(cmd *cobra.Command) (int, error) {
	n := number(cmd, "limit")
	if n < 0 {
		return 0, usagef("--limit: %d is not a number of rows", n)
	}
	return n, nil
}

// pendingStates are the words of `spool pending` (docs/states.md).
var pendingStates = []string{"new", "written", "open", "unclean", "unread", "excluded", "unsearched"}

func pendingState(word string) error {
	if word != "" && !slices.Contains(pendingStates, word) {
		return usagef("--state: %q is not a state: %s", word, strings.Join(pendingStates, ", "))
	}
	return nil
}

// remedy is what to do about an error that leaves that open.
func remedy(err error) string {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Net == "unix" && errors.Is(err, fs.ErrPermission):
		return "; run this as root, or as the user that the daemon runs as"
	case errors.Is(err, control.ErrSilent):
		return "; see whether its process is stopped or stuck, and its log"
	case errors.Is(err, control.ErrNoDaemon):
		return "; start it, or see in its log why it ended"
	}
	return ""
}

// known checks a volume's name against those that a node holds.
func known(volume string, list []control.Status) error {
	var names []string
	for _, s := range list {
		names = append(names, s.Volume)
	}
	if volume == "" || slices.Contains(names, volume) {
		return nil
	}
	return fmt.Errorf("this node holds no volume %q; it holds: %s", volume, strings.Join(names, ", "))
}
