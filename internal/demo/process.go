package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/sshd"
)

// serve starts an sshd for each store, or takes plain directories where there is none, and says which.
func (d *demo) serve(ctx context.Context, group *errgroup.Group) error {
	d.stores = map[string]string{}
	_, err := sshd.Find()
	plain := d.opt.Plain || err != nil
	if err != nil {
		d.say("no sshd on this machine (%v): plain directories stand in for the hosts", err)
	} else if plain {
		d.say("plain directories stand in for the hosts")
	}
	var pins strings.Builder
	for _, name := range []string{"cache1", "vault1", "vault2"} {
		if err := os.Mkdir(d.path(name), 0o700); err != nil {
			return err
		}
		if plain {
			d.stores[name] = d.path(name)
			continue
		}
		s, err := sshd.Start(d.path("sshd-"+name), sshd.Options{KeyFile: d.path("ssh-key")})
		if err != nil {
			return err
		}
		group.Go(func() error { return s.Serve(ctx) })
		known, err := os.ReadFile(s.KnownHosts)
		if err != nil {
			return err
		}
		pins.Write(known)
		d.stores[name] = s.URL(d.path(name))
		d.say("sshd for %s on %s, with throw-away keys", name, s.Addr)
	}
	if plain {
		return nil
	}
	d.ssh = config.SSH{Key: d.path("ssh-key"), KnownHosts: d.path("known_hosts")}
	return os.WriteFile(d.ssh.KnownHosts, []byte(pins.String()), 0o600)
}

// slipway returns a command of this very program. It is asked to end when ctx does, and killed when it does not; it ends with
// this process.
func (d *demo) slipway(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{"slipway"}, args...)
	cmd.Dir = d.dir
	for _, e := range os.Environ() { // the demo's own flags are not its children's
		if !strings.HasPrefix(e, "SLIPWAY_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 40 * time.Second
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM, Setpgid: true} // ^C is for the demo, which ends them in order
	return cmd
}

// command runs a short verb and returns what it printed.
func (d *demo) command(ctx context.Context, args ...string) (string, error) {
	runtime.LockOSThread() // the parent-death signal is about the thread
	defer runtime.UnlockOSThread()
	cmd := d.slipway(ctx, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("slipway %s: %w: %s", args[0], err, strings.TrimSpace(complaint.String()+string(out)))
	}
	return string(out), nil
}

// daemon runs a long verb until ctx ends, its log in a file of the place. Ending before is a fault.
func (d *demo) daemon(ctx context.Context, args ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	log, err := os.Create(d.path(args[0] + ".log"))
	if err != nil {
		return err
	}
	cmd := d.slipway(ctx, args...)
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		return log.Close()
	}
	return errors.Join(fmt.Errorf("slipway %s ended: %w", args[0], errors.Join(err)), log.Close())
}

// logs returns the ends of the daemons' logs as an error, to be told beside what went wrong.
func (d *demo) logs() error {
	const longest = 4000
	var errs []error
	for _, name := range []string{"mount.log", "ship.log"} {
		data, _ := os.ReadFile(filepath.Join(d.dir, name))
		if len(data) > longest {
			data = data[len(data)-longest:]
		}
		errs = append(errs, fmt.Errorf("%s:\n%s", name, data))
	}
	return errors.Join(errs...)
}
