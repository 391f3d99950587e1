package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/state"
)

// keeperRig is a volume that a Keeper holds, and its owner.
type keeperRig struct {
	*rig
	*Keeper
	state   string
	batches []*batch.Batch // as the owner sealed them, by seq - 1
	full    bool
	heads   int // how often OnHead was called
	now     time.Time
	log     bytes.Buffer
}

func newKeeperRig(t *testing.T) *keeperRig {
	t.Helper()
	k := &keeperRig{rig: newRig(t), state: t.TempDir(), now: time.Unix(1e9, 0)}
	k.volumeFile(k.rig.ID)
	k.restart()
	return k
}

// restart makes a Keeper as after the start of a process.
func (k *keeperRig) restart() {
	v := *k.rig.Volume
	v.ID, v.Now = batch.VolumeID{}, func() time.Time { return k.now }
	k.Keeper = &Keeper{
		Volume: v, Kind: "replica", StoreName: "bravo", URL: "/srv/replicas", State: k.state, Full: func() bool { return k.full },
		OnHead: func() { k.heads++ }, Log: slog.New(slog.NewTextHandler(&k.log, nil)),
	}
}

func (k *keeperRig) volumeFile(id batch.VolumeID) {
	k.t.Helper()
	data, err := json.Marshal(state.Volume{Format: 1, Name: "projects", ID: id})
	must(k.t, err)
	must(k.t, os.WriteFile(filepath.Join(k.rig.Dir, VolumeFile), data, 0o640))
}

// seal seals the owner's next batch, with two shards, and publishes everything.
func (k *keeperRig) seal(edit func(*batch.Envelope)) *batch.Batch {
	k.t.Helper()
	env := k.envelope()
	env.Peers = []batch.Peer{{Name: "bravo"}, {Name: "charlie"}}
	env.Introduces = []batch.Object{k.shard(100), k.shard(200)}
	if edit != nil {
		edit(&env)
	}
	sealed := k.put(k.owner, env)
	b, err := batch.Parse(sealed.File)
	must(k.t, err)
	k.chain.Extend(b)
	k.batches = append(k.batches, b)
	return b
}

func (k *keeperRig) arriveAll() {
	k.t.Helper()
	_, err := k.Arrive(k.t.Context())
	must(k.t, err)
}

// wantHead checks the head and what the acks file says of it.
func (k *keeperRig) wantHead(seq batch.Seq) ack.Acks {
	k.t.Helper()
	a, err := ack.Read(k.t.Context(), k.Keeper.Store, "bravo")
	must(k.t, err)
	if k.Head() != seq || a.Head != seq || a.Kind != "replica" || a.VolumeID != k.rig.ID {
		k.t.Fatalf("head %d, acks %+v; want %d", k.Head(), a, seq)
	}
	if seq > 0 && a.HeadDigest != k.batches[seq-1].Digest {
		k.t.Fatalf("the acks name another batch %d", seq)
	}
	return a
}

func (k *keeperRig) path(o batch.Object) string { return filepath.Join(k.rig.Dir, o.Digest.Path()) }

func TestKeeperTakesAChain(t *testing.T) {
	k := newKeeperRig(t)
	k.arriveAll()
	if k.heads != 0 {
		t.Error("the head of nothing has moved")
	}
	for range 3 {
		k.seal(nil)
	}
	reached := k.now
	k.arriveAll()
	a := k.wantHead(3)
	if k.heads != 1 || a.Epoch != 1 || len(a.Recent) != 3 || !a.Recent[2].At.Equal(reached) || a.URL != "/srv/replicas" {
		t.Errorf("%d calls of OnHead, acks %+v", k.heads, a)
	}
	if n := k.Naming(); n.Node != "alpha" || len(n.Peers) != 2 || n.Peers[1] != "charlie" {
		t.Errorf("naming %+v", n)
	}
	if keys, err := k.Keeper.Pins.Read("projects"); err != nil || len(keys) != 1 || keys[0] != bare(k.owner.key) {
		t.Errorf("pinned %v, %v", keys, err)
	}
	before, err := os.Stat(filepath.Join(k.rig.Dir, ack.Path("bravo")))
	must(t, err)
	k.arriveAll()
	if after, err := os.Stat(filepath.Join(k.rig.Dir, ack.Path("bravo"))); err != nil || !os.SameFile(before, after) || k.heads != 1 {
		t.Errorf("nothing came, and the acks were written: %v", err)
	}
	k.seal(nil)
	k.arriveAll()
	k.wantHead(4)
}

// TestKeeperOnHead: whoever is told may ask the Keeper anything, and let it do something.
func TestKeeperOnHead(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	told := batch.Seq(0)
	k.OnHead = func() {
		told = k.Head()
		if !k.passMu.TryLock() {
			t.Error("told while the pass is locked")
			return
		}
		k.passMu.Unlock()
		must(t, k.Drop(ctx, 0))
	}
	_, err := k.Arrive(ctx)
	must(t, err)
	if told != 1 {
		t.Errorf("told at head %d", told)
	}
}

func TestKeeperNothingYet(t *testing.T) {
	k := newKeeperRig(t)
	must(t, os.Remove(filepath.Join(k.rig.Dir, VolumeFile)))
	k.seal(nil)
	k.arriveAll()
	if s := k.Standing(); k.Head() != 0 || !strings.Contains(s.Note, VolumeFile) {
		t.Errorf("head %d, %+v", k.Head(), s)
	}
	must(t, k.Drop(t.Context(), 9))
	must(t, k.Lost(t.Context(), 9, errors.New("lost")))
	must(t, os.WriteFile(filepath.Join(k.rig.Dir, VolumeFile), []byte("{"), 0o640))
	if _, err := k.Arrive(t.Context()); err == nil {
		t.Error("a damaged volume.json is taken")
	}
	if list, err := os.ReadDir(k.state); err != nil || len(list) != 0 {
		t.Errorf("remembered before it is known whose it is: %v, %v", list, err)
	}
	k.volumeFile(k.rig.ID)
	k.arriveAll()
	k.wantHead(1)
}

// TestKeeperMissingShards: a batch whose shards have not come waits, is complained about once, and is taken when they have.
func TestKeeperMissingShards(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	b := k.seal(nil)
	k.seal(nil)
	o := b.Envelope.Introduces[1]
	must(t, move(k.path(o), filepath.Join(k.state, "away")))
	for range 4 {
		again, err := k.Arrive(t.Context())
		must(t, err)
		if again != missingEvery || !strings.Contains(k.Standing().Note, "batch 2 waits for 1 of its 2 shards") {
			t.Fatalf("again in %v, %q", again, k.Standing().Note)
		}
		k.now = k.now.Add(lateAfter/2 + time.Second)
	}
	k.wantHead(1)
	if n := strings.Count(k.log.String(), "shards that do not come"); n != 1 {
		t.Errorf("complained %d times", n)
	}
	must(t, move(filepath.Join(k.state, "away"), k.path(o)))
	k.arriveAll()
	k.wantHead(3)
	if k.Standing().Note != "" {
		t.Errorf("still waits: %q", k.Standing().Note)
	}
}

// TestKeeperRefusal: what fails its checks is set aside, counted and told; the right object is taken under the same name.
func TestKeeperRefusal(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	good := k.seal(nil)
	right, err := os.ReadFile(filepath.Join(k.rig.Dir, good.Path()))
	must(t, err)
	o := good.Envelope.Introduces[0]
	shardBytes, err := os.ReadFile(k.path(o))
	must(t, err)
	rewrite(t, filepath.Join(k.rig.Dir, good.Path()), func(data []byte) { data[len(data)/2] ^= 1 }, len(right))
	rewrite(t, k.path(o), func(data []byte) { data[7] ^= 1 }, int(o.Size))
	k.arriveAll()
	a := k.wantHead(1)
	if len(a.Refused) != 1 || a.Refused[0].Name != good.Path() {
		t.Fatalf("refused %+v", a.Refused)
	}
	must(t, k.rig.Store.Publish(t.Context(), good.Path(), right))
	k.arriveAll()
	a = k.wantHead(1)
	if len(a.Refused) != 2 || a.Refused[1].Name != o.Digest.Path() || !strings.HasPrefix(a.Refused[1].Reason, "digest: ") {
		t.Fatalf("refused %+v", a.Refused)
	}
	must(t, k.rig.Store.Publish(t.Context(), o.Digest.Path(), shardBytes))
	k.arriveAll()
	k.wantHead(2)
	if kept, err := os.ReadDir(filepath.Join(k.rig.Dir, "refused")); err != nil || len(kept) != 2 {
		t.Errorf("kept %v, %v", kept, err)
	}
	k.restart() // the count is remembered
	k.arriveAll()
	if a = k.wantHead(2); len(a.Refused) != 2 {
		t.Errorf("after a restart: %+v", a.Refused)
	}
}

// TestKeeperRestart: what was checked is not hashed again, and the chain goes on from there.
func TestKeeperRestart(t *testing.T) {
	k := newKeeperRig(t)
	b := k.seal(nil)
	k.seal(nil)
	k.arriveAll()
	o := b.Envelope.Introduces[0]
	rewrite(t, k.path(o), func(data []byte) { data[7] ^= 1 }, int(o.Size)) // of the same size: only a hash would tell
	k.restart()
	if k.Head() != 0 {
		t.Fatal("something is known before anything was read")
	}
	k.seal(nil)
	k.arriveAll()
	a := k.wantHead(3)
	if len(a.Recent) != 3 || k.Naming().Node != "alpha" || k.heads != 2 {
		t.Errorf("acks %+v, naming %+v, OnHead %d", a, k.Naming(), k.heads)
	}
}

// TestKeeperLostWhileAway: what went while nobody looked takes the head back to before it; sent again, it counts again.
func TestKeeperLostWhileAway(t *testing.T) {
	for name, spoil := range map[string]func(k *keeperRig, b *batch.Batch){
		"shard":       func(k *keeperRig, b *batch.Batch) { must(k.t, os.Remove(k.path(b.Envelope.Introduces[0]))) },
		"short shard": func(k *keeperRig, b *batch.Batch) { must(k.t, os.Truncate(k.path(b.Envelope.Introduces[1]), 7)) },
		"batch":       func(k *keeperRig, b *batch.Batch) { must(k.t, os.Remove(filepath.Join(k.rig.Dir, b.Path()))) },
		"damaged batch": func(k *keeperRig, b *batch.Batch) {
			must(k.t, os.Truncate(filepath.Join(k.rig.Dir, b.Path()), 100))
		},
	} {
		for _, seq := range []batch.Seq{1, 3} {
			t.Run(fmt.Sprintf("%s of batch %d", name, seq), func(t *testing.T) {
				k := newKeeperRig(t)
				for range 4 {
					k.seal(nil)
				}
				k.arriveAll()
				b := k.batches[seq-1]
				saved := map[string][]byte{}
				for _, name := range []string{b.Path(), b.Envelope.Introduces[0].Digest.Path(), b.Envelope.Introduces[1].Digest.Path()} {
					data, err := os.ReadFile(filepath.Join(k.rig.Dir, name))
					must(t, err)
					saved[name] = data
				}
				spoil(k, b)
				k.restart()
				if name == "batch" && seq == 1 { // a chain now begins at batch 2, and holds no copy of anything
					k.arriveAll()
					k.wantHead(0)
				} else {
					k.arriveAll()
					k.wantHead(seq - 1)
				}
				for range 2 { // what is in the way is set aside first
					for name, data := range saved {
						_ = k.rig.Store.Publish(t.Context(), name, data)
					}
					k.arriveAll()
				}
				k.wantHead(4)
			})
		}
	}
}

func TestKeeperDamagedMemory(t *testing.T) {
	for name, data := range map[string]string{
		"half": `{"format":1,"volume_id":"5e`, "empty": "", "null": "null", "no object": "[1]", "nothing inside": "{}", "zeros": strings.Repeat("\x00", 4096),
		"a head without batches": `{"format":1,"acks":{"head":9}}`,
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeperRig(t)
			k.seal(nil)
			k.seal(nil)
			k.arriveAll()
			must(t, os.WriteFile(k.statePath(), []byte(data), 0o600))
			k.restart()
			k.arriveAll()
			k.wantHead(2)
			if !strings.Contains(k.log.String(), "everything will be checked again") {
				t.Error("nothing is said")
			}
		})
	}
	k := newKeeperRig(t) // checked again is checked: rot is found
	b := k.seal(nil)
	k.arriveAll()
	rewrite(t, k.path(b.Envelope.Introduces[0]), func(data []byte) { data[7] ^= 1 }, 100)
	must(t, os.Remove(k.statePath()))
	k.restart()
	k.arriveAll()
	k.wantHead(0)
}

// TestKeeperNewerMemory: what a newer slipway has remembered is neither read nor written over.
func TestKeeperNewerMemory(t *testing.T) {
	for _, newer := range []string{`{"format":2}`, `{"format":2,"chain":"of another kind"}`} {
		k := newKeeperRig(t)
		k.seal(nil)
		must(t, os.WriteFile(k.statePath(), []byte(newer), 0o600))
		if _, err := k.Arrive(t.Context()); !errors.Is(err, errNewerState) {
			t.Errorf("%s: %v", newer, err)
		}
		if data, err := os.ReadFile(k.statePath()); err != nil || string(data) != newer {
			t.Errorf("written over: %s, %v", data, err)
		}
	}
}

// TestKeeperDrop: what was dropped is not lost, now or after a restart, and a drop that died in the middle is finished.
func TestKeeperDrop(t *testing.T) {
	k := newKeeperRig(t)
	for range 4 {
		k.seal(nil)
	}
	k.arriveAll()
	gone := func(seq batch.Seq) int {
		n := 0
		for _, o := range k.batches[seq-1].Envelope.Introduces {
			if _, err := os.Lstat(k.path(o)); errors.Is(err, os.ErrNotExist) {
				n++
			}
		}
		return n
	}
	must(t, k.Drop(t.Context(), 2))
	if gone(1) != 2 || gone(2) != 2 || gone(3) != 0 || k.Standing().Dropped != 2 {
		t.Fatalf("gone %d %d %d, dropped %d", gone(1), gone(2), gone(3), k.Standing().Dropped)
	}
	k.restart()
	k.arriveAll()
	k.wantHead(4)
	must(t, os.Remove(k.path(k.batches[2].Envelope.Introduces[0]))) // this one was not dropped
	k.restart()
	k.arriveAll()
	k.wantHead(2)
	must(t, k.Drop(t.Context(), 4)) // no further than the head
	if gone(4) != 0 || k.Standing().Dropped != 2 {
		t.Errorf("dropped %d", k.Standing().Dropped)
	}
}

// TestKeeperDropDies: the note comes first; what it does not get to, the next run does.
func TestKeeperDropDies(t *testing.T) {
	k := newKeeperRig(t)
	for range 3 {
		k.seal(nil)
	}
	k.arriveAll()
	hidden := k.path(k.batches[1].Envelope.Introduces[1])
	must(t, move(hidden, hidden+"x"))
	must(t, os.Mkdir(hidden, 0o755)) // it cannot be removed
	if err := k.Drop(t.Context(), 3); err == nil {
		t.Fatal("dropped what could not be removed")
	}
	must(t, os.Remove(hidden))
	must(t, move(hidden+"x", hidden))
	for range 2 {
		k.restart()
		k.arriveAll()
		k.wantHead(3)
		must(t, k.Drop(t.Context(), 3))
		for _, b := range k.batches {
			for _, o := range b.Envelope.Introduces {
				if _, err := os.Lstat(k.path(o)); !errors.Is(err, os.ErrNotExist) {
					t.Fatalf("a shard of batch %d is still there: %v", b.Envelope.Last, err)
				}
			}
		}
	}
}

// TestKeeperDropMeetsDamage: a batch file that cannot be read any more is filled again by the owner, and dropping goes on.
func TestKeeperDropMeetsDamage(t *testing.T) {
	k := newKeeperRig(t)
	for range 4 {
		k.seal(nil)
	}
	k.arriveAll()
	file := filepath.Join(k.rig.Dir, k.batches[1].Path())
	good, err := os.ReadFile(file)
	must(t, err)
	rewrite(t, file, func(data []byte) { data[len(data)/2] ^= 1 }, len(good))
	must(t, k.Drop(t.Context(), 4))
	if a := k.wantHead(1); len(a.Refused) != 1 || a.Refused[0].Name != k.batches[1].Path() {
		t.Errorf("refused %v", a.Refused)
	}
	must(t, os.WriteFile(file, good, 0o644))
	k.arriveAll()
	k.wantHead(4)
	must(t, k.Drop(t.Context(), 4))
	for _, b := range k.batches {
		for _, o := range b.Envelope.Introduces {
			if _, err := os.Lstat(k.path(o)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a shard of batch %d is still there: %v", b.Envelope.Last, err)
			}
		}
	}
}

func TestKeeperLost(t *testing.T) {
	k := newKeeperRig(t)
	for range 3 {
		k.seal(nil)
	}
	k.arriveAll()
	o := k.batches[1].Envelope.Introduces[0]
	good, err := os.ReadFile(k.path(o))
	must(t, err)
	rewrite(t, k.path(o), func(data []byte) { data[7] ^= 1 }, int(o.Size))
	must(t, k.Lost(t.Context(), 2, &Refusal{Name: o.Digest.Path(), Reason: "digest", Cause: errors.New("rotten")}))
	a := k.wantHead(1)
	if len(a.Refused) != 1 || len(a.Recent) != 1 {
		t.Errorf("acks %+v", a)
	}
	must(t, k.Lost(t.Context(), 2, errors.New("seen by another"))) // it is not there any more
	k.arriveAll()
	k.wantHead(1)
	must(t, k.rig.Store.Publish(t.Context(), o.Digest.Path(), good))
	k.arriveAll()
	k.wantHead(3)
}

func TestKeeperFull(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	for _, full := range []bool{false, true, false} {
		k.full = full
		k.arriveAll()
		if a := k.wantHead(1); a.Full != full {
			t.Errorf("full is %v in the acks, want %v", a.Full, full)
		}
	}
}

// TestKeeperOtherVolume: a volume.json that names another volume than before stops everything, and nothing is forgotten.
func TestKeeperOtherVolume(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	k.arriveAll()
	other := batch.NewVolumeID()
	k.volumeFile(other)
	k.seal(nil)
	for range 2 {
		if _, err := k.Arrive(t.Context()); !errors.Is(err, ErrOtherVolume) {
			t.Fatalf("%v", err)
		}
		s := k.Standing()
		if k.Head() != 1 || !strings.Contains(s.Fault, other.String()) {
			t.Errorf("head %d, fault %q", k.Head(), s.Fault)
		}
		k.restart()
	}
	k.volumeFile(k.rig.ID)
	k.arriveAll()
	k.wantHead(2)
	if k.Standing().Fault != "" {
		t.Errorf("the fault stays: %q", k.Standing().Fault)
	}
}

// TestKeeperFromTheMiddle: a store that is filled from the middle has no head until a base lies inside; lower batches that come
// later begin the chain again.
func TestKeeperFromTheMiddle(t *testing.T) {
	k := newKeeperRig(t)
	k.seal(nil)
	first := filepath.Join(k.rig.Dir, k.batches[0].Path())
	must(t, move(first, filepath.Join(k.state, "first")))
	k.seal(nil)
	k.seal(nil)
	k.arriveAll()
	k.wantHead(0)
	if c := k.Chain(); c.Low != 2 || c.Head != 3 {
		t.Errorf("chain %+v", c)
	}
	must(t, move(filepath.Join(k.state, "first"), first))
	k.arriveAll()
	k.wantHead(3)
	k2 := newKeeperRig(t)
	k2.seal(nil)
	must(t, os.Remove(filepath.Join(k2.rig.Dir, k2.batches[0].Path())))
	k2.seal(nil)
	k2.seal(func(e *batch.Envelope) { e.Base = 3 })
	k2.arriveAll()
	k2.wantHead(3)
}

func TestTreeSize(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o750))
	must(t, os.WriteFile(filepath.Join(dir, "a", "b", "one"), make([]byte, 100), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, ".two"), make([]byte, 20), 0o600))
	must(t, os.Symlink("/", filepath.Join(dir, "a", "root")))
	if n, err := TreeSize(t.Context(), dir); err != nil || n != 120 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := TreeSize(t.Context(), filepath.Join(dir, "none")); err != nil || n != 0 {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := TreeSize(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// move takes a file away, or puts it back.
func move(from, to string) error { return errors.Join(os.Link(from, to), os.Remove(from)) }
