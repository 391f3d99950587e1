package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/demote"
)

func demoteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "demote --store DIR | --peer FILE",
		Short: "Make the former owner of a volume a replica peer of its new owner",
		Long: `demote is given on a node that owned the volume until another was promoted, with its configuration as the owner, unmounted. What its
spool holds is copied into a replica peer's store, what that lacks comes from the other stores, and the node keeps its key. Without a
peer on this node, --store names a directory that the volume's account writes, and the peer's configuration is written; with --peer, its
configuration is used, and the one that "slipway promote" wrote beside it is put away. Directories with files are not touched.

To fail back, promote this node: see "slipway promote --aside".

Exit code 5: no store that answers knows of another owner, or the volume is mounted.`,
		Example: "  slipway demote -c /etc/slipway/slipway.yml --store /srv/slipway/slipway-projects/data --yes",
		Args:    cobra.NoArgs,
		RunE: primary(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if (text(cmd, "store") == "") == (text(cmd, "peer") == "") {
				return usagef("either --store DIR, for a peer that this node becomes, or --peer FILE, of the one that it is already")
			}
			return demoteVolume(cmd, c)
		}),
	}
	f := c.Flags()
	f.String("store", "", "`DIR` for the copies, which the volume's account on this node writes")
	f.String("peer", "", "configuration `FILE` of the peer that this node is already")
	f.Bool("yes", false, "do not ask")
	return c
}

func demoteVolume(cmd *cobra.Command, c *config.Config) error {
	o := demote.Options{Primary: c.Primary, Say: func(text string) {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "demote:", text) // a closed terminal does not end it
	}}
	var err error
	if o.Path, err = filepath.Abs(c.Path); err != nil {
		return err
	}
	peerPath := text(cmd, "peer")
	if peerPath != "" {
		p, err := config.Load(peerPath)
		if err != nil {
			return err
		}
		if o.Peer = p.Peer; o.Peer == nil {
			return usagef("%s is not the configuration of a replica peer, which has store: and peer:", peerPath)
		}
	} else if o.Store, err = filepath.Abs(text(cmd, "store")); err != nil {
		return err
	}
	if !isSet(cmd, "yes") {
		if err := confirm(cmd, fmt.Sprintf("Make %s a replica peer of volume %s, which it owned? [yes/no] ", c.Primary.Node, c.Primary.Volume)); err != nil {
			return err
		}
	}
	r, err := demote.Run(cmd.Context(), o)
	if errors.Is(err, demote.ErrStillOwner) {
		return &coded{exitLater, err}
	}
	if err != nil {
		return err
	}
	if r.Config == "" {
		r.Config = peerPath
	}
	return showDemoted(cmd.OutOrStdout(), r)
}

func showDemoted(w io.Writer, r *demote.Result) error {
	text := fmt.Sprintf("volume %s: owned by %s since epoch %d; %s is a replica peer, with everything up to batch %d (%d shards copied)\n"+
		"configuration: %s; from now on: slipway peer -c %s\non %s: name this node among replicas:, if it is not there\n",
		r.Volume, r.To, r.Epoch, r.From, r.Head, r.Shards, r.Config, r.Config, r.To)
	if r.Retired != "" {
		text += "the owner's configuration is put away: " + r.Retired + "\n"
	}
	for _, s := range r.Silent {
		text += "warning: not asked: " + s + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
