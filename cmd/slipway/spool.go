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
	list := []*cobra.Command{spoolList(), spoolShow(), spoolPending(), verify}
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
