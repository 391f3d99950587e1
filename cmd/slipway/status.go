package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/access"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/health"
	"slipway/internal/offline"
	"slipway/internal/render"
	"slipway/internal/restore"
	"slipway/internal/volumepath"
)

// watchEvery is the pause between two screens of status --watch.
const watchEvery = 2 * time.Second

func jsonFlag(c *cobra.Command) { c.Flags().Bool("json", false, "print JSON lines") }

// show writes one result as JSON or for people.
func show[T any](cmd *cobra.Command, human func(io.Writer, T) error, v T) error {
	if isSet(cmd, "json") {
		return render.JSON(cmd.OutOrStdout(), v)
	}
	return human(cmd.OutOrStdout(), v)
}

// showAll is show for rows: one JSON object each.
func showAll[T any](cmd *cobra.Command, human func(io.Writer, []T) error, rows []T) error {
	if isSet(cmd, "json") {
		return render.JSON(cmd.OutOrStdout(), rows...)
	}
	return human(cmd.OutOrStdout(), rows)
}

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Where everything stands: pending, sealed, cached, stored; works with daemons dead",
		Example: `  slipway status
  slipway status --json | jq .pending`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return errors.Join(err, lastGood(cmd, err))
			}
			for {
				list, err := offline.Status(cmd.Context(), cfg)
				if err != nil {
					return err
				}
				if isSet(cmd, "watch") && !isSet(cmd, "json") {
					_, _ = io.WriteString(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
				}
				if err := showStatus(cmd, cfg.State(), list); err != nil || !isSet(cmd, "watch") {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(watchEvery):
				}
			}
		},
	}
	c.Flags().Bool("watch", false, "go on, a screen every two seconds")
	jsonFlag(c)
	return c
}

// showStatus shows what the daemon of a state directory has said, and what that comes to.
func showStatus(cmd *cobra.Command, state string, list []control.Status) error {
	health.Advise(list, func() (control.Barrier, error) { return barrier(cmd.Context(), state, "") })
	return showAll(cmd, func(w io.Writer, list []control.Status) error { return render.Status(w, list, time.Now()) }, list)
}

// lastGood shows beside a configuration's faults how the daemon is that goes on with what the file said before.
func lastGood(cmd *cobra.Command, err error) error {
	var faults *config.Faults
	if !errors.As(err, &faults) || faults.State == "" {
		return nil
	}
	if _, list, err := control.FindState(cmd.Context(), faults.State); err == nil && len(list) > 0 { // the faults are told in any case
		return showStatus(cmd, faults.State, list)
	}
	return nil
}

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain PATH",
		Short: "Where one file stands and what it waits for",
		Long: `explain tells the stage of one file, when it came to each, the batch and the stores that have it, and what it waits for, in words. With an
identity it lists the versions that were sealed as well. Of a directory the stage is about its own names and attributes; what is not sealed below it
is told besides, and "slipway spool pending --under PATH" lists it.`,
		Example: "  slipway explain /srv/projects/report.odt",
		Args:    cobra.ExactArgs(1),
		RunE: primary(func(cmd *cobra.Command, c *config.Config, args []string) error {
			path, err := volumepath.Of(c.Primary, args[0])
			if err != nil {
				return &coded{exitUsage, err}
			}
			return answers(cmd, c, func(a offline.Answers) error {
				e, err := a.Explain(cmd.Context(), path)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%s is not in the volume; \"slipway find NAME --identity FILE\" looks through its history", strconv.Quote(path))
				}
				if err != nil {
					return err
				}
				addBelow(cmd.Context(), c.Primary.State, &e)
				holes, err := addVersions(cmd, c, path, &e)
				if err != nil {
					return err
				}
				return errors.Join(show(cmd, render.Explained, e), holed("explain", holes))
			})
		}),
	}
	c.Flags().String("identity", "", "age identity `FILE`: list the versions, too")
	jsonFlag(c)
	return c
}

// barrier asks whether everything that was changed so far below a path of the volume is sealed; "" is all of it.
func barrier(ctx context.Context, state, path string) (control.Barrier, error) {
	client, err := control.Dial(state)
	if err != nil {
		return control.Barrier{}, err
	}
	var b control.Barrier
	if path != "" {
		b.Paths = []string{path}
	}
	return client.Barrier(ctx, b)
}

// addBelow adds to what is said of a directory what is not sealed below it; what is said of itself is about its own names and attributes.
func addBelow(ctx context.Context, state string, e *control.Explained) {
	if e.Stage == control.Pending.String() {
		return
	}
	if b, err := barrier(ctx, state, e.Path); err == nil && !b.Sealed { // without a daemon nobody can say it so quickly
		e.Below = b.Why
	}
}

// addVersions adds what was sealed at a path, where an identity is given.
func addVersions(cmd *cobra.Command, c *config.Config, path string, e *control.Explained) (holes []string, err error) {
	r := access.Request{Config: c, Identity: text(cmd, "identity")}
	if r.Identity == "" {
		return nil, nil
	}
	err = withSource(cmd, r, func(src restore.Source) error {
		var list []restore.Version
		list, holes, err = restore.Versions(cmd.Context(), src, path)
		e.Versions = access.VersionRows(list)
		return err
	})
	return holes, err
}

// answers runs fn with the daemon, or with the disk when the daemon is dead.
func answers(cmd *cobra.Command, cfg *config.Config, fn func(offline.Answers) error) error {
	a, err := offline.Reach(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := fn(a.Answers); err != nil || a.Note == "" {
		return err
	}
	cmd.PrintErrln("slipway:", a.Note)
	return nil
}

func waitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "wait [PATH...] --stage STAGE",
		Short: "Wait until everything changed below the paths so far has reached a stage",
		Long: `wait returns when every change made below the paths before the call has reached the stage; later writes are not
waited for. A removal is a change: a path that was removed before the call is waited for, too. One that was never there, or is
excluded, is an error. Stages: sealed, replicated, cached, stored, verified. Without a path it waits for the whole volume.`,
		Example: "  cp -a results /srv/projects/ && slipway wait /srv/projects/results --stage stored --timeout 10m",
		RunE: primary(func(cmd *cobra.Command, c *config.Config, args []string) error {
			goal, err := goalOf(cmd, "stage")
			if err != nil {
				return err
			}
			if goal.Paths, err = volumepath.All(c.Primary, args); err != nil {
				return &coded{exitUsage, err}
			}
			ctx, stop, err := deadline(cmd)
			if err != nil {
				return err
			}
			defer stop()
			if err := enoughHosts(ctx, c.Primary, goal.Copies); err != nil {
				return err
			}
			return waitFor(ctx, cmd, c.Primary, goal)
		}),
	}
	c.Flags().String("stage", "stored", "`STAGE` to wait for")
	c.Flags().Int("copies", 0, "how many backup hosts make it stored: `N` (default the cache's)")
	c.Flags().String("timeout", "", "give up after this `DURATION`, with exit code 124")
	return c
}

// enoughHosts refuses to wait for more copies than there are backup hosts. Before the cache has told which there are, nobody knows.
func enoughHosts(ctx context.Context, p *config.Primary, copies int) error {
	_, list, _ := control.FindState(ctx, p.State)
	hosts := 0
	for _, s := range list {
		for _, st := range s.Stores {
			if st.Kind == "backup" {
				hosts++
			}
		}
	}
	if hosts = max(hosts, len(p.Backups)); hosts > 0 && copies > hosts {
		return usagef("--copies: there are no more than %d", hosts)
	}
	return nil
}

// goalOf reads the stage from a flag, and --copies where the verb has it.
func goalOf(cmd *cobra.Command, flag string) (control.Goal, error) {
	stage, err := control.ParseStage(text(cmd, flag))
	if err != nil {
		return control.Goal{}, usagef("--%s: %v", flag, err)
	}
	g := control.Goal{Stage: stage}
	if cmd.Flags().Lookup("copies") != nil {
		if g.Copies, err = cmd.Flags().GetInt("copies"); err != nil || g.Copies < 0 {
			return g, usagef("--copies: %d is not a number of backup hosts", g.Copies)
		}
	}
	return g, nil
}

// deadline is the command's context, ended by --timeout.
func deadline(cmd *cobra.Command) (context.Context, context.CancelFunc, error) {
	limit := text(cmd, "timeout")
	if limit == "" {
		return cmd.Context(), func() {}, nil
	}
	d, err := config.ParseDuration(limit)
	if err != nil {
		return nil, nil, usagef("--timeout: %v", err)
	}
	ctx, stop := context.WithTimeout(cmd.Context(), d)
	return ctx, stop, nil
}

// timedOut is the end of a wait: a signal, or else --timeout.
func timedOut(ctx context.Context, why string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &coded{exitTimeout, fmt.Errorf("timed out: %s", why)}
	}
	return ctx.Err()
}

// waitFor waits, and shows on a terminal how much is pending: an adoption may take its time.
func waitFor(ctx context.Context, cmd *cobra.Command, p *config.Primary, goal control.Goal) error {
	var last control.Barrier
	bar := render.NewProgress(cmd.ErrOrStderr(), "sealed", true)
	err := bar.Follow(ctx, func(ctx context.Context) (err error) {
		last, err = control.Wait(ctx, p.State, goal, func(control.Barrier) {})
		return err
	}, func() (left int64) {
		_, list, _ := control.FindState(ctx, p.State) // a bar that stands still is no reason to stop waiting
		for _, s := range list {
			left += s.Pending.Bytes
		}
		return left
	})
	if err != nil && ctx.Err() != nil {
		return timedOut(ctx, fmt.Sprintf("waiting for stage %s: %s", goal.Stage, waiting(last)))
	}
	return err
}

func waiting(b control.Barrier) string {
	if b.Why != "" {
		return b.Why
	}
	if b.Mark == "" {
		return "the daemon has not said anything yet"
	}
	if !b.Sealed {
		return "not sealed yet"
	}
	return fmt.Sprintf("batch %d is %s, on %d of %d backup hosts", b.Seq, b.Stage, b.Copies, b.Need)
}
