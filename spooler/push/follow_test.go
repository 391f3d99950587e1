package push

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/store"
)

// A shard that has rotted in the own store is sent from another copy, put right, and reported.
func TestPushMendsRottenShard(t *testing.T) {
	r := newRig(t, false)
	o := r.object(5000)
	r.seal(o)
	other := openLocal(t, t.TempDir())
	good, err := os.ReadFile(filepath.Join(r.ownDir, o.Digest.Path()))
	must(t, err)
	must(t, other.Publish(t.Context(), o.Digest.Path(), good))
	flip(t, filepath.Join(r.ownDir, o.Digest.Path()))

	var told []Rotten
	r.target.Elsewhere = []store.Store{openLocal(t, t.TempDir()), other}
	r.target.OnRotten = func(x Rotten) { told = append(told, x) }
	r.push(r.pusher(), 1)
	if len(told) != 1 || told[0].Shard != o || !told[0].Mended {
		t.Errorf("told %+v", told)
	}
	r.complete(1)
	if now, err := os.ReadFile(filepath.Join(r.ownDir, o.Digest.Path())); err != nil || string(now) != string(good) {
		t.Errorf("the own store was not mended: %v", err)
	}
	// One that was evicted is no damage.
	evicted := r.object(700)
	data, err := r.own.Read(t.Context(), evicted.Digest.Path(), 1<<20)
	must(t, err)
	must(t, other.Publish(t.Context(), evicted.Digest.Path(), data))
	r.seal(evicted)
	r.removeAt(r.ownDir, evicted.Digest.Path())
	r.push(r.pusher(), 1)
	if len(told) != 1 {
		t.Errorf("told %+v", told)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o640))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A follower is behind the destination as a rule, and sends what comes after it; a fork is trouble for it, too.
func TestPushFollower(t *testing.T) {
	r := newRig(t, false)
	r.seal(r.object(10))
	r.seal(r.object(20))
	all := r.log.batches
	r.push(r.pusher(), 2)
	r.acks("cache1", "cache", 2, false)

	r.log.b.Head = 1
	r.log.batches = map[batch.Seq]Batch{1: all[1]}
	r.target.Follower = true
	p := r.pusher()
	r.push(p, 0)
	r.log.b.Head = 2
	r.log.batches = all
	r.seal(r.object(30))
	r.push(p, 1)
	r.complete(1)

	other := r.log.batches[3]
	other.Digest[0] ^= 1
	r.log.batches[3] = other
	var ahead *AheadError
	if _, err := r.pusher().PushOnce(t.Context()); !errors.As(err, &ahead) || !ahead.Fork {
		t.Errorf("another batch under number 3: %v", err)
	}
}

// Sending ends with its term and begins again with the next, behind what others have sent meanwhile.
func TestPushInTerms(t *testing.T) {
	r := newRig(t, false)
	p := r.pusher()
	for term := range batch.Seq(3) {
		r.seal(r.object(1000))
		ctx, end := context.WithCancel(t.Context())
		var g errgroup.Group
		r.dest.tap(func(name string) error {
			if rep := p.Report(); rep.Batch != term+1 || rep.Of != 1 {
				t.Errorf("%s: report %+v", name, rep)
			}
			if name == batch.Path(1, term+1, term+1) {
				end() // the term ends while the batch file is on its way
			}
			return nil
		})
		g.Go(func() error { return p.RunSending(ctx) })
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		p.StandBy()
		if rep := p.Report(); rep.State != Standby || rep.Batch != 0 || rep.Of != 0 || rep.Error != "" {
			t.Errorf("after the term: %+v", rep)
		}
		r.dest.tap(nil)
		r.push(r.pusher(), 1) // somebody else finishes it
	}
	r.complete(1)
	if shards, _ := r.dest.sent(); len(shards) != 0 {
		t.Errorf("%v were sent twice", shards)
	}
}

// A store that was emptied before its daemon had acknowledged anything is filled again all the same, and one that lost a shard.
func TestPushUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, false)
		lost := r.object(20)
		r.seal(r.object(10))
		r.seal(lost)
		p := r.pusher()
		r.push(p, 2)
		r.removeAt(r.destDir, lost.Digest.Path())
		r.acks("cache1", "cache", 1, false)
		ctx, stop := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return p.Run(ctx) })
		<-time.After(stuckAfter - time.Second)
		if _, err := os.Stat(filepath.Join(r.destDir, lost.Digest.Path())); err == nil {
			t.Error("it was sent again before anything was wrong")
		}
		<-time.After(3 * time.Second)
		stop()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		r.complete(1)
	})
}

// A daemon that has stopped acknowledging is said to have, with what to do, until it goes on.
func TestPushSilence(t *testing.T) {
	for kind, daemon := range map[string]string{"cache": "slipway ship", "replica": "slipway peer"} {
		r := newRig(t, false)
		r.target.Kind = kind
		r.seal(r.object(10)) // not inside the bubble: the encoders live on
		r.seal(r.object(20))
		synctest.Test(t, func(t *testing.T) {
			p := r.pusher()
			r.push(p, 2)
			p.enter(Idle, nil)
			r.acks("cache1", kind, 1, false)
			must(t, p.PollAcks(t.Context()))
			<-time.After(silentAfter - time.Second)
			if rep := p.Report(); rep.Error != "" || !rep.Checked {
				t.Fatalf("too soon: %+v", rep)
			}
			<-time.After(2 * time.Second)
			must(t, p.PollAcks(t.Context()))
			want := fmt.Sprintf("batch 2 is there, and nothing has acknowledged it for 11s: see that %q runs on cache1", daemon)
			if rep := p.Report(); rep.Error != want || rep.Checked || rep.Delivered != 1 {
				t.Fatalf("%+v", rep)
			}
			r.acks("cache1", kind, 2, false)
			must(t, p.PollAcks(t.Context()))
			<-time.After(2 * silentAfter)
			must(t, p.PollAcks(t.Context()))
			if rep := p.Report(); rep.Error != "" || !rep.Checked || rep.Delivered != 2 {
				t.Fatalf("all is acknowledged: %+v", rep)
			}
		})
	}
}

// Acks alone do not end an epoch: a store that lies about its head, or has lost what it acknowledged, is filled by what is there.
func TestPushLyingAcks(t *testing.T) {
	r := newRig(t, false)
	r.seal(r.object(10))
	lie := ack.Acks{VolumeID: r.volume.ID, Store: "cache1", Kind: "cache", Epoch: 1, Head: 1, HeadDigest: batch.Digest{9}, At: time.Now()}
	must(t, ack.Write(t.Context(), openLocal(t, r.destDir), lie))
	r.push(r.pusher(), 1)
	lie.Head, lie.Epoch = 7, 3
	must(t, ack.Write(t.Context(), openLocal(t, r.destDir), lie))
	r.seal(r.object(20))
	r.push(r.pusher(), 1)
	r.complete(1)
}
