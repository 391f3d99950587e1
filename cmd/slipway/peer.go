package main

import (
	"os"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/service"
	"slipway/spooler/peer"
)

func peerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peer",
		Short: "Hold replicas of other nodes' volumes, and send them on when their sender does not work; in the foreground",
		Long: `peer is the process on a replica peer: it checks what owners push into its store, acknowledges it, and takes over sending to
the cache from its own copy when the sender errs, falls silent or delivers nothing. It cannot read what it holds, unless peer.identity
is set: then it keeps a directory of each volume's newest state below peer.warm.`,
		Example: "  slipway peer -c /etc/slipway/peer.yml",
		Args:    cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if c.Peer == nil {
				return usagef("%s is not the configuration of a replica peer, which has store: and peer:", c.Path)
			}
			if err := c.CheckKeys(); err != nil {
				return err
			}
			return serve(cmd.Context(), c, "peer", func(c *config.Config) (daemon, error) {
				return peer.New(peer.Options{Config: c.Peer, Log: service.Logger(os.Stderr, "peer")})
			})
		}),
	}
}
