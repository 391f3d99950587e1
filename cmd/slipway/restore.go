package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/offline"
	"slipway/internal/render"
	"slipway/internal/restore"
	"slipway/internal/volumepath"
)

// readFlags are those of every verb that reads stores.
func readFlags(c *cobra.Command, at bool) {
	f := c.Flags()
	f.StringArray("from", nil, "store to read, `[NAME=]URL`, nearest first (repeatable; default those of the configuration)")
	f.String("identity", "", "age identity `FILE`")
	f.String("ssh-key", "", "private SSH key `FILE` (default that of the configuration)")
	f.String("known-hosts", "", "`FILE` of pinned host keys (default that of the configuration)")
	f.String("volume", "", "`NAME` of the volume, where the stores hold several")
	if at {
		f.String("at", "", "the moment: `TIME|BATCH` (2026-11-23T10:00:00Z, \"2026-11-23 10:00\", \"10m ago\", 42; default the newest)")
		f.Uint32("epoch", 0, "the history up to the end of epoch `N`, a branch that \"spool branches\" lists included (default the whole main line)")
		f.Bool("incomplete", false, "take the newest batch even while an adoption or a gap is not closed")
	}
}

// request gathers what the flags and the configuration say. The default configuration is read only where the flags leave
// something to ask of it, and one that is missing is no error.
func request(cmd *cobra.Command) (access.Request, error) {
	from, err := cmd.Flags().GetStringArray("from")
	if err != nil {
		return access.Request{}, err
	}
	r := access.Request{
		From: from, Volume: text(cmd, "volume"), Identity: text(cmd, "identity"),
		SSH: config.SSH{Key: text(cmd, "ssh-key"), KnownHosts: text(cmd, "known-hosts")},
	}
	if len(from) > 0 && !cmd.Flags().Changed("config") && (!r.NeedsSSH() || !access.Exists(text(cmd, "config"))) {
		return r, nil
	}
	r.Config, err = load(cmd)
	return r, err
}

// withTree runs fn with the volume's tree at the moment asked for.
func withTree(cmd *cobra.Command, r access.Request, fn func(*restore.Tree) error) error {
	at, err := access.ParseAt(text(cmd, "at"), time.Now())
	if err != nil {
		return err
	}
	at.Incomplete = isSet(cmd, "incomplete")
	epoch, err := cmd.Flags().GetUint32("epoch")
	if err != nil {
		return err
	}
	return withSource(cmd, r, func(src restore.Source) error {
		src.Epoch = batch.Epoch(epoch)
		tree, err := restore.Load(cmd.Context(), src, at)
		if err != nil {
			return err
		}
		return fn(tree)
	})
}

// inVolume turns a path as a person sees it, in the mount or in the source, into one of the volume; any other is one already.
func inVolume(c *config.Config, path string) string {
	if c == nil || c.Primary == nil || !filepath.IsAbs(path) {
		return path
	}
	if rel, err := volumepath.Of(c.Primary, path); err == nil {
		return rel
	}
	return path
}

// withSource runs fn with the stores that the request names, and its identity.
func withSource(cmd *cobra.Command, r access.Request, fn func(restore.Source) error) error {
	if r.Identity == "" {
		return usagef("--identity is missing: what is sealed opens with an age identity only")
	}
	v, err := access.Open(cmd.Context(), r)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	return fn(v.Source)
}

// reading runs fn on the tree and says afterwards, on stderr and by the exit code, what of it could not be read.
func reading(cmd *cobra.Command, r access.Request, fn func(*restore.Tree) error) error {
	return withTree(cmd, r, func(t *restore.Tree) error {
		if err := fn(t); err != nil {
			return err
		}
		if len(t.Incomplete) == 0 {
			return nil
		}
		return &coded{exitPartly, fmt.Errorf("this is batch %d, and not everything: %s", t.Seq, strings.Join(t.Incomplete, "; "))}
	})
}

func restoreCommand() *cobra.Command {
	var o restore.Options
	c := &cobra.Command{
		Use:   "restore --from URL... --identity FILE --target DIR [PATH...]",
		Short: "Rebuild the volume, or some paths of it, below a directory",
		Long: `restore writes the volume as it was at a moment below the target directory, and never outside of it. Each piece is read
from the nearest of the stores that has it sound. An existing different file is kept and listed unless --overwrite; an
interrupted restore is finished by the same command. Exit code 3: something could not be restored as it was, and is listed.`,
		Example: `  slipway restore --from sftp://slipway-projects@vault1/data --identity projects.identity \
      --ssh-key ~/.ssh/id_ed25519 --known-hosts known_hosts --target /srv/projects
  slipway restore -c /etc/slipway/slipway.yml --identity projects.identity --at "10m ago" --target /tmp/back reports`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Target == "" {
				return usagef("--target is missing")
			}
			r, err := request(cmd)
			if err != nil {
				return err
			}
			for _, arg := range args {
				o.Paths = append(o.Paths, inVolume(r.Config, arg))
			}
			return withTree(cmd, r, func(t *restore.Tree) error { return restoreTree(cmd, t, o) })
		},
	}
	f := c.Flags()
	readFlags(c, true)
	f.StringVar(&o.Target, "target", "", "`DIR` to restore into; made if it is not there")
	f.BoolVar(&o.Overwrite, "overwrite", false, "replace existing files that differ")
	f.BoolVar(&o.NoSpecial, "no-special", false, "leave devices, FIFOs and sockets out")
	f.BoolVar(&o.NoSUID, "no-suid", false, "leave set-user-id, set-group-id and file capabilities out")
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "only say what would be done")
	jsonFlag(c)
	return c
}

func restoreTree(cmd *cobra.Command, t *restore.Tree, o restore.Options) error {
	began := time.Now()
	bar := render.NewProgress(cmd.ErrOrStderr(), "restore", true)
	o.Progress = bar.Set
	result, err := t.Restore(cmd.Context(), o)
	bar.End()
	if result != nil {
		report := render.Restored{Tree: t, Result: result, DryRun: o.DryRun, Took: time.Since(began)}
		if isSet(cmd, "json") {
			err = errors.Join(err, report.JSON(cmd.OutOrStdout()))
		} else {
			err = errors.Join(err, report.Text(cmd.OutOrStdout()))
		}
	}
	if err != nil {
		return err
	}
	if result.Partial() || len(t.Incomplete) > 0 {
		return &coded{exitPartly, errors.New("restore: not everything is there as it was; see the list above")}
	}
	return nil
}

func lsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ls [PATH]",
		Short: "List the volume as it was at a moment",
		Long: `ls lists a directory of the volume. With an identity it reads the stores; without one, on the primary, it shows the tree
as last sealed from the catalog.`,
		Example: `  slipway ls reports --from sftp://slipway-projects@vault1/data --identity projects.identity --at 42
  slipway ls -r`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := request(cmd)
			if err != nil {
				return err
			}
			path, recursive := "", isSet(cmd, "recursive")
			if len(args) > 0 {
				path = inVolume(r.Config, args[0])
			}
			if r.Identity != "" {
				return reading(cmd, r, func(t *restore.Tree) error {
					rows, err := access.Rows(t, path, recursive)
					return list(cmd, rows, err)
				})
			}
			if len(r.From) > 0 || text(cmd, "at") != "" || r.Config.Primary == nil {
				return usagef("--identity is missing: without one only a primary's newest tree can be listed")
			}
			return answers(cmd, r.Config, func(a offline.Answers) error {
				rows, err := a.List(cmd.Context(), path, recursive)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%q is not in the volume as last sealed; \"slipway find NAME --identity FILE\" looks through its history", path)
				}
				return list(cmd, rows, err)
			})
		},
	}
	readFlags(c, true)
	c.Flags().BoolP("recursive", "r", false, "everything below, too")
	jsonFlag(c)
	return c
}

func list(cmd *cobra.Command, rows []control.ListRow, err error) error {
	if err != nil {
		return err
	}
	return showAll(cmd, render.Listing, rows)
}

func catCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "cat PATH",
		Short:   "Write a file's content, as it was at a moment, to standard output",
		Example: "  slipway cat reports/2026.odt -c /etc/slipway/slipway.yml --identity projects.identity --at \"2026-11-23 10:00\" > old.odt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := request(cmd)
			if err != nil {
				return err
			}
			return reading(cmd, r, func(t *restore.Tree) error {
				return t.Cat(cmd.Context(), inVolume(r.Config, args[0]), cmd.OutOrStdout())
			})
		},
	}
	readFlags(c, true)
	return c
}

// errFindings says that a verification found something; what it is has been printed.
func errFindings(n int) error {
	return &coded{exitFindings, errors.New("verify: " + english.Plural(n, "finding", ""))}
}
