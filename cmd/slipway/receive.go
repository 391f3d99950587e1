package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/receive"
	"slipway/internal/render"
	"slipway/internal/service"
)

// receiver is configured for verbs that only a receiver has.
func receiver(do func(*cobra.Command, *config.Receive) error) func(*cobra.Command, []string) error {
	return configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
		if err := needReceiver(cmd, c); err != nil {
			return err
		}
		return do(cmd, c.Receive)
	})
}

func needReceiver(cmd *cobra.Command, c *config.Config) error {
	if c.Receive == nil {
		return usagef("%s is the configuration of a %s; %q needs a receiver's (with store: and receive:)", c.Path, c.Role(), cmd.CommandPath())
	}
	return nil
}

func receiveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "receive",
		Short: "Keep what other clusters' shippers send to this node; in the foreground",
		Long: `receive is the process on a node that is a backup host of other clusters. OpenSSH is enough to be one; with this process beside it only
volumes whose owner's key is configured are accepted, every batch is checked when it comes, and each volume has its quota.`,
		Example: "  slipway receive -c /etc/slipway/receive.yml",
		Args:    cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if err := needReceiver(cmd, c); err != nil {
				return err
			}
			return serve(cmd.Context(), c, "receive", func(c *config.Config) (daemon, error) {
				return receive.New(receive.Options{Config: c.Receive, Log: service.Logger(os.Stderr, "receive")})
			})
		}),
	}
}

func receivedCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "ls", Short: "The volumes received, each with its owner, newest batch, size and quota", Args: cobra.NoArgs,
		Example: "  slipway received ls --json | jq 'select(.state != \"ok\")'",
		RunE: receiver(func(cmd *cobra.Command, c *config.Receive) error {
			rows, err := receive.List(cmd.Context(), c)
			if err != nil {
				return err
			}
			return showAll(cmd, render.Received, rows)
		}),
	}
	verify := &cobra.Command{
		Use: "verify [VOLUME...]", Short: "Check the volumes received, every shard read; exit code 4 when something is found",
		RunE: configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
			if err := needReceiver(cmd, c); err != nil {
				return err
			}
			return verifyReceived(cmd, c, args)
		}),
	}
	jsonFlag(list)
	jsonFlag(verify)
	return group("received", "Look at what other clusters have sent to this node; works with the daemon running or dead", list, verify)
}

// verifyReceived checks the volumes named, or all that are accepted.
func verifyReceived(cmd *cobra.Command, c *config.Config, names []string) error {
	if len(names) == 0 {
		rows, err := receive.List(cmd.Context(), c.Receive)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Batch > 0 {
				names = append(names, row.Volume)
			}
		}
	}
	var errs []error
	for _, name := range names {
		r := access.OwnStore(c)
		r.Volume = name
		errs = append(errs, verifyAll(cmd, r, true))
	}
	return errors.Join(errs...)
}
