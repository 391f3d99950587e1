package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"slipway/internal/durable"
	"slipway/internal/state"
)

// Goal is what a Wait waits for.
type Goal struct {
	Paths  []string // relative to the volume; none: everything
	Stage  Stage
	Copies int // backup hosts for Stored; 0: the cache's `copies`
}

// reached tells whether a barrier's answer is enough.
func (g Goal) reached(b Barrier) bool {
	if !b.Sealed {
		return g.Stage == Pending
	}
	stage, err := ParseStage(b.Stage)
	if err != nil {
		return false
	}
	if g.Stage == Stored && g.Copies > 0 {
		return stage >= Cached && b.Copies >= g.Copies
	}
	return stage >= g.Stage
}

// Wait returns when everything changed below the goal's paths before the call has reached its stage. The daemon may die and
// come back meanwhile: the barrier's mark is the journal's own position and holds over restarts. A daemon that was never there
// is waited for only where its supervisor is; the mark, set later then, covers what was changed before the call all the same.
func Wait(ctx context.Context, stateDir string, g Goal, news func(Barrier)) (Barrier, error) {
	b := Barrier{Paths: g.Paths}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 250*time.Millisecond
	for {
		next, err := ask(ctx, stateDir, b)
		switch {
		case err == nil && g.reached(next):
			return next, nil
		case err == nil:
			if next.Mark != b.Mark || next.Sealed != b.Sealed || next.Stage != b.Stage {
				pause.Reset()
			}
			b = next
			news(b)
		case (b.Mark != "" || supervised(stateDir)) && (errors.Is(err, ErrNoDaemon) || errors.Is(err, ErrSilent)):
			b.Why = err.Error()
			news(b)
		default:
			return b, fmt.Errorf("wait for stage %s: %w", g.Stage, err)
		}
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return b, ctx.Err()
		case <-timer.C:
		}
	}
}

// supervised tells whether a supervisor holds the state directory, so that its daemon is on its way.
func supervised(dir string) bool {
	lock, err := durable.Lock(state.Dir(dir).Lock())
	if err == nil {
		_ = lock.Close()
	}
	return errors.Is(err, durable.ErrLocked)
}

func ask(ctx context.Context, stateDir string, b Barrier) (Barrier, error) {
	c, err := Dial(stateDir)
	if err != nil {
		return b, err
	}
	return c.Barrier(ctx, b)
}
