package loop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		var at []time.Duration
		wake, done := make(chan struct{}, 1), make(chan error)
		go func() {
			done <- Every(ctx, time.Minute, wake, func() time.Duration {
				at = append(at, time.Since(began))
				return map[int]time.Duration{1: time.Second, 2: time.Hour}[len(at)]
			})
		}()
		<-time.After(90 * time.Second)
		Nudge(wake)
		Nudge(wake) // one look is enough for both, or they make two
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := []time.Duration{0, time.Second, time.Minute + time.Second, 90 * time.Second}
		if len(at) < len(want) || len(at) > len(want)+1 {
			t.Fatalf("stepped at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("stepped at %v, want %v", at, want)
			}
		}
	})
}
