package store_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	"slipway/internal/sshd"
	"slipway/internal/store"
	"slipway/internal/store/storetest"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a throw-away OpenSSH server for the time of the test.
func serve(t *testing.T, opt sshd.Options) *sshd.Server {
	t.Helper()
	server, err := sshd.Start(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	run(t, server)
	return server
}

// run serves until the returned function is called, at the latest until the test ends.
func run(t *testing.T, server *sshd.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	stop = func() {
		if cancel(); done == nil {
			return
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		done = nil
	}
	t.Cleanup(stop)
	return stop
}

func options(server *sshd.Server) store.Options {
	return store.Options{KeyFile: server.KeyFile, KnownHosts: []string{server.KnownHosts}}
}

func open(t *testing.T, url string, opt store.Options) store.Store {
	t.Helper()
	s, err := store.Open(url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestLocalDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "made", "here"), store.Options{})
	})
}

func TestOpenSSH(t *testing.T) {
	server := serve(t, sshd.Options{})
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, server.URL(filepath.Join(t.TempDir(), "made", "here")), options(server))
	})
}

// One connection must do where there are not more.
func TestOpenSSHOneConnection(t *testing.T) {
	server := serve(t, sshd.Options{})
	storetest.Run(t, func(t *testing.T) store.Store {
		opt := options(server)
		opt.Connections = 1
		return open(t, server.URL(t.TempDir()), opt)
	})
}

// The same through a Limiter.
func TestLimited(t *testing.T) {
	server := serve(t, sshd.Options{})
	for _, where := range []string{t.TempDir(), server.URL(t.TempDir())} {
		count := &counter{}
		opt := options(server)
		opt.Limit = count
		s := open(t, where, opt)
		if err := s.Publish(t.Context(), "object", make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if count.sum != 1<<20 || count.largest > 32<<10 {
			t.Errorf("%s: %d bytes asked for, at most %d at once", where, count.sum, count.largest)
		}
	}
}

type counter struct{ sum, largest int }

func (c *counter) WaitN(_ context.Context, n int) error {
	c.sum += n
	c.largest = max(c.largest, n)
	return nil
}

func BenchmarkPublish(b *testing.B) {
	server, err := sshd.Start(b.TempDir(), sshd.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return server.Serve(ctx) })
	defer func() {
		cancel()
		if err := group.Wait(); err != nil {
			b.Error(err)
		}
	}()
	for name, size := range map[string]int{"small": 4 << 10, "shard": 8 << 20} {
		b.Run(name, func(b *testing.B) {
			s, err := store.Open(server.URL(b.TempDir()), options(server))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				name := "shards/" + strconv.Itoa(i)
				if err := s.Publish(b.Context(), name, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
