package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/drill"
	"slipway/internal/render"
)

func drillFlags(c *cobra.Command) {
	f := c.Flags()
	f.Bool("drill", false, "restore a sample from each backup host, and compare")
	f.String("identity", "", "drill: age identity `FILE`")
	f.String("ssh-key", "", "drill: private SSH key `FILE` (default that of the configuration)")
	f.String("known-hosts", "", "drill: `FILE` of pinned host keys (default that of the configuration)")
	f.String("volume", "", "drill: `NAME` of the one volume (default all that the configuration's node holds)")
	f.Uint64("seed", 0, "drill: draw the sample by this `NUMBER`, as an earlier drill has printed it (default a new one)")
	f.Int("files", 20, "drill: at most `N` files from each host, half of them of its newest batch")
	f.String("size", "64MiB", "drill: at most so much from each host, `SIZE`")
	f.String("timeout", "10m", "drill: a host that has not given its sample back after this `DURATION` has failed")
}

// runDrill is `doctor --drill`.
func runDrill(cmd *cobra.Command, c *config.Config) error {
	o := drill.Options{
		Config: c, Identity: text(cmd, "identity"), Volume: text(cmd, "volume"), Now: time.Now,
		SSH: config.SSH{Key: text(cmd, "ssh-key"), KnownHosts: text(cmd, "known-hosts")},
	}
	if o.Identity == "" {
		return usagef("--identity is missing: what is sealed opens with an age identity only, and a primary keeps none. Where it must not come to this host, " +
			"drill on the one that keeps it, with a copy of this configuration")
	}
	var err error
	if o.Bytes, err = config.ParseSize(text(cmd, "size")); err != nil {
		return usagef("--size: %v", err)
	}
	if o.Timeout, err = config.ParseDuration(text(cmd, "timeout")); err != nil {
		return usagef("--timeout: %v", err)
	}
	if o.Timeout == 0 {
		return usagef("--timeout: no host gives its sample back in no time")
	}
	if o.Files, err = cmd.Flags().GetInt("files"); err != nil || o.Files < 1 {
		return usagef("--files: write a number from 1 on")
	}
	if o.Seed, err = cmd.Flags().GetUint64("seed"); err != nil {
		return err
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1<<53) + 1 // one that every reader of JSON keeps whole
	}
	list, err := drill.Run(cmd.Context(), o)
	if shown := showAll(cmd, render.Drills, list); shown != nil {
		return shown
	}
	failed := 0
	for _, r := range list {
		if !r.Passed {
			failed++
		}
	}
	if failed > 0 {
		err = errors.Join(&coded{exitFindings, fmt.Errorf("drill: %d of %d failed", failed, len(list))}, err)
	}
	return err
}
