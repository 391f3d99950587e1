package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/internal/control"
	"slipway/internal/render"
)

// lookEvery is the pause between two looks at the files under way.
const lookEvery = 25 * time.Millisecond

// journey is one file's way through the stages.
type journey struct {
	path  string
	stage control.Stage
	times []string
}

// watch asks the daemon for each file until all are stored, and tells each file's times when it is.
func (d *demo) watch(ctx context.Context, files []string, since time.Time) error {
	var under []*journey
	for _, f := range files {
		under = append(under, &journey{path: f})
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for len(under) > 0 {
		client, err := control.Dial(d.path("state"))
		if err != nil && !errors.Is(err, control.ErrNoDaemon) && !errors.Is(err, control.ErrSilent) {
			return err
		}
		var left []*journey
		for _, j := range under {
			if err == nil {
				if err := j.look(ctx, client, since); err != nil {
					return err
				}
			}
			if j.stage < control.Stored {
				left = append(left, j)
			} else {
				d.say("  %-42s %s", render.Name(j.path), strings.Join(j.times, " → "))
			}
		}
		under = left
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch %d files that are not stored yet: %w", len(under), ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

// look notes a stage that the file has reached since the last look.
func (j *journey) look(ctx context.Context, c *control.Client, since time.Time) error {
	e, err := c.Explain(ctx, j.path)
	if err != nil {
		if errors.Is(err, control.ErrSilent) || errors.Is(err, control.ErrNoDaemon) {
			return nil // it has much to do; the next look asks again
		}
		return err
	}
	stage, err := control.ParseStage(e.Stage)
	if err != nil {
		return err
	}
	if stage == control.Replicated {
		stage = control.Sealed // there are no replica peers here, so the two are one
	}
	if len(j.times) == 0 || stage > j.stage {
		j.stage = stage
		j.times = append(j.times, fmt.Sprintf("%s %.2fs", stage, time.Since(since).Seconds()))
	}
	return nil
}
