package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/fusefs"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/durability"
	"slipway/internal/durable"
	"slipway/internal/hugebuf"
	"slipway/internal/journal"
	"slipway/internal/memlimit"
	"slipway/internal/mountopt"
	"slipway/internal/reload"
	"slipway/internal/render"
	"slipway/internal/service"
	"slipway/internal/state"
	"slipway/internal/supervisor"
	"slipway/spooler"
)

func mountCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "mount",
		Short: "Mount the volume and back it up, in the foreground; SIGTERM unmounts cleanly",
		Long: `mount is three processes: a supervisor, the mount, and the spooler that seals and pushes. The files stay plain files in the
source directory. umount(8) on the mount point ends it as well. With peer_config: a fourth process is the replica peer that this
node is for other nodes' volumes, as "slipway peer" would run it.`,
		Example: "  slipway mount -c /etc/slipway/slipway.yml\n  slipway mount -o ro,noexec",
		Args:    cobra.NoArgs,
		RunE:    primary(mountVolume),
	}
	mountOptionFlag(c)
	return c
}

// mountOptionFlag adds -o, as mount(8) has it.
func mountOptionFlag(c *cobra.Command) {
	c.Flags().StringP("options", "o", "", "mount `OPTIONS`: ro, nosuid, nodev, noexec, noatime, nodiratime")
}

func mountVolume(cmd *cobra.Command, c *config.Config, _ []string) error {
	options := text(cmd, "options")
	if o, err := mountopt.Parse(options); err != nil {
		return usagef("%v", err)
	} else if o.Remount {
		return usagef("remount: mount -o remount,... %s does that", c.Primary.Mount)
	}
	if err := c.CheckKeys(); err != nil {
		return err
	}
	if err := state.Dir(c.Primary.State).CheckSuperseded(); err != nil {
		return &coded{exitError, err}
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return err
	}
	p, ctx := c.Primary, cmd.Context()
	var peer []string
	if p.PeerConfig != "" {
		peer = []string{"slipway", "peer", "-c", p.PeerConfig}
	}
	asked, stop := hangups()
	defer stop()
	supervise := func(ctx context.Context) error {
		return supervisor.Run(ctx, supervisor.Options{
			StateDir: p.State, SourceDir: p.Source, MountPoint: p.Mount,
			MountArgs:   []string{"slipway", "fusefs", "-c", path, "-o", options},
			SpoolerArgs: []string{"slipway", "spooler", "-c", path},
			PeerArgs:    peer,
			Reload:      asked,
			Reloaded:    func() { service.Reloading(); service.Ready() },
			Ready:       service.Ready,
			Logger:      service.Logger(os.Stderr, "supervisor"),
		})
	}
	bar := render.NewProgress(cmd.ErrOrStderr(), "adopting", true)
	return ended(ctx, service.Run(ctx, func(ctx context.Context) error {
		defer saying(ctx, p.State)()
		return bar.Follow(ctx, supervise, func() int64 { return adoption(ctx, p.State) })
	}))
}

// adoption returns the bytes of the tree that are not sealed yet, -1 when there is a batch with the whole tree.
func adoption(ctx context.Context, stateDir string) int64 {
	daemon, list, err := control.FindState(ctx, stateDir)
	if err != nil || daemon != control.Running || len(list) == 0 {
		return 0
	}
	if list[0].Complete && list[0].HeadBatch > 0 {
		return -1
	}
	return list[0].Pending.Bytes
}

// ended forgives a daemon that stopped because it was asked to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// sourceDir is the source directory as the supervisor handed it over: once the mount is up its path leads into the mount.
func sourceDir(p *config.Primary) (*os.File, error) {
	f := os.NewFile(supervisor.SourceFD, p.Source)
	if st, err := f.Stat(); err != nil || !st.IsDir() {
		return nil, usagef("descriptor %d is not the source directory: `slipway mount` starts this", supervisor.SourceFD)
	}
	return f, nil
}

func fusefsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "fusefs", Short: "The mount process; started by mount", Hidden: true, Args: cobra.NoArgs,
		RunE: primary(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			source, err := sourceDir(c.Primary)
			if err != nil {
				return err
			}
			o, err := mountopt.Parse(text(cmd, "options"))
			if err != nil {
				return usagef("%v", err)
			}
			if os.Getenv("GOMAXPROCS") == "" {
				// Most of its time goes into changing threads: the fewer there are the better, and those who ask need processors too.
				runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
			}
			w, err := journal.Create(state.Dir(c.Primary.State).Journal())
			if err != nil {
				return err
			}
			return errors.Join(serveMount(cmd.Context(), c.Primary, int(o.Set), source, w), w.Close())
		}),
	}
	mountOptionFlag(c)
	return c
}

// serveMount runs the mount and the journal's writer, which ends after it: the last operations are journaled too.
func serveMount(ctx context.Context, p *config.Primary, attrs int, source *os.File, w *journal.Writer) error {
	rules, err := durability.New(p)
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return w.Run(writing) })
	g.Go(func() error {
		defer stop()
		return fusefs.Serve(ctx, fusefs.Options{
			Source: source, MountPoint: p.Mount, Journal: w, Volume: p.Volume, Attrs: attrs, AllowOther: p.Allow,
			Passthrough: true, Ready: ready, Explain: explainOf(p.State), Log: service.Logger(os.Stderr, "mount"),
			Durability: rules, DurabilityTimeout: p.DurabilityTimeout,
			Durable: func(ctx context.Context, q control.Durable, within time.Duration) error {
				return control.AwaitDurable(ctx, p.State, q, within)
			},
		})
	})
	return ended(writing, g.Wait())
}

// ready tells the supervisor that the mount can be used.
func ready() {
	f := os.NewFile(supervisor.ReadyFD, "ready")
	_, _ = fmt.Fprintln(f, "ready") // a supervisor that does not listen any more is dying, and this process with it
	_ = f.Close()
}

// explainOf answers user.slipway.* from the spooler's socket.
func explainOf(stateDir string) func(context.Context, string) (map[string]string, error) {
	return func(ctx context.Context, path string) (map[string]string, error) {
		c, err := control.DialWithin(stateDir, 50*time.Millisecond)
		if err != nil {
			return nil, err
		}
		if path == "." {
			path = ""
		}
		e, err := c.Explain(ctx, path)
		if err != nil {
			return nil, err
		}
		said := map[string]string{"stage": e.Stage, "copies": strings.Join(e.Stores, ","), "waiting_for": e.WaitingFor}
		if e.Batch > 0 {
			said["batch"] = strconv.FormatUint(e.Batch, 10)
		}
		if e.Since != nil {
			said["since"] = e.Since.UTC().Format(time.RFC3339Nano)
		}
		if e.ETASeconds != nil {
			said["eta"] = strconv.FormatFloat(*e.ETASeconds, 'f', 0, 64)
		}
		return said, nil
	}
}

// spoolerMemory is where the garbage collector begins to work harder, in bytes, as long as a big tree does not need more: most of what the
// spooler has in hand are buffers of files on their way, and the machine belongs to others.
const spoolerMemory = 160 << 20

func spoolerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "spooler", Short: "The process that seals and pushes; started by mount", Hidden: true, Args: cobra.NoArgs,
		RunE: primary(func(cmd *cobra.Command, c *config.Config, _ []string) error {
			source, err := sourceDir(c.Primary)
			if err != nil {
				return err
			}
			hugebuf.Prepare(spoolerMemory)
			unix.CloseOnExec(supervisor.SourceFD) // a hook must not hold what lies beneath the mount
			return ended(cmd.Context(), reloading(cmd.Context(), c, "spooler", func(ctx context.Context, c *config.Config, known *reload.State) error {
				return runSpooler(ctx, c, known, source)
			}))
		}),
	}
}

// runSpooler runs the spooler with one configuration.
func runSpooler(ctx context.Context, c *config.Config, known *reload.State, source *os.File) error {
	s, err := spooler.New(spooler.Options{Config: c.Primary, Source: source, BatchInterval: c.Primary.BatchInterval, Log: service.Logger(os.Stderr, "spooler")})
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	g, working := errgroup.WithContext(working)
	g.Go(func() error { return memlimit.Keep(working, spoolerMemory) })
	observe(working, g, c, known, s, "spooler")
	g.Go(func() error {
		defer stop()
		return s.Run(working)
	})
	return errors.Join(ended(ctx, g.Wait()), s.Close())
}

func umountCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "umount",
		Short: "Unmount the volume, on wish after everything has reached a stage",
		Long: `umount unmounts and returns when the spooler has ended. With --drain it first waits until everything written so far has
reached the stage. Exit code 5: somebody uses the mount; 124: timed out, and still mounted.`,
		Example: "  slipway umount --drain stored --timeout 10m",
		Args:    cobra.NoArgs,
		RunE:    primary(umount),
	}
	c.Flags().String("drain", "", "wait for this `STAGE` first")
	c.Flags().String("timeout", "", "give up after this `DURATION`, with exit code 124")
	return c
}

func umount(cmd *cobra.Command, c *config.Config, _ []string) error {
	ctx, stop, err := deadline(cmd)
	if err != nil {
		return err
	}
	defer stop()
	if text(cmd, "drain") != "" {
		goal, err := goalOf(cmd, "drain")
		if err != nil {
			return err
		}
		if err := waitFor(ctx, cmd, c.Primary, goal); err != nil {
			return err
		}
	}
	if err := unmount(c.Primary.Mount); err != nil {
		return err
	}
	return awaitEnd(ctx, c.Primary.State)
}

// unmount takes the mount away. The supervisor takes that for a wish, not for a fault: it ends everything in order.
func unmount(point string) error {
	err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(err, unix.EBUSY):
		return &coded{exitLater, fmt.Errorf("unmount %s: it is in use; close what uses it (fuser -vm %s)", point, point)}
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("unmount %s: nothing is mounted there", point)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}

// awaitEnd waits for the supervisor to give its lock back, which it does last.
func awaitEnd(ctx context.Context, stateDir string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		lock, err := durable.Lock(state.Dir(stateDir).Lock())
		if err == nil {
			return lock.Close()
		}
		if !errors.Is(err, durable.ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return timedOut(ctx, "unmounted, but the supervisor has not ended yet")
		case <-ticker.C:
		}
	}
}
