package main

import (
	"github.com/spf13/cobra"

	"slipway/internal/demo"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use:   "demo",
		Short: "Do the whole job once on this machine, in a temporary place, and compare",
		Long: `demo needs no configuration and no server: in a temporary place it starts the system's sshd on loopback with throw-away keys
as cache and as two backup hosts, mounts, writes a real tree, shows each file going through the stages, restores from one
backup host into a second directory, and compares. Nothing outside the temporary place is touched.`,
		Example: "  slipway demo\n  slipway demo --tree /usr/share/doc --keep",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			return demo.Run(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Tree, "tree", "", "`DIR` whose files are written into the mount (default some of this machine's)")
	f.BoolVar(&o.Plain, "plain", false, "plain directories instead of sshd")
	f.BoolVar(&o.Keep, "keep", false, "leave the temporary place behind")
	return c
}
