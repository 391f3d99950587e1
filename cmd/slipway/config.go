package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/release"
)

func configCommand() *cobra.Command {
	check := &cobra.Command{
		Use:     "check",
		Short:   "Check a configuration and what it names on this machine; all faults at once; contacts nobody",
		Example: "  slipway config check -c /etc/slipway/slipway.yml",
		Args:    cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if err := c.Check(); err != nil {
				return err
			}
			for _, w := range c.Warnings {
				cmd.PrintErrln("slipway: warning:", w)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no faults\n", c.Path)
			return err
		}),
	}
	jsonFlag(check)
	return group("config", "Look at a configuration", check)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			commit := "unknown commit"
			if c := release.Commit(); c != "" {
				commit = "commit " + c
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "slipway %s, %s, %s, formats: shard 1, batch 1\n", release.Version, commit, runtime.Version())
			return err
		},
	}
}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a shell's completion script",
		Example:   "  slipway completion bash > /etc/bash_completion.d/slipway",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(w, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(w)
			default:
				return cmd.Root().GenFishCompletion(w, true)
			}
		},
	}
}
