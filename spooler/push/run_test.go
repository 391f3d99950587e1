package push

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/store"
)

// deadStore does not answer.
type deadStore struct {
	store.Store
	asked []time.Time
}

func (s *deadStore) Read(context.Context, string, int64) ([]byte, error) {
	s.asked = append(s.asked, time.Now())
	return nil, fmt.Errorf("dial: %w", store.ErrTemporary)
}

func (s *deadStore) List(context.Context, string) ([]store.Info, error) {
	return nil, fmt.Errorf("dial: %w", store.ErrTemporary)
}

// A destination that is down is tried for ever, less and less often, and new batches do not make it more often.
func TestPushBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &deadStore{}
		troubles := 0
		p := New(Target{
			Name: "cache1", Dest: dead, Log: &fakeLog{},
			OnTrouble: func(_ string, err error) {
				troubles++
				if !errors.Is(err, store.ErrTemporary) {
					t.Errorf("trouble %v", err)
				}
			},
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		var g errgroup.Group
		g.Go(func() error {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					p.Wake()
				case <-ctx.Done():
					return nil
				}
			}
		})
		if err := p.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := len(dead.asked); n < 15 || n > 60 || troubles != n {
			t.Fatalf("%d attempts, %d troubles in ten minutes", n, troubles)
		}
		if first := dead.asked[1].Sub(dead.asked[0]); first > time.Second {
			t.Errorf("second attempt after %v", first)
		}
		for i := 1; i < len(dead.asked); i++ {
			if gap := dead.asked[i].Sub(dead.asked[i-1]); gap > backoffMax*3/2 {
				t.Errorf("%v without an attempt", gap)
			}
		}
		if rep := p.Report(); rep.State != Waiting && rep.State != Connecting || rep.Error == "" {
			t.Errorf("report %+v", rep)
		}
	})
}

func TestPushStateAfter(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want State
	}{
		{nil, Idle},
		{errTargetFull, Full},
		{fmt.Errorf("publish: %w", store.ErrFull), Full},
		{fmt.Errorf("publish: %w", store.ErrTemporary), Waiting},
		{fmt.Errorf("publish: %w", store.ErrReadOnly), Waiting},
		{fmt.Errorf("connect: %w", store.ErrHostKey), Refused},
		{fmt.Errorf("connect: %w", store.ErrAuth), Refused},
		{errForeign, Refused},
		{&AheadError{}, Refused},
		{&LostShardError{Err: store.ErrNotExist}, Waiting},
	} {
		if got := stateAfter(tc.err); got != tc.want {
			t.Errorf("after %v: %s, want %s", tc.err, got, tc.want)
		}
	}
}

// Run pushes what is sealed while it runs, woken and not by its poll, and hands the acks on.
func TestPushRun(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		var seen atomic.Value
		r.target.OnAcks = func(_ string, list []ack.Acks) {
			var names []string
			for _, a := range list {
				names = append(names, fmt.Sprint(a.Store, a.Head))
			}
			seen.Store(names)
		}
		began := time.Now()
		r.runUntil(func(p *Pusher, head batch.Seq) bool {
			b, _ := r.log.Bounds()
			switch {
			case b.Head < 3:
				r.seal(r.object(1000))
				p.Wake()
			case p.Report().Acked == 0 && head == 3:
				r.acks("cache1", "cache", 3, false)
				r.acks("vault1", "backup", 2, false)
			}
			names, _ := seen.Load().([]string)
			return slices.Equal(names, []string{"cache13", "vault12"}) && head == 3
		})
		if took := time.Since(began); took > idleLook/2 {
			t.Errorf("took %v", took)
		}
		r.complete(1)
	})
}

// A destination whose acks say full waits, and goes on when they no longer do.
func TestPushRunFull(t *testing.T) {
	r := newRig(t, false)
	r.acks("cache1", "cache", 0, true)
	r.seal(r.object(1000))
	freed := false
	r.target.OnTrouble = func(_ string, err error) {
		if !errors.Is(err, errTargetFull) {
			t.Errorf("trouble %v", err)
		}
		freed = true
		r.acks("cache1", "cache", 0, false)
	}
	r.runUntil(func(p *Pusher, _ batch.Seq) bool { return p.Report().Published == 1 })
	if !freed {
		t.Error("was never full")
	}
}

func TestPollAcks(t *testing.T) {
	r := newRig(t, false)
	for range 4 {
		r.seal()
	}
	var got []ack.Acks
	r.target.OnAcks = func(_ string, list []ack.Acks) { got = list }
	p := r.pusher()
	r.push(p, 4)
	if pace := p.ackPace(); pace != ackPollFast {
		t.Fatalf("pace %v while nothing is acknowledged", pace)
	}
	r.acks("cache1", "cache", 4, false)
	r.acks("vault1", "backup", 3, false)
	foreign := ack.Acks{VolumeID: batch.NewVolumeID(), Store: "vault2", Kind: "backup", Head: 99, At: time.Now()}
	if err := ack.Write(context.Background(), r.dest, foreign); err != nil {
		t.Fatal(err)
	}
	if err := r.dest.Replace(context.Background(), ack.Path("vault3"), []byte("{damaged")); err != nil {
		t.Fatal(err)
	}
	if err := p.PollAcks(context.Background()); !errors.Is(err, ack.ErrFormat) {
		t.Fatalf("a damaged acks file is not told: %v", err)
	}
	if len(got) != 2 || got[0].Store != "cache1" || got[0].Head != 4 || got[1].Store != "vault1" || got[1].Head != 3 {
		t.Fatalf("acks %+v", got)
	}
	if pace := p.ackPace(); pace != ackPollFast {
		t.Fatalf("pace %v while vault1 is behind", pace)
	}
	// Its own acks file unreadable for a moment: it has not gone back.
	own := ack.Path("cache1")
	if err := r.dest.Replace(context.Background(), own, []byte("{damaged")); err != nil {
		t.Fatal(err)
	}
	if err := p.PollAcks(context.Background()); !errors.Is(err, ack.ErrFormat) || p.Report().Acked != 4 || !p.connected.Load() {
		t.Fatalf("own acks damaged: %v, report %+v", err, p.Report())
	}
	r.acks("cache1", "cache", 4, false)
	r.acks("vault1", "backup", 4, false)
	if err := p.PollAcks(context.Background()); !errors.Is(err, ack.ErrFormat) {
		t.Fatal(err)
	}
	if pace := p.ackPace(); pace != ackPoll {
		t.Fatalf("pace %v when everything is acknowledged", pace)
	}
	if rep := p.Report(); rep.Acked != 4 || !rep.Checked || rep.Delivered != 4 {
		t.Fatalf("report %+v", rep)
	}
}

// TestAckPace: acks are read more often while something sent is not acknowledged, and more often still while an fsync waits for it.
func TestAckPace(t *testing.T) {
	r := newRig(t, false)
	hurry := false
	r.target.Hurry = func() bool { return hurry }
	p := r.pusher()
	for _, step := range []struct {
		fast, hurry bool
		want        time.Duration
	}{{false, false, ackPoll}, {false, true, ackPoll}, {true, false, ackPollFast}, {true, true, ackPollHurry}} {
		p.fastTill, hurry = time.Time{}, step.hurry
		if step.fast {
			p.fastTill = time.Now().Add(time.Minute)
		}
		if got := p.ackPace(); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
}
