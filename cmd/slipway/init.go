package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/initialise"
	"slipway/internal/render"
)

func initCommand() *cobra.Command {
	var o initialise.Options
	var cache string
	var backups, replicas []string
	c := &cobra.Command{
		Use:   "init --volume V --source DIR --mount DIR --cache [NAME=]URL",
		Short: "Make a volume: configuration, node key and age identity; contacts nobody",
		Long: `init writes a commented configuration, the node's key, the volume's secret and an age identity, never over an existing file. What
the flags do not say it asks for on a terminal, with each answer judged at once, and shows what it will write before it does.`,
		Example: `  slipway init -c /etc/slipway/projects.yml
  slipway init --volume projects --source /srv/projects --mount /srv/projects \
      --cache cache1=sftp://slipway-projects@cache1/data --backup vault1=sftp://slipway-projects@vault1/data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Config = text(cmd, "config")
			if cache != "" {
				o.Cache = config.ParseStore(cache)
			}
			for _, s := range backups {
				o.Backups = append(o.Backups, config.ParseStore(s))
			}
			for _, s := range replicas {
				o.Replicas = append(o.Replicas, config.ParseStore(s))
			}
			if err := askForMissing(cmd, &o); err != nil {
				return err
			}
			r, err := initialise.Init(o)
			if err != nil {
				return err
			}
			return show(cmd, render.Init, r)
		},
	}
	initFlags(c, &o)
	f := c.Flags()
	f.StringVar(&cache, "cache", "", "store of the cache host, `[NAME=]URL`")
	f.StringArrayVar(&backups, "backup", nil, "a backup host's store, `[NAME=]URL` (repeatable)")
	f.StringArrayVar(&replicas, "replica", nil, "a replica peer's store, `[NAME=]URL` (repeatable)")
	jsonFlag(c)
	return c
}

// askForMissing asks for what init needs and was not told, where somebody is there to answer.
func askForMissing(cmd *cobra.Command, o *initialise.Options) (err error) {
	missing := ""
	for _, flag := range []string{"volume", "source", "mount", "cache"} {
		if missing == "" && text(cmd, flag) == "" {
			missing = flag
		}
	}
	if missing == "" {
		return nil
	}
	if !isSet(cmd, "json") {
		t, err := openTerminal(cmd.Context())
		if err != nil {
			return fmt.Errorf("ask for what is missing: %w", err)
		}
		if t != nil {
			return errors.Join(o.Ask(t), t.Close())
		}
	}
	return usagef("--%s is missing; on a terminal, init asks for it", missing)
}

func initFlags(c *cobra.Command, o *initialise.Options) {
	f := c.Flags()
	f.StringVar(&o.Volume, "volume", "", "`NAME` of the volume")
	f.StringVar(&o.Source, "source", "", "`DIR` with the files")
	f.StringVar(&o.Mount, "mount", "", "`DIR` to mount on; it may be the source")
	f.StringVar(&o.Node, "node", "", "`NAME` of this node (default the host's name)")
	f.StringVar(&o.State, "state", "", "state `DIR` (default /var/lib/slipway/VOLUME)")
	f.StringVar(&o.SSHKey, "ssh-key", "", "private key `FILE` for the stores (default keys/ssh beside the configuration)")
	f.StringVar(&o.KnownHosts, "known-hosts", "", "`FILE` of pinned host keys (default known_hosts beside the configuration)")
	f.StringVar(&o.Identity, "identity", "", "age identity `FILE` to make (default ./slipway-VOLUME.identity)")
}

func keygenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keygen --identity FILE",
		Short: "Make an age identity, never over an existing file, and print its recipient",
		Long: `keygen makes an age identity for people or hosts that are to read a volume, and prints the recipient to put into
recipients: of the primary's configuration. With -c of that configuration the identity file also notes the owner's public
key, so that a restore with that file alone checks every signature.`,
		Example: "  slipway keygen --identity /root/second.identity -c /etc/slipway/slipway.yml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := text(cmd, "identity")
			if path == "" {
				return usagef("--identity is missing")
			}
			var owner *config.Primary
			if cmd.Flags().Changed("config") {
				c, err := load(cmd)
				if err != nil {
					return err
				}
				if owner = c.Primary; owner == nil {
					return usagef("%s is not a primary's configuration: only an owner's key is noted", c.Path)
				}
			}
			recipient, err := initialise.Identity(path, owner)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists already, and is never written over", path)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), recipient)
			return err
		},
	}
	c.Flags().String("identity", "", "`FILE` to make")
	return c
}
