package store_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"slipway/internal/sshd"
	"slipway/internal/store"
)

// On a slow line the confirmed bytes move while one object is still on its way; what is replaced does not count.
func TestConfirmed(t *testing.T) {
	t.Parallel()
	server := serve(t, sshd.Options{})
	const size = 4 << 20
	opt := options(server)
	opt.Limit = rate.NewLimiter(8<<20, 32<<10)
	s := open(t, "sftp://"+server.User+"@"+server.Addr+t.TempDir(), opt)
	part := store.Sub(s, "projects")
	if err := part.Replace(t.Context(), "progress/alpha.json", content(1, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if got := store.Confirmed(part); got != 0 {
		t.Fatalf("%d bytes are confirmed before anything was published", got)
	}
	ctx, done := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		defer done()
		return part.Publish(t.Context(), object, content(2, size))
	})
	seen := map[int64]bool{}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := int64(0)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			now := store.Confirmed(part)
			if now < last {
				t.Errorf("went back from %d to %d", last, now)
			}
			last, seen[now] = now, true
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := store.Confirmed(s); got < size || got > size+size/8 {
		t.Errorf("%d bytes are confirmed of %d", got, size)
	}
	if len(seen) < 4 {
		t.Errorf("only %d different counts were seen on the way", len(seen))
	}
}

func TestConfirmedDirectory(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), store.Options{})
	for range 2 { // present and equal counts as delivered, too
		if err := s.Publish(t.Context(), object, content(3, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if got := store.Confirmed(s); got != 2000 {
		t.Errorf("%d bytes", got)
	}
}
