package push

import (
	"context"
	"testing"
	"time"

	"slipway/internal/store"
)

// shifted is a store on a machine with a wrong clock.
type shifted struct {
	store.Store
	by time.Duration
}

func (s shifted) Stat(ctx context.Context, name string) (store.Info, error) {
	i, err := s.Store.Stat(ctx, name)
	i.ModTime = i.ModTime.Add(s.by)
	return i, err
}

// TestClocks: a clock that is off by more than five minutes is told, a small difference is not.
func TestClocks(t *testing.T) {
	for by, want := range map[time.Duration]bool{
		0: false, 4 * time.Minute: false, -4 * time.Minute: false,
		time.Hour: true, -time.Hour: true, 30 * 365 * 24 * time.Hour: true, -30 * 365 * 24 * time.Hour: true,
	} {
		t.Run(by.String(), func(t *testing.T) {
			r := newRig(t, false)
			r.target.Dest = shifted{r.target.Dest, by}
			p := r.pusher()
			r.seal(r.object(1))
			r.push(p, 1)
			skew := p.Report().Skew
			if (skew != 0) != want {
				t.Fatalf("a clock off by %v is reported as %v", by, skew)
			}
			if want && (skew-by).Abs() > time.Minute {
				t.Errorf("a clock off by %v is reported as %v", by, skew)
			}
		})
	}
}

// TestSpaceIsAsked: with the acks comes how much room there is.
func TestSpaceIsAsked(t *testing.T) {
	r := newRig(t, false)
	r.target.Dest = openLocal(t, r.destDir) // the rig's own counts, and tells nothing
	p := r.pusher()
	r.seal(r.object(1))
	r.push(p, 1)
	if err := p.PollAcks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := p.Report(); rep.Total == 0 || rep.Free > rep.Total {
		t.Errorf("%d of %d bytes free", rep.Free, rep.Total)
	}
}
