package control

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/durable"
	"slipway/internal/state"
)

func TestWaitGoesOn(t *testing.T) {
	state := t.TempDir()
	steps := []Barrier{
		{Mark: "m1"}, {Mark: "m1", Why: "settling"}, {Mark: "m1", Sealed: true, Seq: 4, Stage: "sealed"},
		{Mark: "m1", Sealed: true, Seq: 4, Stage: "cached", Need: 1}, {Mark: "m1", Sealed: true, Seq: 4, Stage: "stored", Copies: 1, Need: 1},
	}
	n := 0
	f := &fake{barrier: func(b Barrier) (Barrier, error) {
		if n > 0 && b.Mark != "m1" {
			t.Errorf("the mark was not handed back: %+v", b)
		}
		n++
		return steps[n-1], nil
	}}
	serve(t, state, f)
	seen := 0
	b, err := Wait(t.Context(), state, Goal{Stage: Stored}, func(Barrier) { seen++ })
	if err != nil || b.Seq != 4 || n != 5 || seen != 4 {
		t.Errorf("%+v %v after %d questions, %d news", b, err, n, seen)
	}
}

func TestGoals(t *testing.T) {
	sealed := func(stage string, copies int) Barrier {
		return Barrier{Sealed: true, Stage: stage, Copies: copies, Need: 2}
	}
	for _, tt := range []struct {
		goal Goal
		b    Barrier
		want bool
	}{
		{Goal{Stage: Pending}, Barrier{}, true},
		{Goal{Stage: Sealed}, Barrier{Stage: "stored"}, false}, // not sealed: the stage says nothing
		{Goal{Stage: Sealed}, sealed("sealed", 0), true},
		{Goal{Stage: Cached}, sealed("sealed", 0), false},
		{Goal{Stage: Cached}, sealed("verified", 2), true},
		{Goal{Stage: Stored}, sealed("cached", 1), false},
		{Goal{Stage: Stored, Copies: 1}, sealed("cached", 1), true},
		{Goal{Stage: Stored, Copies: 3}, sealed("stored", 2), false},
		{Goal{Stage: Verified, Copies: 1}, sealed("stored", 2), false},
		{Goal{Stage: Sealed}, sealed("nonsense", 0), false},
	} {
		if got := tt.goal.reached(tt.b); got != tt.want {
			t.Errorf("%+v with %+v: %v", tt.goal, tt.b, got)
		}
	}
}

// TestWaitOverRestart: the daemon dies in the middle and comes back; the mark is asked for again.
func TestWaitOverRestart(t *testing.T) {
	state := t.TempDir()
	first := &fake{barrier: func(Barrier) (Barrier, error) { return Barrier{Mark: "m1"}, nil }}
	ctx, stop := context.WithCancel(t.Context())
	var daemon errgroup.Group
	daemon.Go(func() error { return Serve(ctx, state, first, time.Hour) })
	await(t, func() bool { _, err := Dial(state); return err == nil })
	var waiter errgroup.Group
	asked := make(chan struct{}, 1000)
	waiter.Go(func() error {
		_, err := Wait(t.Context(), state, Goal{Stage: Sealed}, func(Barrier) { asked <- struct{}{} })
		return err
	})
	<-asked
	stop()
	if err := daemon.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-asked // it has noticed, and goes on asking
	}
	serve(t, state, &fake{barrier: func(b Barrier) (Barrier, error) {
		if b.Mark != "m1" {
			return b, errors.New("the mark is lost")
		}
		b.Sealed, b.Stage = true, "sealed"
		return b, nil
	}})
	if err := waiter.Wait(); err != nil {
		t.Error(err)
	}
}

func TestWaitEnds(t *testing.T) {
	state := t.TempDir()
	if _, err := Wait(t.Context(), state, Goal{Stage: Sealed}, func(Barrier) {}); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no daemon at the first question: %v", err)
	}
	f := &fake{barrier: func(Barrier) (Barrier, error) { return Barrier{Mark: "m1", Why: "an open file"}, nil }}
	serve(t, state, f)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	b, err := Wait(ctx, state, Goal{Stage: Sealed}, func(Barrier) {})
	if !errors.Is(err, context.DeadlineExceeded) || b.Why != "an open file" {
		t.Errorf("%+v %v", b, err)
	}
	f.barrier = func(Barrier) (Barrier, error) { return Barrier{}, errors.New("no such path") }
	if _, err := Wait(t.Context(), state, Goal{Stage: Sealed}, func(Barrier) {}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a refusal: %v", err)
	}
}

// TestWaitForSupervised: where a supervisor holds the state directory its daemon is on its way, and is waited for.
func TestWaitForSupervised(t *testing.T) {
	dir := t.TempDir()
	lock, err := durable.Lock(state.Dir(dir).Lock())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	var waiter errgroup.Group
	asked := make(chan struct{}, 1000)
	waiter.Go(func() error {
		_, err := Wait(t.Context(), dir, Goal{Stage: Sealed}, func(Barrier) { asked <- struct{}{} })
		return err
	})
	<-asked
	<-asked
	serve(t, dir, &fake{barrier: func(b Barrier) (Barrier, error) {
		b.Mark, b.Sealed, b.Stage = "m1", true, "sealed"
		return b, nil
	}})
	if err := waiter.Wait(); err != nil {
		t.Error(err)
	}
}

// TestWaitOverCutAnswer: a daemon that dies in the middle of its answer is asked again.
func TestWaitOverCutAnswer(t *testing.T) {
	state := t.TempDir()
	n := 0
	serve(t, state, &fake{barrier: func(b Barrier) (Barrier, error) {
		switch n++; n {
		case 1:
			return Barrier{Mark: "m1"}, nil
		case 2:
			panic(http.ErrAbortHandler) // the connection is cut behind the header
		}
		return Barrier{Mark: "m1", Sealed: true, Stage: "sealed"}, nil
	}})
	if _, err := Wait(t.Context(), state, Goal{Stage: Sealed}, func(Barrier) {}); err != nil || n != 3 {
		t.Errorf("%v after %d questions", err, n)
	}
}
