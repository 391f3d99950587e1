package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/render"
	"slipway/internal/restore"
)

func versionsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "versions PATH",
		Short: "What a path was in every batch that changed it",
		Long: `versions lists the states in which something at a path was sealed, oldest first: restore and cat take each batch's number as --at.
Change: created, content, attributes, replaced (another file took the name), gone.`,
		Example: "  slipway versions reports/2026.odt --identity projects.identity",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return throughHistory(cmd, func(c *config.Config, src restore.Source) error {
				list, holes, err := restore.Versions(cmd.Context(), src, inVolume(c, args[0]))
				if err != nil {
					return err
				}
				return errors.Join(showAll(cmd, render.Versions, access.VersionRows(list)), holed("versions", holes))
			})
		},
	}
	readFlags(c, false)
	jsonFlag(c)
	return c
}

func findCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "find PATTERN...",
		Short: "Look for names in the whole history, gone ones included",
		Long: `find looks through every batch for names that match a pattern (*, ? and [abc]; without a slash it is compared with the last part of a path,
with one with all of it), and says since when each was there, until when, and where the same file is now if it was moved.`,
		Example: "  slipway find '*.odt' 'reports/2025-*' --identity projects.identity",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matcher(args)
			if err != nil {
				return err
			}
			return throughHistory(cmd, func(_ *config.Config, src restore.Source) error {
				list, holes, err := restore.Find(cmd.Context(), src, match)
				if err != nil {
					return err
				}
				return errors.Join(showAll(cmd, render.Found, access.FoundRows(list)), holed("find", holes))
			})
		},
	}
	readFlags(c, false)
	jsonFlag(c)
	return c
}

// matcher compares paths with any of the patterns.
func matcher(patterns []string) (func(string) bool, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usagef("pattern %q: %v", p, err)
		}
	}
	return func(name string) bool {
		for _, p := range patterns {
			against := path.Base(name)
			if strings.Contains(p, "/") {
				against = name
			}
			if ok, _ := path.Match(p, against); ok { // checked above
				return true
			}
		}
		return false
	}, nil
}

func diffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff [PATH] --at TIME|BATCH",
		Short: "What differs between two moments",
		Long: `diff compares the volume, or what lies at a path, at the moment --at with the moment --to (default the newest): + added, - removed, > moved, M changed,
and in what.`,
		Example: "  slipway diff reports --at \"1h ago\" --identity projects.identity\n  slipway diff --at 41 --to 42 --identity projects.identity --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if text(cmd, "at") == "" {
				return usagef("--at is missing: the moment to compare with")
			}
			first, err := access.ParseAt(text(cmd, "at"), time.Now())
			if err != nil {
				return err
			}
			second, err := access.ParseAt(text(cmd, "to"), time.Now())
			if err != nil {
				return err
			}
			below := ""
			if len(args) > 0 {
				below = args[0]
			}
			return throughHistory(cmd, func(c *config.Config, src restore.Source) error {
				a, b, err := restore.LoadTwo(cmd.Context(), src, first, second)
				if err != nil {
					return err
				}
				list, err := restore.Diff(a, b, inVolume(c, below))
				if err != nil {
					return err
				}
				return errors.Join(showAll(cmd, render.Differences, access.DiffRows(list)), holed("diff", append(a.Incomplete, b.Incomplete...)))
			})
		},
	}
	readFlags(c, false)
	c.Flags().String("at", "", "the first moment: `TIME|BATCH` (2026-11-23T10:00:00Z, \"2026-11-23 10:00\", \"10m ago\", 42)")
	c.Flags().String("to", "", "the second moment: `TIME|BATCH` (default the newest)")
	jsonFlag(c)
	return c
}

// throughHistory runs fn with the stores that flags and configuration name.
func throughHistory(cmd *cobra.Command, fn func(*config.Config, restore.Source) error) error {
	r, err := request(cmd)
	if err != nil {
		return err
	}
	return withSource(cmd, r, func(src restore.Source) error { return fn(r.Config, src) })
}

// holed says what could not be read; nil for nothing.
func holed(verb string, holes []string) error {
	if len(holes) == 0 {
		return nil
	}
	return &coded{exitPartly, fmt.Errorf("%s: this is not everything: %s", verb, strings.Join(holes, "; "))}
}
