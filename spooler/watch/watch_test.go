package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestWatchFollowsBursts: a journal that grows all the time is looked at now and then, and its last byte is seen all the same, burst after
// burst.
func TestWatchFollowsBursts(t *testing.T) {
	dir := t.TempDir()
	instance := filepath.Join(dir, "1-x")
	if err := os.Mkdir(instance, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(instance, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	j, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var looks, seen atomic.Int64
	var g errgroup.Group
	g.Go(func() error {
		return j.Run(ctx, func() {
			looks.Add(1)
			if info, err := f.Stat(); err == nil {
				seen.Store(info.Size())
			}
		})
	})
	written := int64(0)
	for burst := range 3 {
		looks.Store(0)
		began := time.Now()
		for time.Since(began) < 300*time.Millisecond {
			n, err := f.WriteString("a record")
			if err != nil {
				t.Fatal(err)
			}
			written += int64(n)
		}
		deadline := time.After(10 * time.Second)
		for seen.Load() != written {
			select {
			case <-deadline:
				t.Fatalf("burst %d: %d of %d bytes seen", burst, seen.Load(), written)
			case <-time.After(time.Millisecond):
			}
		}
		if n, most := looks.Load(), int64(time.Since(began)/lookEvery)+4; n > most {
			t.Errorf("burst %d: %d looks, want %d at most", burst, n, most)
		}
		quiet := time.After((quietLooks + 3) * lookEvery)
		<-quiet // the watch is back, and the next burst begins with an event
	}
	stop()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
