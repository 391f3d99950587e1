package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/offline"
	"slipway/internal/render"
	"slipway/internal/service"
	"slipway/shipper"
)

func shipCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ship",
		Short: "Ship batches from the cache store to the backup hosts, in the foreground",
		Long: `ship is the process on a cache host: it checks what arrives, ships it to every backup host when a sending condition holds,
and acknowledges. --once does what is due and ends; --now ships everything whatever the conditions say, through the running
daemon if there is one; --explain says what each batch waits for, and when it would go.`,
		Example: `  slipway ship -c /etc/slipway/cache.yml
  slipway ship --now
  slipway ship --explain --json`,
		Args: cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if c.Cache == nil {
				return usagef("%s is the configuration of a %s; ship needs that of a cache host (with store: and ship:)", c.Path, c.Role())
			}
			if err := c.CheckKeys(); err != nil {
				return err
			}
			return ship(cmd, c)
		}),
	}
	f := c.Flags()
	f.Bool("once", false, "ship what is due, then end")
	f.Bool("now", false, "ship everything now, whatever the conditions say")
	f.Bool("explain", false, "say what each batch waits for")
	jsonFlag(c)
	return c
}

func ship(cmd *cobra.Command, c *config.Config) error {
	cfg := c.Cache
	ctx, now := cmd.Context(), isSet(cmd, "now")
	if now && !isSet(cmd, "explain") {
		if client, err := control.Dial(cfg.State); err == nil {
			return client.Do(ctx, "ship", "")
		} else if !errors.Is(err, control.ErrNoDaemon) {
			return err
		}
	}
	open := func(c *config.Config) (*shipper.Shipper, error) {
		return shipper.New(shipper.Options{Config: c.Cache, Log: service.Logger(os.Stderr, "shipper")})
	}
	if !isSet(cmd, "explain") && !now && !isSet(cmd, "once") {
		return serve(ctx, c, "shipper", func(c *config.Config) (daemon, error) { return open(c) })
	}
	s, err := open(c)
	if err != nil {
		return err
	}
	if isSet(cmd, "explain") {
		var list []shipper.Explanation
		if list, err = s.Explanations(ctx); err == nil {
			err = showAll(cmd, render.Table(explanationRow, "VOLUME", "BATCH", "HOST", "STATE", "WHEN", "WAITS FOR"), list)
			sayUnheard(cmd, cfg.State)
		}
	} else {
		err = shipOnce(ctx, cmd, s, now)
	}
	return errors.Join(err, s.Close())
}

// sayUnheard says of an explanation what it rests on where the daemon is silent or dead: what was noted last.
func sayUnheard(cmd *cobra.Command, state string) {
	daemon, list, err := control.FindState(cmd.Context(), state)
	if err != nil || daemon == control.Running {
		return
	}
	var at time.Time
	if len(list) > 0 {
		at = list[0].At
	}
	cmd.PrintErrf("slipway: the daemon is %s: this is what it had noted, as of %s ago\n", daemon, offline.Age(at))
}

// shipOnce ships what is due and shows on a terminal how much is left.
func shipOnce(ctx context.Context, cmd *cobra.Command, s *shipper.Shipper, now bool) error {
	bar := render.NewProgress(cmd.ErrOrStderr(), "ship", true)
	return bar.Follow(ctx, func(ctx context.Context) error { return s.ShipOnce(ctx, now) }, func() (left int64) {
		list, _ := s.Explanations(ctx) // a bar that stands still is no reason to stop shipping
		for _, e := range list {
			left += e.Bytes
		}
		return left
	})
}

func explanationRow(e shipper.Explanation) []string {
	at := "not known"
	if e.ETASeconds != nil {
		at = "in " + config.FormatDuration(time.Duration(*e.ETASeconds*float64(time.Second)))
	}
	return []string{e.Volume, fmt.Sprint(e.Seq), e.Host, e.State, at, e.WaitsFor}
}
