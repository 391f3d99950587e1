package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/sshd"
	"slipway/internal/store"
)

// sshHosts replaces the backup hosts by real OpenSSH servers, which the shipper reaches by its own configuration.
func (c *cacheHost) sshHosts(ctx context.Context, group *errgroup.Group, readOnly ...string) map[string]*sshd.Server {
	c.t.Helper()
	servers := map[string]*sshd.Server{}
	dir := c.t.TempDir()
	known, err := os.Create(filepath.Join(dir, "known_hosts"))
	must(c.t, err)
	for i := range c.cfg.Ship.To {
		to := &c.cfg.Ship.To[i]
		s, err := sshd.Start(filepath.Join(dir, to.Name), sshd.Options{KeyFile: c.cfg.SSH.Key, ReadOnly: slices.Contains(readOnly, to.Name)})
		must(c.t, err)
		if c.cfg.SSH.Key == "" {
			c.cfg.SSH.Key = s.KeyFile
		}
		pinned, err := os.ReadFile(s.KnownHosts)
		must(c.t, err)
		_, err = known.Write(pinned)
		must(c.t, err)
		to.URL = s.URL(c.hosts[to.Name].dir)
		servers[to.Name] = s
		group.Go(func() error { return s.Serve(ctx) })
	}
	must(c.t, known.Close())
	c.cfg.SSH.KnownHosts = known.Name()
	return servers
}

// TestOverSSH ships through two real servers whose sessions are killed again and again on the way, with a rate limit on one of
// them, and restarts the shipper in the middle. Each kill in a row doubles the wait before the next attempt, so there are only a few
// before each batch.
func TestOverSSH(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	c.cfg.Ship.VerifyAfter = 0
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	servers := c.sshHosts(ctx, group)
	c.cfg.Ship.To[1].Limit = "4MiB/s"
	p, small := newPrimary(t, "projects"), newPrimary(t, "papers")
	for range 6 {
		p.put(c.store, p.seal([]int{700_000, 300_000, 1000}, nil))
	}
	small.put(c.store, small.seal([]int{100}, nil))

	const mostKills = 3 // for each batch
	killed := map[batch.Seq]int{}
	for round := range 3 {
		s, err := New(Options{Config: c.cfg, Log: c.start().log})
		must(t, err)
		run, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(run) }()
		want := batch.Seq(2 * (round + 1))
		c.await("vault1 goes on", func() bool {
			head := c.acks("projects", "vault1").Head
			if sessions := servers["vault1"].Sessions(); len(sessions) > 0 && killed[head] < mostKills && head < want {
				killed[head]++
				_ = syscall.Kill(sessions[0], syscall.SIGKILL) // it may have ended by itself
			}
			return head >= want
		})
		if round == 2 {
			c.await("both are verified", func() bool {
				return c.acks("projects", "vault1").Verified == 6 && c.acks("projects", "vault2").Verified == 6 &&
					c.acks("papers", "vault2").Verified == 1
			})
		}
		stop()
		must(t, <-ended)
		must(t, s.Close())
	}
	t.Logf("sessions killed, by the head of before: %v", killed)
	if killed[0] == 0 {
		t.Error("no session was killed")
	}
	for _, host := range []string{"vault1", "vault2"} {
		c.wantCopy(host, p, p.sealed...)
		c.wantCopy(host, small, small.sealed...)
	}
	c.noneIllegal()
	cancel()
	must(t, group.Wait())
}

// TestFullAndReadOnly: a disk without room, an account that may not write, and one that is well, all at once.
func TestFullAndReadOnly(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2", "vault3")
	c.cfg.Ship.Copies = 1
	small := c.hosts["vault1"].dir
	must(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=256k"))
	defer func() { must(t, unix.Unmount(small, unix.MNT_DETACH)) }()
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	c.sshHosts(ctx, group, "vault2")
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{100_000}, nil), p.seal([]int{300_000}, nil))
	s, err := New(Options{Config: c.cfg, Log: c.start().log})
	must(t, err)
	if err := s.ShipOnce(ctx, false); !errors.Is(err, store.ErrFull) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	st, err := s.Status(ctx)
	must(t, err)
	var got []string
	for _, host := range st[0].Stores[1:] {
		got = append(got, fmt.Sprint(host.Name, " ", host.State, " ", host.Batch))
	}
	if strings.Join(got, ", ") != "vault1 full 1, vault2 refused 0, vault3 ok 2" {
		t.Errorf("the hosts are %q", got)
	}
	c.wantHead("projects", "vault1", 1)
	must(t, unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=2m")) // somebody made room
	_ = s.ShipOnce(ctx, false)
	c.wantHead("projects", "vault1", 2)
	c.wantCopy("vault1", p, p.sealed...)
	must(t, s.Close())
	cancel()
	must(t, group.Wait())
}

// TestStalledServer: a session that is stopped answers nothing. The host is given up after a while and tried again; the other
// host does not notice.
func TestStalledServer(t *testing.T) {
	c := newCacheHost(t, "vault1", "vault2")
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	servers := c.sshHosts(ctx, group)
	p := newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{1000}, nil))
	s, err := New(Options{Config: c.cfg, Log: c.start().log, OpenStore: func(st config.Store) (store.Store, error) {
		opt, err := config.StoreOptions(c.cfg.SSH, st)
		opt.StallAfter = 300 * time.Millisecond
		if err != nil {
			return nil, err
		}
		return store.Open(st.URL, opt)
	}})
	must(t, err)
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run) }()
	c.await("both have the first", func() bool { return c.acks("projects", "vault1").Head == 1 && c.acks("projects", "vault2").Head == 1 })
	stopped := servers["vault1"].Sessions()
	for _, pid := range stopped {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	p.put(c.store, p.seal([]int{1000}, nil))
	c.await("vault2 has the second", func() bool { return c.acks("projects", "vault2").Head == 2 })
	c.await("vault1 is given up", func() bool { return c.acks("projects", "vault1").Error != "" || c.acks("projects", "vault1").Head == 2 })
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been closed
	}
	c.await("vault1 has the second", func() bool { return c.acks("projects", "vault1").Head == 2 })
	c.wantCopy("vault1", p, p.sealed...)
	stop()
	must(t, <-ended)
	must(t, s.Close())
	c.noneIllegal()
	cancel()
	must(t, group.Wait())
}
