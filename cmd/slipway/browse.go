package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"slipway/fusefs/browse"
	"slipway/internal/batch"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/service"
)

func browseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "browse DIR",
		Short: "Show the history as a read-only file system; in the foreground",
		Long: `browse mounts the volume as it was on DIR, read-only, until it is unmounted or interrupted: with --at that moment, without it a directory for each
batch, by number, "latest", and at/ with the times. What is read comes from the nearest store that has it; a moment that was entered stays in
memory.`,
		Example: "  slipway browse /mnt/past --identity projects.identity &\n  cp /mnt/past/latest/reports/2026.odt .\n  umount /mnt/past",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if st, err := os.Stat(args[0]); err != nil || !st.IsDir() {
				return usagef("%s is not a directory: make it, or name another", args[0])
			}
			if list, err := os.ReadDir(args[0]); err != nil || len(list) > 0 { // the volume's own mount, say
				return usagef("%s is not empty, and what lies there would be hidden: name another directory", args[0])
			}
			r, err := request(cmd)
			if err != nil {
				return err
			}
			log := service.Logger(os.Stderr, "browse")
			show := func(root browse.Root) error {
				return browse.Serve(cmd.Context(), args[0], root, func() { log.Info("mounted", "dir", args[0]) })
			}
			if text(cmd, "at") != "" {
				return reading(cmd, r, func(t *restore.Tree) error { return show(browse.Moment(t, log)) })
			}
			return withSource(cmd, r, func(src restore.Source) error {
				line, err := chain.Open(cmd.Context(), src)
				if err != nil {
					return err
				}
				root, err := browse.Moments(cmd.Context(), past{line}, log)
				if err != nil {
					return fmt.Errorf("browse: %w", err)
				}
				return show(root)
			})
		},
	}
	readFlags(c, true)
	return c
}

// past is the history of an open line.
type past struct{ line *chain.Line }

// Moments implements browse.History.
func (p past) Moments(ctx context.Context) ([]restore.Moment, error) { return p.line.History(ctx) }

// Tree implements browse.History.
func (p past) Tree(ctx context.Context, seq batch.Seq) (*restore.Tree, error) {
	return restore.FromLine(ctx, p.line, restore.At{Seq: seq, Incomplete: true})
}
