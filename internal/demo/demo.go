// Package demo does the whole of slipway's job on one machine, with no configuration and no server at hand: a temporary
// place, the system's sshd on loopback with throw-away keys as cache and as two backup hosts, a mount; it writes a real tree
// into it, shows each file going through the stages, restores from one backup host alone into a second directory, and
// compares.
//
// After a crash of this process nothing of it runs on: its children end with it, and sshd's sessions too. The temporary
// place stays, and nothing outside of it was touched.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/compare"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/render"
)

// ErrDiffers says that what was restored is not what was written.
var ErrDiffers = errors.New("the restored tree differs")

// Options of a demo.
type Options struct {
	Out   io.Writer
	Tree  string // the directory whose files are written into the mount; "": some of this machine's
	Plain bool   // plain directories as stores, even where there is an sshd
	Keep  bool   // leave the temporary place behind
}

const patience = 2 * time.Minute

// Run is the demo. It returns nil if the restored tree equals what was written.
func Run(ctx context.Context, opt Options) error {
	if os.Geteuid() != 0 {
		return errors.New("run demo: it mounts a file system, which needs root")
	}
	dir, err := os.MkdirTemp("", "slipway-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary place: %w", err)
	}
	d := &demo{opt: opt, dir: dir, began: time.Now()}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var servers errgroup.Group
	err = d.serve(serving, &servers)
	if err == nil {
		err = d.run(ctx)
	}
	stop()
	err = errors.Join(err, servers.Wait())
	if opt.Keep {
		d.say("kept: %s", dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// demo is one run.
type demo struct {
	opt    Options
	dir    string
	began  time.Time
	stores map[string]string // name → URL
	ssh    config.SSH        // empty with plain directories
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

func (d *demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.opt.Out, "%7.2fs  "+format+"\n", append([]any{time.Since(d.began).Seconds()}, args...)...)
}

// run goes through the job. The daemons end with it, in order, whatever happens.
func (d *demo) run(ctx context.Context) error {
	if err := d.initialise(ctx); err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return d.daemon(working, "ship", "-c", d.path("cache.yml")) })
	group.Go(func() error { return d.daemon(working, "mount", "-c", d.path("slipway.yml")) })
	group.Go(func() error {
		defer stop()
		return d.job(working)
	})
	err := group.Wait()
	if gone := d.unmounted(); gone != nil {
		return errors.Join(err, gone)
	}
	if err != nil && ctx.Err() == nil {
		return errors.Join(err, d.logs())
	}
	if err != nil {
		return err
	}
	return d.restore(ctx)
}

// initialise makes the volume as a person would.
func (d *demo) initialise(ctx context.Context) error {
	for _, name := range []string{"source", "mnt"} {
		if err := os.Mkdir(d.path(name), 0o755); err != nil {
			return err
		}
	}
	args := []string{
		"init", "-c", d.path("slipway.yml"), "--volume", "projects", "--node", "alpha", "--source", d.path("source"), "--mount", d.path("mnt"),
		"--state", d.path("state"), "--identity", d.path("projects.identity"), "--cache", "cache1=" + d.stores["cache1"],
		"--backup", "vault1=" + d.stores["vault1"], "--backup", "vault2=" + d.stores["vault2"],
	}
	if d.ssh.Key != "" {
		args = append(args, "--ssh-key", d.ssh.Key, "--known-hosts", d.ssh.KnownHosts)
	}
	if _, err := d.command(ctx, args...); err != nil {
		return err
	}
	d.say("volume projects: plain files in %s, mounted on %s", d.path("source"), d.path("mnt"))
	return os.WriteFile(d.path("cache.yml"), d.cacheConfig(), 0o600)
}

func (d *demo) cacheConfig() []byte {
	text := fmt.Sprintf("node: cache1\nstore: %s\nstate: %s\nship:\n  copies: 2\n  verify_after: 1s\n  to:\n    - {name: vault1, url: %q}\n    - {name: vault2, url: %q}\n",
		d.path("cache1"), d.path("cache-state"), d.stores["vault1"], d.stores["vault2"])
	if d.ssh.Key != "" {
		text += fmt.Sprintf("ssh: {key: %s, known_hosts: %s}\n", d.ssh.Key, d.ssh.KnownHosts)
	}
	return []byte(text)
}

// job writes a tree into the mount, watches it go, and unmounts.
func (d *demo) job(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := d.mounted(ctx); err != nil {
		return err
	}
	d.say("mounted; writing a tree into it")
	files, bytes, err := d.writeTree()
	if err != nil {
		return fmt.Errorf("write a tree: %w", err)
	}
	wrote := time.Now()
	d.say("wrote %d files, %s; each on its way through the stages:", len(files), config.FormatSize(bytes))
	if err := d.watch(ctx, files, wrote); err != nil {
		return err
	}
	if _, err := d.command(ctx, "wait", "-c", d.path("slipway.yml"), "--stage", control.Stored.String()); err != nil {
		return err
	}
	d.say("stored: two backup hosts have everything, %.2f s after the last write", time.Since(wrote).Seconds())
	return nil
}

// mounted waits until the mount is there: the mount point lies on another device than the directory around it.
func (d *demo) mounted(ctx context.Context) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !d.isMount() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the mount: %w", ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

func (d *demo) isMount() bool {
	var inside, around unix.Stat_t
	return unix.Stat(d.path("mnt"), &inside) == nil && unix.Stat(d.dir, &around) == nil && inside.Dev != around.Dev
}

// unmounted makes sure that nothing is left mounted: the place is going to be removed, and must not be removed through a
// mount.
func (d *demo) unmounted() error {
	if !d.isMount() {
		return nil
	}
	if err := unix.Unmount(d.path("mnt"), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path("mnt"), err)
	}
	return nil
}

// restore is a fresh machine: the identity file, an SSH key, the host's pinned key, one backup host.
func (d *demo) restore(ctx context.Context) error {
	d.say("unmounted; restoring from vault1 alone, with the identity file and nothing else of this node")
	began := time.Now()
	args := []string{"restore", "--from", d.stores["vault1"], "--identity", d.path("projects.identity"), "--target", d.path("restored")}
	if d.ssh.Key != "" {
		args = append(args, "--ssh-key", d.ssh.Key, "--known-hosts", d.ssh.KnownHosts)
	}
	if _, err := d.command(ctx, args...); err != nil {
		return err
	}
	d.say("restored in %.2f s", time.Since(began).Seconds())
	differences, err := compare.Trees(d.path("source"), d.path("restored"))
	if err != nil {
		return err
	}
	for _, s := range differences {
		d.say("differs: %s: %s", render.Name(s.Path), s.What)
	}
	if len(differences) > 0 {
		return fmt.Errorf("compare: %w in %d places", ErrDiffers, len(differences))
	}
	d.say("compared: equal in names, content, modes, owners, times, extended attributes and links")
	d.say("done")
	return nil
}
