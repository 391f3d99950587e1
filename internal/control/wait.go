package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
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
// come back meanwhile: the barrier's mark is the journal's own position and holds over restarts. A daemon that is not there
// at the first question is an error, because nobody has fixed what "before the call" means.
func Wait(ctx context.Context, state string, g Goal, news func(Barrier)) (Barrier, error) {
	b := Barrier{Paths: g.Paths}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 250*time.Millisecond
	for {
		next, err := ask(ctx, state, b)
		switch {
		case err == nil && g.reached(next):
			return next, nil
		case err == nil:
			if next.Mark != b.Mark || next.Sealed != b.Sealed || next.Stage != b.Stage {
				pause.Reset()
			}
			b = next
			news(b)
		case b.Mark != "" && (errors.Is(err, ErrNoDaemon) || errors.Is(err, ErrSilent) || isCut(err)):
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

func ask(ctx context.Context, state string, b Barrier) (Barrier, error) {
	c, err := Dial(state)
	if err != nil {
		return b, err
	}
	return c.Barrier(ctx, b)
}
