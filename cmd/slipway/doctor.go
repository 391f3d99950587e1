package main

import (
	"context"
	"errors"
	"os"
	"os/exec"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"slipway/internal/config"
	"slipway/internal/doctor"
	"slipway/internal/render"
	"slipway/internal/supervisor"
	"slipway/spooler"
)

// sealed seals a directory for doctor, with the code that seals volumes.
func sealed(ctx context.Context, p *config.Primary, source *os.File) error {
	return spooler.Adopt(ctx, spooler.Options{Config: p, Source: source, BatchInterval: p.BatchInterval})
}

// mountProcess is one, as the supervisor starts it.
func mountProcess(ctx context.Context, path string, source, ready *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"slipway", "fusefs", "-c", path}
	cmd.ExtraFiles = []*os.File{supervisor.SourceFD - 3: source, supervisor.ReadyFD - 3: ready}
	return cmd
}

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether slipway will work on this host; exit code 4 when something will not",
		Long: `doctor looks at the configuration, the kernel, the privileges, the source's file system, the clock, the space, and at each store that this host
writes to: host key, key, writing durably, reading back, space, clock. On a primary it also seals and restores a small tree with every
kind of metadata, on the source's file system, and compares, and mounts that tree: is data passed through? It leaves nothing in the source, and in each store one small object,
VOLUME/doctor/NODE.

With --drill it restores instead: some files of the newest batch and some of the whole tree, from each backup host that the configuration names by
itself, into a temporary directory. What is restored is compared with its digests, and on a primary with the files themselves where they have not
changed since. Exit code 4: a host does not give back what was sealed, or nothing at all. The daemon shows how the last drill went.`,
		Example: "  slipway doctor -c /etc/slipway/slipway.yml\n  slipway doctor --drill -c /etc/slipway/slipway.yml --identity projects.identity\n  slipway doctor --json | jq 'select(.level != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			if isSet(cmd, "drill") {
				return runDrill(cmd, c)
			}
			list := doctor.Run(cmd.Context(), c, doctor.Roles{Seal: sealed, Mount: mountProcess})
			if err := cmd.Context().Err(); err != nil {
				return err // what it found meanwhile is that it was interrupted
			}
			if err := showAll(cmd, render.Doctor, list); err != nil {
				return err
			}
			if n := doctor.Faults(list); n > 0 {
				return &coded{exitFindings, errors.New("doctor: " + english.Plural(n, "fault", ""))}
			}
			return nil
		}),
	}
	jsonFlag(c)
	drillFlags(c)
	return c
}
