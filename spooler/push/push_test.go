package push

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/shard"
	"slipway/internal/state"
	"slipway/internal/store"
)

func TestPushInOrder(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		p := r.pusher()
		r.push(p, 0)
		for i := range 20 {
			r.seal(r.object(1000+i), r.object(2000+i))
		}
		r.push(p, 20)
		r.complete(1)
		_, batches := r.dest.sent()
		if !slices.IsSorted(batches) || len(batches) != 20 {
			t.Fatalf("batch files went as %v", batches)
		}
		r.push(p, 0)
		r.seal()
		r.seal(r.object(shard.MaxSize))
		r.push(p, 2)
		r.complete(1)
		if rep := p.Report(); rep.Delivered != 22 || rep.Published != 22 || rep.Checked || rep.Sent < shard.MaxSize {
			t.Fatalf("report %+v", rep)
		}
	})
}

func TestPushResumesAfterCut(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		cut := errors.New("line cut")
		for range 6 {
			r.seal(r.object(5000), r.object(5000))
		}
		p := r.pusher()
		n := 0
		var mu sync.Mutex
		r.dest.tap(func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 14 { // all shards and two batch files
				return cut
			}
			return nil
		})
		if n, err := p.PushOnce(context.Background()); n != 2 || !errors.Is(err, cut) {
			t.Fatalf("pushed %d, %v; want 2 and the cut", n, err)
		}
		for _, again := range []*Pusher{p, r.pusher()} { // the same process, and one started anew
			r.dest.tap(func(string) error { return cut })
			if _, err := again.PushOnce(context.Background()); !errors.Is(err, cut) {
				t.Fatalf("push with the line cut: %v", err)
			}
			if got := again.Report().Delivered; got != 2 {
				t.Fatalf("delivered %d, want 2", got)
			}
		}
		r.dest.tap(nil)
		r.push(r.pusher(), 4)
		if shards, batches := r.dest.sent(); len(shards) != 0 || len(batches) != 4 {
			t.Fatalf("sent again: %v and %v", shards, batches)
		}
		r.complete(1)
	})
}

// The server's processes die in the middle of a push; Run finds its way back.
func TestPushServerKilled(t *testing.T) {
	r := newRig(t, true)
	for range 12 {
		r.seal(r.object(100_000))
	}
	kills := 0
	r.dest.tap(func(name string) error {
		if strings.HasPrefix(name, "batches/") && kills < 3 {
			kills++
			for _, pid := range r.server.Sessions() {
				if proc, err := os.FindProcess(pid); err == nil {
					_ = proc.Kill() // it may have ended by itself
				}
			}
		}
		return nil
	})
	r.runUntil(func(_ *Pusher, head batch.Seq) bool { return head == 12 })
	if kills != 3 {
		t.Fatalf("%d kills", kills)
	}
	r.complete(1)
}

// runUntil runs a pusher until what it delivered satisfies done.
func (r *rig) runUntil(done func(p *Pusher, head batch.Seq) bool) Report {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var p *Pusher
	var mu sync.Mutex // both of the pusher's loops call
	r.target.OnDelivered = func(_ string, head batch.Seq) {
		mu.Lock()
		defer mu.Unlock()
		if done(p, head) {
			cancel()
		}
	}
	p = r.pusher()
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		r.t.Fatalf("run: %v, report %+v", err, p.Report())
	}
	return p.Report()
}

func TestPushForeignVolume(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		r.seal(r.object(100))
		other := state.Volume{Name: "accounts", ID: batch.NewVolumeID()}
		if err := ClaimVolume(context.Background(), r.dest, "cache1", other); err != nil {
			t.Fatal(err)
		}
		_, err := r.pusher().PushOnce(context.Background())
		if !errors.Is(err, errForeign) {
			t.Fatalf("push into another volume's directory: %v", err)
		}
		for _, name := range []string{"projects", "accounts", r.volume.ID.String(), other.ID.String()} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
		if shards, batches := r.dest.sent(); len(shards)+len(batches) != 0 {
			t.Fatal("something was sent")
		}
	})
}

func TestPushNewerFormat(t *testing.T) {
	r := newRig(t, false)
	if err := r.dest.CreateExclusive(context.Background(), "volume.json", []byte(`{"format":2}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pusher().PushOnce(context.Background()); !errors.Is(err, batch.ErrFormat) {
		t.Fatalf("push to a newer format: %v", err)
	}
}

func TestPushFull(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		r.acks("cache1", "cache", 0, true)
		r.seal(r.object(1000))
		p := r.pusher()
		if n, err := p.PushOnce(context.Background()); n != 0 || !errors.Is(err, errTargetFull) || stateAfter(err) != Full {
			t.Fatalf("pushed %d to a full store, %v", n, err)
		}
		if shards, _ := r.dest.sent(); len(shards) != 0 {
			t.Fatalf("sent %v to a full store", shards)
		}
		r.acks("cache1", "cache", 0, false)
		if err := p.PollAcks(context.Background()); err != nil {
			t.Fatal(err)
		}
		r.push(p, 1)
	})
}

// "Full" stops a sender at the next shard, not at the next batch.
func TestPushFullInTheMiddle(t *testing.T) {
	r := newRig(t, false)
	var objects []batch.Object
	for range 30 {
		objects = append(objects, r.object(1000))
	}
	r.seal(objects...)
	p := r.pusher()
	var once sync.Once
	r.dest.tap(func(string) error {
		once.Do(func() {
			r.acks("cache1", "cache", 0, true)
			if err := p.PollAcks(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	if _, err := p.PushOnce(context.Background()); !errors.Is(err, errTargetFull) {
		t.Fatalf("push: %v", err)
	}
	if shards, _ := r.dest.sent(); len(shards) > maxFlight {
		t.Fatalf("%d shards went on", len(shards))
	}
}

func TestPushAhead(t *testing.T) {
	put := func(r *rig, e batch.Epoch, seq batch.Seq, file []byte) {
		if err := r.dest.Store.Publish(context.Background(), batch.Path(e, seq, seq), file); err != nil {
			r.t.Fatal(err)
		}
	}
	publish := func(r *rig, e batch.Epoch, seq batch.Seq) { put(r, e, seq, r.encode(e, seq, nil).File) }
	for _, tc := range []struct {
		name  string
		set   func(r *rig)
		epoch batch.Epoch // 0: not ahead
		seq   batch.Seq
		fork  bool
	}{
		{"something that is no batch", func(r *rig) { put(r, 1, 4, []byte("junk")) }, 0, 0, false},
		{"a batch of another volume", func(r *rig) {
			id := r.volume.ID
			r.volume.ID = batch.NewVolumeID()
			publish(r, 1, 4)
			r.volume.ID = id
		}, 0, 0, false},
		{"another batch under our number, ours before it", func(r *rig) {
			r.push(r.pusher(), 3)
			r.removeAt(r.destDir, batch.Path(1, 3, 3))
			r.dest.tap(nil)
			publish(r, 1, 3)
		}, 1, 3, true},
		{"one more batch", func(r *rig) { publish(r, 1, 4) }, 1, 4, false},
		{"another batch under our number", func(r *rig) { publish(r, 1, 3) }, 1, 3, true},
		{"a later epoch", func(r *rig) { publish(r, 2, 3) }, 2, 3, true},
		{"a later epoch behind ours", func(r *rig) { publish(r, 2, 4) }, 2, 4, false},
		{"acknowledged beyond ours", func(r *rig) {
			other := r.encode(1, 4, nil)
			put(r, 1, 4, other.File)
			r.log.batches[4] = Batch{Epoch: 1, Seq: 4, Digest: other.Digest}
			r.acks("cache1", "cache", 4, false)
			delete(r.log.batches, 4)
		}, 1, 4, false},
		{"another one acknowledged", func(r *rig) {
			ours, other := r.log.batches[2], r.encode(1, 2, nil)
			put(r, 1, 2, other.File)
			r.log.batches[2] = Batch{Epoch: 1, Seq: 2, Digest: other.Digest}
			r.acks("cache1", "cache", 2, false)
			r.log.batches[2] = ours
		}, 1, 2, true},
		{"a side branch of an earlier epoch", func(r *rig) {
			r.log.b.Epoch = 2
			r.seal()
			publish(r, 1, 4)
			publish(r, 1, 5)
		}, 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, false)
			for range 3 {
				r.seal(r.object(100))
			}
			tc.set(r)
			_, err := r.pusher().PushOnce(context.Background())
			var ahead *AheadError
			if tc.epoch == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.As(err, &ahead) || stateAfter(err) != Refused {
				t.Fatalf("push: %v, want AheadError", err)
			}
			if ahead.Epoch != tc.epoch || ahead.Seq != tc.seq || ahead.Fork != tc.fork || ahead.Store != "cache1" {
				t.Fatalf("ahead %+v", ahead)
			}
		})
	}
}

// A damaged file under the name of one of our batches is neither sent over nor taken for another history.
func TestPushDamagedThere(t *testing.T) {
	r := newRig(t, false)
	for range 3 {
		r.seal(r.object(100))
	}
	r.push(r.pusher(), 3)
	file := filepath.Join(r.destDir, filepath.FromSlash(batch.Path(1, 3, 3)))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{whole[:len(whole)-1], append(slices.Clone(whole[:len(whole)-1]), ^whole[len(whole)-1])} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.pusher().PushOnce(context.Background()); !errors.Is(err, errDamaged) || stateAfter(err) != Refused {
			t.Fatalf("push: %v, want errDamaged", err)
		}
	}
}

// What is acknowledged counts as delivered, evicted or not; above it we look.
func TestPushLooksAboveAcks(t *testing.T) {
	eachDestination(t, func(t *testing.T, r *rig) {
		var objects []batch.Object
		for range 6 {
			o := r.object(3000)
			objects = append(objects, o)
			r.seal(o)
		}
		r.push(r.pusher(), 6)
		r.acks("cache1", "cache", 3, false)
		r.removeAt(r.destDir, objects[0].Digest.Path()) // evicted
		r.removeAt(r.destDir, objects[4].Digest.Path()) // lost
		r.dest.tap(nil)
		p := r.pusher()
		r.push(p, 2)
		if shards, _ := r.dest.sent(); len(shards) != 1 || shards[0] != objects[4].Digest.Path() {
			t.Fatalf("sent %v", shards)
		}
		r.complete(2)
		if rep := p.Report(); !rep.Checked || rep.Acked != 3 || rep.Delivered != 3 || rep.Published != 6 {
			t.Fatalf("report %+v", rep)
		}
	})
}

// The destination is put back to an earlier state while the pusher runs.
func TestPushRefillsAfterRollback(t *testing.T) {
	r := newRig(t, false)
	var last batch.Object
	for range 5 {
		last = r.object(3000)
		r.seal(last)
	}
	p := r.pusher()
	r.push(p, 5)
	r.acks("cache1", "cache", 5, false)
	if err := p.PollAcks(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.removeAt(r.destDir, batch.Path(1, 5, 5))
	r.removeAt(r.destDir, last.Digest.Path())
	r.acks("cache1", "cache", 4, false)
	if err := p.PollAcks(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.dirty:
	default:
		t.Fatal("nobody was woken")
	}
	r.push(p, 1)
	r.complete(1)
}

func TestPushLostShard(t *testing.T) {
	for _, rotten := range []bool{false, true} {
		r := newRig(t, false)
		o := r.object(3000)
		r.seal(o)
		file := filepath.Join(r.ownDir, filepath.FromSlash(o.Digest.Path()))
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if rotten {
			bad := slices.Clone(whole)
			bad[100] ^= 1
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err = r.pusher().PushOnce(context.Background())
		var lost *LostShardError
		if !errors.As(err, &lost) || lost.Shard != o || rotten != errors.Is(err, shard.ErrCorrupt) || rotten == errors.Is(err, store.ErrNotExist) {
			t.Fatalf("push: %v, want LostShardError", err)
		}

		elsewhere := openLocal(t, t.TempDir())
		if err := elsewhere.Publish(context.Background(), o.Digest.Path(), whole); err != nil {
			t.Fatal(err)
		}
		r.target.Elsewhere = []store.Store{openLocal(t, t.TempDir()), elsewhere}
		r.push(r.pusher(), 1)
	}
}

// The head is committed before its file has its name: nothing to push yet, and no fault.
func TestPushHeadNotRenamedYet(t *testing.T) {
	r := newRig(t, false)
	r.seal(r.object(100))
	r.seal(r.object(100))
	name := filepath.Join(r.ownDir, filepath.FromSlash(batch.Path(1, 2, 2)))
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	p := r.pusher()
	r.push(p, 1)
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	r.push(p, 1)
	r.seal()
	r.removeAt(r.ownDir, batch.Path(1, 2, 2))
	r.removeAt(r.destDir, batch.Path(1, 2, 2))
	if _, err := r.pusher().PushOnce(context.Background()); !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("a batch in the middle is missing: %v", err)
	}
}

func TestPushShardsAheadOfBatch(t *testing.T) {
	r := newRig(t, false)
	p := r.pusher()
	p.ShardPublished(r.object(1000)) // not connected yet: left to its batch
	r.push(p, 0)
	if shards, _ := r.dest.sent(); len(shards) != 0 {
		t.Fatalf("%d shards went ahead of the first look", len(shards))
	}
	var objects []batch.Object
	for range 9 {
		o := r.object(1000)
		objects = append(objects, o)
		p.ShardPublished(o)
	}
	r.push(p, 0)
	if shards, _ := r.dest.sent(); len(shards) != len(objects) {
		t.Fatalf("%d shards went ahead, want %d", len(shards), len(objects))
	}
	r.dest.tap(nil)
	r.seal(append(objects, r.object(500))...)
	r.push(p, 1)
	if shards, _ := r.dest.sent(); len(shards) != 1 {
		t.Fatalf("%d shards were sent with the batch, want 1", len(shards))
	}
	r.complete(1)

	// Announced and sealed before it could go: it goes once.
	o := r.object(700)
	p.ShardPublished(o)
	r.dest.tap(nil)
	r.seal(o)
	r.push(p, 1)
	if shards, _ := r.dest.sent(); len(shards) != 1 {
		t.Fatalf("an announced shard went %d times", len(shards))
	}
}

// A shard that was sent ahead is removed there as abandoned before the batch names it: the look after publishing finds it.
func TestPushLooksOnceMore(t *testing.T) {
	r := newRig(t, false)
	o := r.object(1000)
	p := r.pusher()
	r.push(p, 0)
	p.ShardPublished(o)
	r.push(p, 0)
	r.seal(o)
	r.removeAt(r.destDir, o.Digest.Path())
	if n, err := p.PushOnce(context.Background()); n != 0 || !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("pushed %d, %v; want the missing shard", n, err)
	}
	r.push(p, 1)
	r.complete(1)
}

func TestPushFromBase(t *testing.T) {
	r := newRig(t, false)
	for range 5 {
		r.seal(r.object(100))
	}
	r.log.b.Base = 4
	r.push(r.pusher(), 2)
	r.complete(4)
	if _, err := os.Stat(filepath.Join(r.destDir, filepath.FromSlash(batch.Path(1, 3, 3)))); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a batch below base was sent: %v", err)
	}
}

// This node lost its catalog and began epoch 2 with itself as base. What epoch 1 left undelivered goes on where it stood, as far
// as this node still knows it; what it does not know holds nothing up.
func TestPushNextEpoch(t *testing.T) {
	for _, tc := range []struct {
		name   string
		acked  batch.Seq
		known  []batch.Seq // of epoch 1, as far as the new catalog has it
		pushed int
	}{
		{"nothing was delivered", 0, []batch.Seq{1, 2, 3, 4, 5}, 2},
		{"all was delivered", 5, []batch.Seq{1, 2, 3, 4, 5}, 2},
		{"two are undelivered", 3, []batch.Seq{1, 2, 3, 4, 5}, 4},
		{"the next is unknown", 3, []batch.Seq{1, 2, 3, 5}, 2},
		{"one further on is unknown", 2, []batch.Seq{1, 2, 3, 5}, 3},
		{"the acknowledged one is unknown", 4, []batch.Seq{1, 2, 3, 5}, 2},
	} {
		for _, daemon := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, daemon %v", tc.name, daemon), func(t *testing.T) {
				r := newRig(t, false)
				for seq := range batch.Seq(5) {
					if seq == tc.acked && tc.acked > 0 {
						r.push(r.pusher(), int(tc.acked))
					}
					r.seal(r.object(100))
				}
				if tc.acked == 5 {
					r.push(r.pusher(), 5)
				}
				if daemon && tc.acked > 0 {
					r.acks("cache1", "cache", tc.acked, false)
				}
				for seq := range batch.Seq(6) {
					if !slices.Contains(tc.known, seq) {
						delete(r.log.batches, seq)
					}
				}
				r.log.b.Epoch, r.log.b.Base = 2, 6
				r.seal(r.object(100))
				r.seal(r.object(100))
				r.push(r.pusher(), tc.pushed)
				r.complete(6)
			})
		}
	}
}

func TestPushManyShards(t *testing.T) {
	r := newRig(t, false)
	var objects []batch.Object
	for range lookOneByOne + 50 {
		objects = append(objects, r.object(64))
	}
	r.seal(objects...)
	r.push(r.pusher(), 1)
	r.complete(1)
	lost := objects[77]
	r.removeAt(r.destDir, lost.Digest.Path())
	truncated := objects[99]
	if err := os.Truncate(filepath.Join(r.destDir, filepath.FromSlash(truncated.Digest.Path())), 10); err != nil {
		t.Fatal(err)
	}
	missing, err := r.pusher().missing(context.Background(), objects)
	if err != nil || len(missing) != 2 || !slices.Contains(missing, lost) || !slices.Contains(missing, truncated) {
		t.Fatalf("missing %v, %v", missing, err)
	}
}

// Names at the destination that are none of ours are passed over.
func TestPushStrangeNames(t *testing.T) {
	r := newRig(t, false)
	r.seal(r.object(100))
	for _, name := range []string{"batches/x/y", "batches/00000001/README", "batches/00000001/00000000/note.txt", "batches/99999999999/a"} {
		if err := r.dest.Store.Publish(context.Background(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	r.push(r.pusher(), 1)
}

func TestReadSealedRotten(t *testing.T) {
	r := newRig(t, false)
	b := r.seal()
	name := filepath.Join(r.ownDir, filepath.FromSlash(batch.Path(b.Epoch, b.Seq, b.Seq)))
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)-1] ^= 1
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readSealed(context.Background(), r.own, r.log, b.Seq); !errors.Is(err, batch.ErrCorrupt) {
		t.Fatalf("rotten batch file: %v", err)
	}
}

func TestPushErrorsSayWhat(t *testing.T) {
	for err, want := range map[error]string{
		&AheadError{Store: "cache1", Epoch: 2, Seq: 7}:             "cache1 holds batch 7 (epoch 2), which this node does not know",
		&AheadError{Store: "cache1", Epoch: 2, Seq: 7, Fork: true}: "cache1 holds another batch under number 7 (epoch 2) than this node",
		&LostShardError{Err: store.ErrNotExist}:                    fmt.Sprintf("shard %s is lost: object does not exist", path.Base(strings.Repeat("0", 64))),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
