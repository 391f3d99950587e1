package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/offline"
	"slipway/internal/render"
	"slipway/internal/service"
	"slipway/internal/store"
	"slipway/internal/volumepath"
	"slipway/shipper"
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
	list = append(list,
		batchOrder("hold", "On the cache host: nothing from this batch on goes to the backup hosts, until release", `hold keeps a batch, and all behind it, on the cache host, whatever
the sending conditions say, over restarts, until "slipway spool release" of the same batch. The next batch may be held before it is there. A
batch that is on its way does not appear on the backup host; one that a backup host has stays there. Without a running shipper the word is
written down for the next one.`),
		batchOrder("release", "On the cache host: end a hold", `release ends a hold of the same batch; sending conditions apply again.`),
		batchOrder("now", "On the cache host: this batch and all before it go now", `now sends a batch and all before it, whatever the sending conditions say; "slipway ship --now" sends everything. Needs the running shipper.`))
	return group("spool", "Look at the node's own store; works with daemons running and dead", list...)
}

func spoolList() *cobra.Command {
	c := &cobra.Command{
		Use: "ls", Short: "The batches sealed, each with its stage and the stores that hold it", Args: cobra.NoArgs,
		Example: `  slipway spool ls --stage cached --sort size
  slipway spool ls --json | jq 'select(.stage != "stored")'`,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			limit, err := limitOf(cmd)
			if err != nil {
				return err
			}
			choice := offline.BatchChoice{
				Volume: text(cmd, "volume"), Stage: text(cmd, "stage"), Held: isSet(cmd, "held"),
				Sort: text(cmd, "sort"), Reverse: isSet(cmd, "reverse"), Limit: limit,
			}
			if err := choice.Check(); err != nil {
				return usagef("%v", err)
			}
			return answers(cmd, c, func(a offline.Answers) error {
				if choice.Volume != "" {
					list, err := a.Status(cmd.Context())
					if err := errors.Join(err, known(choice.Volume, list)); err != nil {
						return err
					}
				}
				rows, err := offline.AllBatches(cmd.Context(), a)
				if err != nil {
					return err
				}
				return showAll(cmd, render.Batches, choice.Of(rows))
			})
		}),
	}
	volumeFlag(c)
	c.Flags().String("stage", "", "only batches at this `STAGE`")
	c.Flags().Bool("held", false, "only batches that an operator holds")
	orderFlags(c, "age, size, files, copies, stage (default: by number)")
	return c
}

// orderFlags are those of a listing.
func orderFlags(c *cobra.Command, orders string) {
	c.Flags().String("sort", "", "`ORDER`: "+orders)
	c.Flags().Bool("reverse", false, "the other way round")
	c.Flags().IntP("limit", "n", 0, "the first `N` only")
}

func spoolPending() *cobra.Command {
	c := &cobra.Command{
		Use: "pending", Short: "The files whose latest content is not sealed yet", Args: cobra.NoArgs,
		Example: "  slipway spool pending --under /srv/projects/reports --sort age -n 10",
		RunE: primary(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			limit, err := limitOf(cmd)
			choice := offline.PendingChoice{State: text(cmd, "state"), Sort: text(cmd, "sort"), Reverse: isSet(cmd, "reverse"), Limit: limit}
			if err == nil {
				err = cmp.Or(pendingState(choice.State), choice.Check())
			}
			if under := text(cmd, "under"); under != "" && err == nil {
				choice.Under, err = volumepath.Of(c.Primary, under)
			}
			if err != nil {
				return &coded{exitUsage, err}
			}
			return answers(cmd, c, func(a offline.Answers) error {
				rows, err := a.Pending(cmd.Context(), 0)
				if err != nil {
					return err
				}
				return showAll(cmd, render.Pending, choice.Of(rows))
			})
		}),
	}
	c.Flags().String("state", "", "only files in this `STATE`: "+strings.Join(pendingStates, ", "))
	c.Flags().String("under", "", "only what lies at or below this `PATH`")
	orderFlags(c, "age, size (default: by path)")
	return c
}

func spoolShow() *cobra.Command {
	return &cobra.Command{
		Use: "show BATCH", Short: "What a batch's envelope says, and where the batch is", Args: cobra.ExactArgs(1),
		Example: "  slipway spool show 42",
		RunE: configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
			seq, err := batchNumber(args[0])
			if err != nil {
				return err
			}
			b, err := access.ShowBatch(cmd.Context(), access.OwnStore(c), seq)
			if errors.Is(err, store.ErrNotExist) {
				return fmt.Errorf("batch %d is not in this node's store; \"slipway spool ls\" lists what is", seq)
			}
			if err != nil {
				return err
			}
			// The batch file is there to be shown even where no daemon and no catalog can say how far the batch has come.
			_ = answers(cmd, c, func(a offline.Answers) error {
				rows, err := a.Batches(cmd.Context(), b.Volume, seq, 1)
				b.Stands(rows)
				return err
			})
			return show(cmd, render.Batch, b)
		}),
	}
}

func batchNumber(arg string) (uint64, error) {
	seq, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return 0, usagef("%q is not a batch number", arg)
	}
	return seq, nil
}

// batchOrder is an operator's word on one batch, to the shipper of this node.
func batchOrder(verb, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " BATCH", Short: short, Args: cobra.ExactArgs(1), Long: long,
		Example: "  slipway spool " + verb + " 42 -c /etc/slipway/cache.yml",
		RunE: configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
			seq, err := batchNumber(args[0])
			if err != nil {
				return err
			}
			if c.Cache == nil {
				return usagef("%s is the configuration of a %s; what goes to the backup hosts is decided on the cache host: run \"slipway spool %s %d\" there", c.Path, c.Role(), verb, seq)
			}
			volume, err := volumeOf(cmd.Context(), c, text(cmd, "volume"))
			if err != nil {
				return err
			}
			if err := orderBatch(cmd.Context(), c.Cache, verb, fmt.Sprintf("%s/%d", volume, seq)); err != nil || verb != "hold" {
				return err
			}
			return sayHeld(cmd, c, volume, seq)
		}),
	}
	volumeFlag(c)
	return c
}

// sayHeld says where a batch is that is held from now on: a backup host that has it keeps it.
func sayHeld(cmd *cobra.Command, c *config.Config, volume string, seq uint64) error {
	return answers(cmd, c, func(a offline.Answers) error {
		rows, err := a.Batches(cmd.Context(), volume, seq, 1)
		if err != nil {
			return err
		}
		where := "it is not here yet"
		if len(rows) > 0 {
			where = "it is in " + strings.Join(rows[0].Stores, ", ")
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "batch %d is held, and all behind it; %s\n", seq, where)
		return err
	})
}

// orderBatch tells the running shipper; without one the word is written down for the next, except "now", which nobody would hear.
func orderBatch(ctx context.Context, c *config.Cache, verb, arg string) error {
	client, err := control.Dial(c.State)
	if err == nil {
		return client.Do(ctx, verb, arg)
	}
	if !errors.Is(err, control.ErrNoDaemon) || verb == "now" {
		return fmt.Errorf("%s: %w", verb, err)
	}
	s, err := shipper.New(shipper.Options{Config: c, Log: service.Logger(os.Stderr, "spool")})
	if err != nil {
		return err
	}
	return errors.Join(s.OrderOnce(ctx, verb, arg), s.Close())
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
