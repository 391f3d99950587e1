// Package loop has what the daemons' loops are made of. Each loop has one owner, ends with its context, and does its work in a step
// that tests call by themselves.
package loop

import (
	"context"
	"time"
)

// Every calls step at once, at each wake-up, at each interval, and as soon again as step asks for (0: it does not). It returns nil
// when ctx has ended.
func Every(ctx context.Context, interval time.Duration, wake <-chan struct{}, step func() time.Duration) error {
	for {
		wait := interval
		if again := step(); again > 0 {
			wait = min(again, interval)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Nudge makes sure that whoever waits for c, a channel of capacity one, looks once more.
func Nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
