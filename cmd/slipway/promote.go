package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"slipway/internal/claim"
	"slipway/internal/config"
	"slipway/internal/promote"
)

func promoteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "promote VOLUME [--source DIR] --identity FILE",
		Short: "Make this replica peer the owner of a volume whose owner is gone for good, and mount it",
		Long: `promote is given on a replica peer, with its configuration. It asks all configured stores for the newest valid batch, completes
this node's copy, claims the next epoch on the cache, brings the files back into --source, writes a primary's configuration
beside the peer's state, and goes on as mount. Of two nodes that are promoted at once one is. Cut off, the same command goes on.

Without --source a peer that keeps a warm tree (peer.warm) makes that the source: it is brought to the newest batch and mounted, and
nothing of it is restored.

To fail back, promote the former owner, which "slipway demote" has made a peer: with --aside its directory is compared with the volume,
content included, what is the same stays, what differs or is not in the volume is moved to another directory, and only the difference is
brought back.

Exit code 5: a store is silent, the owner shows signs of life, or another node was promoted; see --force for the first two.`,
		Example: "  slipway promote projects -c /etc/slipway/peer.yml --source /srv/projects --identity projects.identity --yes",
		Args:    cobra.ExactArgs(1),
		RunE: configured(func(cmd *cobra.Command, c *config.Config, args []string) error {
			if c.Peer == nil {
				return usagef("%s is not the configuration of a replica peer, which has store: and peer:", c.Path)
			}
			return promoteVolume(cmd, c.Peer, args[0])
		}),
	}
	f := c.Flags()
	f.String("source", "", "`DIR` to bring the files back into; it is made if it is not there (default: the warm tree)")
	f.String("mount", "", "`DIR` to mount on (default: the source)")
	f.String("identity", "", "age identity `FILE` of the volume")
	f.StringArray("recipient", nil, "who else may read what is sealed from now on, `AGE1…` (repeatable; the identity's own is always one)")
	f.StringArray("replica", nil, "a further replica peer's store, `[NAME=]URL`, such as the former owner's (repeatable)")
	f.String("aside", "", "`DIR` that gets what lies in the source and is not as in the volume; on the same file system")
	f.Bool("force", false, "though a store is silent, the owner may live, DIR is not empty, or files cannot be brought back: what may be lost is printed")
	f.Bool("yes", false, "do not ask")
	f.Bool("no-mount", false, "do not mount: end when the configuration is written")
	return c
}

func promoteVolume(cmd *cobra.Command, p *config.Peer, volume string) error {
	o := promote.Options{Config: p, Volume: volume, Force: isSet(cmd, "force"), Say: func(text string) {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "promote:", text) // a closed terminal does not end a promotion
	}}
	for flag, to := range map[string]*string{"source": &o.Source, "mount": &o.Mount, "identity": &o.Identity, "aside": &o.Aside} {
		if *to = text(cmd, flag); *to == "" {
			continue
		}
		abs, err := filepath.Abs(*to)
		if err != nil {
			return err
		}
		*to = abs
	}
	switch {
	case o.Identity == "":
		return usagef("--identity is missing")
	case o.Source == "" && p.Warm == "":
		return usagef("--source is missing, and %s keeps no warm tree that could become the source", p.Node)
	}
	o.Recipients, _ = cmd.Flags().GetStringArray("recipient") // a flag of this command
	replicas, _ := cmd.Flags().GetStringArray("replica")      // likewise
	for _, s := range replicas {
		o.Replicas = append(o.Replicas, config.ParseStore(s))
	}
	if !isSet(cmd, "yes") {
		if err := confirm(cmd, fmt.Sprintf("Make %s the owner of volume %s, under the next epoch? The former owner's batches will not count any more. [yes/no] ", p.Node, volume)); err != nil {
			return err
		}
	}
	r, err := promote.Run(cmd.Context(), o)
	if err != nil {
		return promoteCode(err)
	}
	if err := showPromoted(cmd.OutOrStdout(), r); err != nil || isSet(cmd, "no-mount") {
		return err
	}
	c, err := config.Load(r.Config)
	if err != nil {
		return err
	}
	return mountVolume(cmd, c, nil)
}

// confirm asks on the terminal, or whatever standard input is.
func confirm(cmd *cobra.Command, question string) error {
	if _, err := fmt.Fprint(cmd.ErrOrStderr(), question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return usagef("nothing was done: answer yes, or give --yes")
	}
	return nil
}

func promoteCode(err error) error {
	for _, later := range []error{promote.ErrSilent, promote.ErrAlive, claim.ErrTaken} {
		if errors.Is(err, later) {
			return &coded{exitLater, err}
		}
	}
	if errors.Is(err, promote.ErrPartial) {
		return &coded{exitPartly, err}
	}
	return err
}

func showPromoted(w io.Writer, r *promote.Result) error {
	text := fmt.Sprintf("volume %s: %s → %s, epoch %d, behind batch %d; %d files in %s\nconfiguration: %s; from now on: slipway mount -c %s\n",
		r.Volume, r.From, r.To, r.Epoch, r.After, r.Files, r.Source, r.Config, r.Config)
	for _, about := range []struct {
		what string
		list []string
	}{{"was moved aside", r.Aside}, {"is not there", r.Missing}, {"differs, and is sealed as it is", r.Differ}} {
		for i, path := range about.list {
			if i == 10 {
				text += fmt.Sprintf("%d more: %s\n", len(about.list)-i, about.what)
				break
			}
			text += fmt.Sprintf("%s %s\n", path, about.what)
		}
	}
	for _, warning := range r.Warnings {
		text += "warning: " + warning + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
