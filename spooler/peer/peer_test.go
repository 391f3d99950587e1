package peer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/promote"
	"slipway/internal/store"
)

// TestHolds: what the owner pushes is checked and acknowledged, and what the cache has already is not sent.
func TestHolds(t *testing.T) {
	r := newRig(t)
	p, stop := r.run()
	if err := p.Do(t.Context(), "pin", "projects/bravo"); err == nil {
		t.Error("pinned in a volume of which nothing is known")
	}
	r.push("bravo", "cache1")
	r.await("batch 1 in the acks", func() bool { return r.status(p).HeadBatch == 1 })
	r.push("bravo", "cache1")
	r.push("bravo", "cache1")
	r.await("batch 3 in the acks", func() bool {
		a, err := ack.Read(t.Context(), r.stores["bravo"], "bravo")
		return err == nil && a.Head == 3 && a.Kind == "replica" && a.HeadDigest == r.batches[2].Digest
	})
	r.await("the cache is known", func() bool { s := r.status(p); return len(s.Stores) == 2 && s.Stores[1].Batch == 3 })
	s := r.status(p)
	if s.Role != "peer" || s.Volume != "projects" || s.Node != "bravo" || s.Epoch != 1 || !s.Complete || s.Sender.Node != "alpha" ||
		s.Sender.Here != "standby" || s.Stores[0].State != "ok" || s.Stores[1].LagBatches != 0 || len(s.Warnings) != 0 {
		t.Errorf("status %+v", s)
	}
	rows, err := p.Batches(t.Context(), "projects", 2, 1)
	if err != nil || len(rows) != 1 || rows[0].Seq != 2 || rows[0].Shards != 2 || rows[0].Files != 2 || rows[0].Stage != "replicated" {
		t.Errorf("batches %+v, %v", rows, err)
	}
	if rows, err = p.Batches(t.Context(), "", 0, 0); err != nil || len(rows) != 3 {
		t.Errorf("all batches: %+v, %v", rows, err)
	}
	if rows, err = p.Batches(t.Context(), "other", 0, 0); err != nil || len(rows) != 0 {
		t.Errorf("another volume's: %+v, %v", rows, err)
	}
	if _, err := p.Explain(t.Context(), "a"); !errors.Is(err, errNoPaths) {
		t.Errorf("explain: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(r.dirs["cache1"], "claims")); err == nil {
		t.Errorf("claims were made: %v", list)
	}
	stop()
	p, _ = r.run() // what was checked is known again
	r.await("batch 3 after a restart", func() bool { return r.status(p).HeadBatch == 3 })
}

func TestSecondPeer(t *testing.T) {
	r := newRig(t)
	_, stop := r.run()
	r.await("the lock", func() bool { _, err := os.Stat(filepath.Join(r.cfg.State, "peer.lock")); return err == nil })
	second, err := New(Options{Config: r.cfg})
	must(t, err)
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another peer") {
		t.Errorf("a second peer on the same state ends with %v", err)
	}
	must(t, second.Close())
	stop()
	r.run()
}

// TestOwner: a peer that was promoted takes nothing of a former owner, and leaves sending to the owner's process on this node; once it
// is the owner no longer, it is a peer as before.
func TestOwner(t *testing.T) {
	r := newRig(t)
	r.push("bravo", "cache1")
	p, err := New(Options{Config: r.cfg})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	must(t, os.MkdirAll(r.cfg.State, 0o700))
	must(t, p.ensureKey())
	p.discover(t.Context())
	v := p.all()[0]
	v.ArriveOnce(t.Context())
	s := v.senderIfKnown()
	if s == nil {
		t.Fatal("the first batch did not arrive")
	}
	r.push("bravo") // what the cache lacks
	v.ArriveOnce(t.Context())
	must(t, os.WriteFile(promote.ConfigPath(r.cfg, "projects"), nil, 0o600))
	r.push("bravo")
	step := func() (sends bool) {
		for range 5 { // its own look at the cache, the claim, the look at that
			r.ill()
			s.LookOnce(t.Context())
			sends, _ = s.Step(t.Context())
		}
		return sends
	}
	if again := v.ArriveOnce(t.Context()); again != ownedPause || v.keep.Head() != 2 {
		t.Errorf("as the owner: head %d, again after %v", v.keep.Head(), again)
	}
	if step() {
		t.Error("the peer sends what this node owns")
	}
	must(t, os.Remove(promote.ConfigPath(r.cfg, "projects")))
	v.ArriveOnce(t.Context())
	if v.keep.Head() != 3 || !step() {
		t.Errorf("a peer again: head %d, and it does not take over", v.keep.Head())
	}
}

// TestDo: an operator's word is a claim on the cache.
func TestDo(t *testing.T) {
	r := newRig(t)
	r.push("bravo", "cache1")
	p, _ := r.run()
	r.await("batch 1", func() bool { return r.status(p).HeadBatch == 1 })
	if err := p.Do(t.Context(), "pin", "other/bravo"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another volume: %v", err)
	}
	for _, arg := range []string{"projects/delta", "projects/", "projects"} {
		if err := p.Do(t.Context(), "pin", arg); err == nil {
			t.Errorf("pinned %s", arg)
		}
	}
	must(t, p.Do(t.Context(), "pin", "projects/charlie"))
	c, _, err := claim.Newest(t.Context(), r.stores["cache1"], r.volume.ID, 1)
	if err != nil || c.Term != 1 || c.Node != "charlie" || c.Prefer != "charlie" || c.By != "bravo" {
		t.Errorf("claim %+v, %v", c, err)
	}
	must(t, p.Do(t.Context(), "release", "projects/"))
	r.await("released", func() bool { s := r.status(p).Sender; return s.Term == 2 && s.Node == "alpha" && s.Prefer == "" })
	if err := p.Do(t.Context(), "promote", "projects/"); err == nil {
		t.Error("an unknown verb is carried out")
	}
}

// TestTakesOver: when the owner says that it cannot deliver, its peer does, from its own copy.
func TestTakesOver(t *testing.T) {
	r := newRig(t)
	p, _ := r.run()
	r.push("bravo")
	r.push("bravo")
	must(t, r.stores["cache1"].Publish(t.Context(), "volume.json", r.files["volume.json"]))
	r.await("both batches", func() bool { return r.status(p).HeadBatch == 2 })
	if r.status(p).Sender.Here == "sending" {
		t.Fatal("it sends, and the owner has not had its time")
	}
	r.ill()
	r.await("the batches on the cache", func() bool { return r.has("cache1", r.batches[0].Path()) && r.has("cache1", r.batches[1].Path()) })
	for name := range r.files {
		if !r.has("cache1", name) {
			t.Errorf("%s is not on the cache", name)
		}
	}
	c, found, err := claim.Newest(t.Context(), r.stores["cache1"], r.volume.ID, 1)
	if err != nil || !found || c.Node != "bravo" || c.Term != 1 || !strings.Contains(c.Reason, "no route to cache1") {
		t.Errorf("claim %+v, %v", c, err)
	}
	r.await("the status", func() bool {
		s := r.status(p)
		return s.Sender.Node == "bravo" && s.Sender.Here == "sending" && s.Stores[1].Batch == 2
	})
	r.push("bravo") // and it goes on
	r.await("batch 3 on the cache", func() bool { return r.has("cache1", r.batches[2].Path()) })
}

// TestMendsRot: a shard that has rotted here is sent from another copy, put in its place, and told.
func TestMendsRot(t *testing.T) {
	r := newRig(t)
	p, _ := r.run()
	b := r.push("bravo", "charlie")
	r.await("batch 1", func() bool { return r.status(p).HeadBatch == 1 })
	o := b.Envelope.Introduces[1]
	r.rot("bravo", o)
	r.ill()
	r.await("the batch on the cache", func() bool { return r.has("cache1", b.Path()) })
	if !r.has("cache1", o.Digest.Path()) || !r.has("bravo", o.Digest.Path()) {
		t.Error("the good copy is not everywhere")
	}
	r.await("the report", func() bool { return r.warned(p, o.Digest.String()) && r.warned(p, "put in its place") })
	if r.status(p).HeadBatch != 1 {
		t.Error("the head went back, though nothing is lost")
	}
}

// TestLosesRot: where no other copy is, the batch does not count here any more, until the owner has sent it again.
func TestLosesRot(t *testing.T) {
	r := newRig(t)
	p, _ := r.run()
	r.push("bravo")
	b := r.push("bravo")
	r.await("both batches", func() bool { return r.status(p).HeadBatch == 2 })
	o := b.Envelope.Introduces[0]
	r.rot("bravo", o)
	r.ill()
	r.await("the head goes back", func() bool { return r.status(p).HeadBatch == 1 })
	r.await("acks that say so", func() bool {
		a, err := ack.Read(t.Context(), r.stores["bravo"], "bravo")
		return err == nil && a.Head == 1 && len(a.Refused) == 1 && a.Refused[0].Name == o.Digest.Path() && r.warned(p, "objects were refused")
	})
	r.await("batch 1 on the cache", func() bool { return r.has("cache1", r.batches[0].Path()) })
	if r.has("cache1", b.Path()) {
		t.Error("a batch without its shard is on the cache")
	}
	r.deliver("bravo")
	r.await("batch 2 counts again", func() bool { return r.status(p).HeadBatch == 2 })
	r.await("batch 2 on the cache", func() bool { return r.has("cache1", b.Path()) && r.has("cache1", o.Digest.Path()) })
}

// TestDrops: under pressure, and only what `copies` backup hosts have by the acks on the cache.
func TestDrops(t *testing.T) {
	r := newRig(t)
	for range 4 {
		r.push("bravo", "cache1")
	}
	p, stop := r.run()
	r.await("the batches", func() bool { return r.status(p).HeadBatch == 4 })
	say := func(name, kind string, head batch.Seq, copies int) {
		a := ack.Acks{VolumeID: r.volume.ID, Store: name, Kind: kind, Copies: copies, At: time.Now()}
		a.Advance(1, head, batch.Digest{}, time.Now())
		must(t, ack.Write(t.Context(), r.stores["cache1"], a))
	}
	say("cache1", "cache", 4, 2)
	say("vault1", "backup", 3, 0)
	say("vault2", "backup", 2, 0)
	say("vault3", "backup", 1, 0)
	other := ack.Acks{VolumeID: batch.NewVolumeID(), Store: "vault4", Kind: "backup", At: time.Now()}
	other.Advance(1, 4, batch.Digest{}, time.Now())
	must(t, ack.Write(t.Context(), r.stores["cache1"], other)) // another volume's word
	stage := func(seq batch.Seq) string {
		rows, err := p.Batches(t.Context(), "projects", uint64(seq), 1)
		must(t, err)
		return rows[0].Stage
	}
	r.await("the backup hosts' acks", func() bool { return stage(2) == "stored" && stage(3) == "cached" })
	r.await("how far the hosts are behind", func() bool {
		for _, s := range r.status(p).Stores[1:] {
			want := map[string]int64{"cache1": 0, "vault1": 1, "vault2": 2, "vault3": 3}[s.Name]
			if s.LagBatches != want || s.LagSeconds > 600 || (s.LagSeconds > 0) != (want > 0) {
				return false
			}
		}
		return true
	})
	whole := func(seq batch.Seq) bool {
		e := &r.batches[seq-1].Envelope
		return r.has("bravo", e.Introduces[0].Digest.Path()) && r.has("bravo", e.Introduces[1].Digest.Path())
	}
	p.CountOnce(t.Context())
	if !whole(1) || !whole(2) {
		t.Fatal("dropped without need")
	}
	stop()
	r.cfg.Cap = 10_000 // twelve thousand bytes of shards are there
	p, _ = r.run()
	r.await("the acks again", func() bool { return r.status(p).HeadBatch == 4 && stage(2) == "stored" })
	r.await("full", func() bool {
		p.CountOnce(t.Context())
		a, err := ack.Read(t.Context(), r.stores["bravo"], "bravo")
		return err == nil && !whole(1) && !whole(2) && a.Head == 4
	})
	if !whole(3) || !whole(4) || !r.has("bravo", r.batches[0].Path()) {
		t.Error("dropped what two backup hosts do not have, or a batch file")
	}
}

// TestFull: at the cap it is told, to owners and to people.
func TestFull(t *testing.T) {
	r := newRig(t)
	r.cfg.Cap = 3000
	r.push("bravo", "cache1")
	p, _ := r.run()
	r.await("full", func() bool {
		a, err := ack.Read(t.Context(), r.stores["bravo"], "bravo")
		return err == nil && a.Full && a.Head == 1
	})
	if !r.warned(p, "cap") || r.status(p).Stores[0].State != "full" {
		t.Errorf("status %+v", r.status(p))
	}
}

// TestOtherVolume: a directory that holds another volume under the name is told, and nothing of it is sent.
func TestOtherVolume(t *testing.T) {
	r := newRig(t)
	r.push("bravo", "cache1")
	p, _ := r.run()
	r.await("batch 1", func() bool { return r.status(p).HeadBatch == 1 })
	other := newRig(t)
	must(t, os.WriteFile(filepath.Join(r.dirs["bravo"], "volume.json"), other.files["volume.json"], 0o640))
	r.push()
	last := r.batches[1]
	for _, o := range last.Envelope.Introduces {
		must(t, r.stores["bravo"].Publish(t.Context(), o.Digest.Path(), r.files[o.Digest.Path()]))
	}
	must(t, r.stores["bravo"].Publish(t.Context(), last.Path(), r.files[last.Path()]))
	r.await("the fault", func() bool { return r.warned(p, other.volume.ID.String()) })
	if s := r.status(p); s.HeadBatch != 1 || s.Stores[0].State != "refused" {
		t.Errorf("status %+v", s)
	}
	must(t, os.WriteFile(filepath.Join(r.dirs["bravo"], "volume.json"), r.files["volume.json"], 0o640))
	p.wake("projects")
	r.await("batch 2, when it is put right", func() bool { s := r.status(p); return s.HeadBatch == 2 && s.Stores[0].State == "ok" })
}

// TestForeignCache: a cache that holds another volume under the name gets nothing.
func TestForeignCache(t *testing.T) {
	r := newRig(t)
	other := newRig(t)
	must(t, r.stores["cache1"].Publish(t.Context(), "volume.json", other.files["volume.json"]))
	p, _ := r.run()
	b := r.push("bravo")
	r.await("batch 1", func() bool { return r.status(p).HeadBatch == 1 })
	r.ill()
	r.await("the refusal", func() bool { return strings.Contains(r.status(p).Sender.Trouble, "another volume") })
	if _, err := r.stores["cache1"].Stat(t.Context(), b.Path()); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("the batch is there: %v", err)
	}
	if r.status(p).Stores[1].State == "ok" {
		t.Errorf("status %+v", r.status(p).Stores[1])
	}
}
