package main

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/config"
	"slipway/internal/control"
)

// completions are what the shell offers for flags that do not take files, by the flag's name.
var completions = map[string]cobra.CompletionFunc{
	"stage": stages, "drain": stages, "volume": volumes,
	"log-level": cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp),
	"at":        cobra.NoFileCompletions, "to": cobra.NoFileCompletions, "timeout": cobra.NoFileCompletions, "copies": cobra.NoFileCompletions,
	"epoch": cobra.NoFileCompletions, "node": cobra.NoFileCompletions, "limit": cobra.NoFileCompletions, "options": cobra.NoFileCompletions,
	"state": cobra.FixedCompletions(pendingStates, cobra.ShellCompDirectiveNoFileComp), "sort": orders,
}

// orders are those of the listing that is asked for.
func orders(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if cmd.Name() == "pending" {
		return []string{"age", "size"}, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"age", "size", "files", "copies", "stage"}, cobra.ShellCompDirectiveNoFileComp
}

// completeFlags tells the shell what the flags of c, and of everything below it, may be.
func completeFlags(c *cobra.Command) error {
	var err error
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		values, ok := completions[f.Name]
		value, _ := pflag.UnquoteUsage(f)
		if value == "DIR" { // init's --state is one, too
			values, ok = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}, true
		}
		if ok && err == nil {
			err = c.RegisterFlagCompletionFunc(f.Name, values)
		}
	})
	for _, sub := range c.Commands() {
		if err == nil {
			err = completeFlags(sub)
		}
	}
	return err
}

func stages(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var words []string
	for s := control.Pending; s <= control.Verified; s++ {
		words = append(words, s.String())
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// volumes are those that the configuration names.
func volumes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := config.Load(text(cmd, "config"))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var owners map[string][]string
	switch {
	case c.Primary != nil:
		return []string{c.Primary.Volume}, cobra.ShellCompDirectiveNoFileComp
	case c.Cache != nil:
		owners = c.Cache.Owners
	case c.Peer != nil:
		owners = c.Peer.Owners
	case c.Receive != nil:
		owners = c.Receive.Owners
	}
	return slices.Sorted(maps.Keys(owners)), cobra.ShellCompDirectiveNoFileComp
}
