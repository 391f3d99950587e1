package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/offline"
	"slipway/internal/render"
)

func senderCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Who sends each volume, since which term, and why", Args: cobra.NoArgs,
		Example: "  slipway sender show --json",
		RunE: senders(func(cmd *cobra.Command, cfg *config.Config, _ []string) error {
			list, err := offline.Status(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			err = showAll(cmd, render.Table(senderCells, "VOLUME", "SENDER", "TERM", "STATE", "HERE", "PINNED", "DRAINED", "WHY"), senderRows(list))
			if err == nil && len(list) > 0 && list[0].Stale {
				cmd.PrintErrf("slipway: the daemon is %s: this is as of %s ago\n", list[0].Daemon, offline.Age(list[0].At))
			}
			return err
		}),
	}
	jsonFlag(show)
	pin := order("pin NODE", "Make a node the sender, and prefer it until release", "pin", cobra.ExactArgs(1))
	drain := order("drain", "Hand sending over from this node to the next, and keep it from sending until release", "drain", cobra.NoArgs)
	release := order("release", "End pins and drains: the owner sends again", "release", cobra.NoArgs)
	c := group("sender", "Which node of the cluster sends a volume to the cache", show, pin, drain, release)
	c.Long = `The owner of a volume sends it to the cache; a replica peer takes over when it errs, falls silent or delivers nothing, and the
owner comes back after a while of health. pin, drain and release are the operator's word, written as a claim on the cache.`
	return c
}

// senders is configured for verbs of nodes that send: a cache host and a receiver only take.
func senders(do work) func(*cobra.Command, []string) error {
	return configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
		if c.Primary == nil && c.Peer == nil {
			return usagef("%s is the configuration of a %s; %q needs a primary's or a replica peer's", c.Path, c.Role(), cmd.CommandPath())
		}
		return do(cmd, c, args)
	})
}

// order is an operator's word to the daemon of this node.
func order(use, short, verb string, args cobra.PositionalArgs) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: args,
		Example: "  slipway sender " + use + " --volume projects",
		RunE: senders(func(cmd *cobra.Command, cfg *config.Config, args []string) error {
			volume, err := volumeOf(cmd.Context(), cfg, text(cmd, "volume"))
			if err != nil {
				return err
			}
			client, err := control.Dial(cfg.State())
			if errors.Is(err, control.ErrNoDaemon) {
				return fmt.Errorf("sender %s is said to this node's daemon: %w", verb, err)
			}
			if err != nil {
				return err
			}
			return client.Do(cmd.Context(), verb, volume+"/"+strings.Join(args, ""))
		}),
	}
	volumeFlag(c)
	return c
}

func volumeFlag(c *cobra.Command) {
	c.Flags().String("volume", "", "the `VOLUME`, where this node holds several")
}

// volumeOf returns the volume that is meant: the one named, or the only one there is.
func volumeOf(ctx context.Context, cfg *config.Config, named string) (string, error) {
	if named != "" && cfg.Primary != nil {
		return named, known(named, []control.Status{{Volume: cfg.Primary.Volume}})
	}
	if named != "" {
		return named, nil
	}
	if cfg.Primary != nil {
		return cfg.Primary.Volume, nil
	}
	list, err := offline.Status(ctx, cfg)
	if err != nil {
		return "", err
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Volume)
	}
	if len(names) == 0 {
		return "", errors.New("no volume has come to this node yet")
	}
	if len(names) > 1 {
		return "", usagef("which volume? name one with --volume: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

// senderRow is a line of `sender show --json`.
type senderRow struct {
	Volume string `json:"volume"`
	control.SenderStatus
	Stale bool `json:"stale"`
}

func senderRows(list []control.Status) []senderRow {
	rows := make([]senderRow, 0, len(list))
	for _, s := range list {
		if s.Sender.Node != "" {
			rows = append(rows, senderRow{s.Volume, s.Sender, s.Stale})
		}
	}
	return rows
}

func senderCells(r senderRow) []string {
	why := r.Reason
	if r.Trouble != "" {
		why += "; " + r.Trouble
	}
	return []string{r.Volume, r.Node, fmt.Sprint(r.Term), r.State, r.Here, r.Prefer, strings.Join(r.Avoid, " "), why}
}
