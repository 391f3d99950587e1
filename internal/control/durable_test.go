package control

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/journal"
)

// syncer is a daemon that an fsync can wait at.
type syncer struct {
	*fake
	durable func(ctx context.Context, q Durable) error
}

func (s *syncer) Durable(ctx context.Context, q Durable) error { return s.durable(ctx, q) }

// TestAwaitDurable: the question arrives as it was asked, and the answer too.
func TestAwaitDurable(t *testing.T) {
	state := t.TempDir()
	want := Durable{Object: journal.Ident{FS: 1, Ino: 2, Birth: -3}, Path: []byte("db/\xff"), Stage: Cached, Names: true}
	answers := []error{nil, errors.New("waits for the cache"), fs.ErrNotExist}
	asked := 0
	serve(t, state, &syncer{&fake{}, func(_ context.Context, q Durable) error {
		if q.Within <= 0 || q.Within >= 10*time.Second {
			t.Errorf("it may take %v", q.Within)
		}
		q.Within = 0
		if q.Object != want.Object || string(q.Path) != string(want.Path) || q.Stage != want.Stage || !q.Names {
			t.Errorf("asked %+v", q)
		}
		asked++
		return answers[asked-1]
	}})
	if err := AwaitDurable(t.Context(), state, want, 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := AwaitDurable(t.Context(), state, want, 10*time.Second); err == nil || err.Error() != "waits for the cache" {
		t.Errorf("the daemon's words: %v", err)
	}
	if err := AwaitDurable(t.Context(), state, want, 10*time.Second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

// TestAwaitDurableAmended: who completes a daemon's status hands the question on, and answers as the daemon would.
func TestAwaitDurableAmended(t *testing.T) {
	state := t.TempDir()
	amend := func([]Status) {}
	asked := 0
	serve(t, state, Amended{Amended{&syncer{&fake{}, func(context.Context, Durable) error { asked++; return nil }}, amend}, amend})
	if err := AwaitDurable(t.Context(), state, Durable{}, 10*time.Second); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if err := (Amended{&fake{}, amend}).Durable(t.Context(), Durable{}); !errors.Is(err, errNoVolume) {
		t.Errorf("of a daemon without a volume: %v", err)
	}
}

// TestAwaitDurableNoSyncer: a daemon that owns no volume says so.
func TestAwaitDurableNoSyncer(t *testing.T) {
	state := t.TempDir()
	serve(t, state, &fake{})
	if err := AwaitDurable(t.Context(), state, Durable{}, 10*time.Second); err == nil || err.Error() != "durable: this daemon owns no volume" {
		t.Error(err)
	}
}

// TestAwaitDurableOverRestart: the daemon dies in the middle, and the next one is asked; without one the time ends it, and the caller.
func TestAwaitDurableOverRestart(t *testing.T) {
	state := t.TempDir()
	began := time.Now()
	if err := AwaitDurable(t.Context(), state, Durable{}, 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	if took := time.Since(began); took < 250*time.Millisecond || took > 30*time.Second {
		t.Errorf("without a daemon it took %v", took)
	}

	ctx, stop := context.WithCancel(t.Context())
	var daemon, waiter errgroup.Group
	asked, ended := make(chan struct{}), make(chan struct{})
	daemon.Go(func() error {
		return Serve(ctx, state, &syncer{&fake{}, func(ctx context.Context, _ Durable) error {
			close(asked)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}}, time.Hour)
	})
	await(t, func() bool { _, err := Dial(state); return err == nil })
	waiter.Go(func() error { return AwaitDurable(t.Context(), state, Durable{}, time.Minute) })
	<-asked
	stop()
	if err := daemon.Wait(); err != nil {
		t.Fatal(err)
	}
	<-ended
	serve(t, state, &syncer{&fake{}, func(context.Context, Durable) error { return nil }})
	if err := waiter.Wait(); err != nil {
		t.Error(err)
	}
}

// TestAwaitDurableGivenUp: the daemon learns that nobody waits any more.
func TestAwaitDurableGivenUp(t *testing.T) {
	state := t.TempDir()
	asked, ended := make(chan struct{}), make(chan struct{})
	serve(t, state, &syncer{&fake{}, func(ctx context.Context, _ Durable) error {
		close(asked)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}})
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return AwaitDurable(ctx, state, Durable{}, time.Minute) })
	<-asked
	stop()
	<-ended
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestAwaitDurableSilent: a daemon that is stopped takes connections and says nothing; the time ends that too.
func TestAwaitDurableSilent(t *testing.T) {
	state := t.TempDir()
	l, done, err := listen(state)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	defer func() { _ = l.Close() }()
	began := time.Now()
	if err := AwaitDurable(t.Context(), state, Durable{}, 500*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
