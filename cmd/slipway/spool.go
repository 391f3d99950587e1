package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/offline"
	"slipway/internal/render"
)

func spoolCommand() *cobra.Command {
	verify := &cobra.Command{
		Use: "verify", Short: "Check the node's own store, every shard read; exit code 4 when something is found", Args: cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			return verifyAll(cmd, access.OwnStore(c), true)
		}),
	}
	list := []*cobra.Command{spoolList(), spoolShow(), spoolPending(), spoolBranches(), verify}
	for _, c := range list {
		jsonFlag(c)
	}
	return group("spool", "Look at the node's own store; works with daemons running and dead", list...)
}

func spoolList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The batches sealed, each with its stage", Args: cobra.NoArgs,
		Example: "  slipway spool ls --json | jq 'select(.stage != \"stored\")'",
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			return answers(cmd, c, func(a offline.Answers) error {
				rows, err := offline.AllBatches(cmd.Context(), a)
				if err != nil {
					return err
				}
				return showAll(cmd, render.Batches, rows)
			})
		}),
	}
}

func spoolPending() *cobra.Command {
	return &cobra.Command{
		Use: "pending", Short: "The files whose latest content is not sealed yet", Args: cobra.NoArgs,
		RunE: primary(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			return answers(cmd, c, func(a offline.Answers) error {
				rows, err := a.Pending(cmd.Context(), 0)
				if err != nil {
					return err
				}
				return showAll(cmd, render.Pending, rows)
			})
		}),
	}
}

func spoolShow() *cobra.Command {
	return &cobra.Command{
		Use: "show BATCH", Short: "What a batch's envelope says", Args: cobra.ExactArgs(1),
		Example: "  slipway spool show 42",
		RunE: configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
			seq, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usagef("%q is not a batch number", args[0])
			}
			b, err := access.ShowBatch(cmd.Context(), access.OwnStore(c), seq)
			if err != nil {
				return err
			}
			return show(cmd, render.Batch, b)
		}),
	}
}

func spoolBranches() *cobra.Command {
	return &cobra.Command{
		Use: "branches", Short: "Batches that the main line has left behind: sealed by an owner that was replaced before they were pushed", Args: cobra.NoArgs,
		Long: `branches reads the stores of the configuration, the node's own among them, and lists what an owner sealed after another node had
begun the next epoch without it. Nothing of it is removed; "restore --epoch N" brings the volume back as it was at the end of such a branch.`,
		Example: `  slipway spool branches
  slipway restore --epoch 1 --identity projects.identity --target /tmp/branch`,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			list, err := access.Branches(cmd.Context(), access.Request{Config: c})
			if err != nil {
				return err
			}
			return showAll(cmd, render.Branches, list)
		}),
	}
}
