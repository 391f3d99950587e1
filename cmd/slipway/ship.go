package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/control"
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
				return usagef("%s is the configuration of a %s; ship needs that of a cache host (with store: and ship:)", c.Path, roleOf(c))
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
	s, err := shipper.New(shipper.Options{Config: cfg, Log: service.Logger(os.Stderr, "shipper")})
	if err != nil {
		return err
	}
	switch {
	case isSet(cmd, "explain"):
		var list []shipper.Explanation
		if list, err = s.Explanations(ctx); err == nil {
			err = showAll(cmd, render.Table(explanationRow, "VOLUME", "BATCH", "HOST", "STATE", "WHEN", "WAITS FOR"), list)
		}
	case now || isSet(cmd, "once"):
		err = shipOnce(ctx, cmd, s, now)
	default:
		err = ended(ctx, service.Run(ctx, func(ctx context.Context) error { return shipAlways(ctx, c, s) }))
	}
	return errors.Join(err, s.Close())
}

// shipAlways is the daemon: the shipper and its socket.
func shipAlways(ctx context.Context, c *config.Config, s *shipper.Shipper) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(ctx) })
	observe(ctx, group, c, s, "shipper")
	service.Ready()
	return group.Wait()
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
