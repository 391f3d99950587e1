package peer

import (
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

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/intake"
	"slipway/internal/restore"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
)

// warmRig is an owner whose batches appear in a peer's store and on the cache at once, and the peer's configuration.
type warmRig struct {
	t     *testing.T
	v     *volumetest.Volume
	cfg   *config.Peer
	log   strings.Builder
	clock time.Time
	files batch.FileID
}

const own, cache = 0, 1 // in the volume's stores

func newWarmRig(t *testing.T) *warmRig {
	t.Helper()
	r := &warmRig{t: t, v: volumetest.New(t, "bravo", "cache1"), clock: time.Now()}
	data, err := json.Marshal(state.Volume{Format: 1, Name: "projects", ID: r.v.ID})
	must(t, err)
	r.v.Publish(intake.VolumeFile, data)
	r.cfg = &config.Peer{
		Node: "bravo", Name: "bravo", Store: filepath.Dir(r.v.Dirs[own]), State: filepath.Join(t.TempDir(), "state"),
		Cache: config.Store{Name: "cache1", URL: filepath.Dir(r.v.Dirs[cache])}, Step: time.Second, StaleAfter: 5 * time.Second,
		StallAfter: 5 * time.Second, PreferAfter: time.Minute, Warm: t.TempDir(), Identity: filepath.Join(t.TempDir(), "identity"),
	}
	r.identity(r.v.Identity)
	return r
}

func (r *warmRig) identity(id *age.X25519Identity) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.cfg.Identity, []byte(id.String()+"\n"), 0o600))
}

// seal makes a batch with one more file.
func (r *warmRig) seal(change func(*batch.Envelope)) {
	r.t.Helper()
	r.files++
	id := batch.Root + r.files
	mtime := time.Unix(1_800_000_000+int64(id), 0).UnixNano()
	r.v.Seal(&batch.Body{
		Inodes: []batch.Inode{
			{ID: batch.Root, Mode: unix.S_IFDIR | 0o750, Mtime: mtime},
			{ID: id, Mode: unix.S_IFREG | 0o644, Mtime: mtime, Content: r.v.Content(fmt.Sprintf("content of %d", id))},
		},
		Entries: []batch.Entry{{Parent: batch.Root, Name: fmt.Sprintf("file %d", id), ID: id}},
	}, change)
}

// peer makes a peer that knows its volumes; nothing runs.
func (r *warmRig) peer() *Peer {
	r.t.Helper()
	p, err := New(Options{Config: r.cfg, Now: func() time.Time { return r.clock }, Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	must(r.t, err)
	p.discover(r.t.Context())
	return p
}

// step takes what has come into the store and applies it.
func (r *warmRig) step(p *Peer) (again time.Duration) {
	r.t.Helper()
	for _, v := range p.all() {
		v.ArriveOnce(r.t.Context())
		again = v.warm.WarmOnce(r.t.Context())
	}
	return again
}

// wants compares status and directory with a fresh restore of a batch.
func (r *warmRig) wants(p *Peer, seq batch.Seq) {
	r.t.Helper()
	list, err := p.Status(r.t.Context())
	must(r.t, err)
	if len(list) != 1 || list[0].Warm == nil || list[0].Warm.Batch != uint64(seq) || list[0].Warm.Error != "" {
		r.t.Fatalf("status %+v, warm %+v, want batch %d\n%s", list, list[0].Warm, seq, r.log.String())
	}
	r.same(seq)
}

func (r *warmRig) same(seq batch.Seq) {
	r.t.Helper()
	tree, err := restore.Load(r.t.Context(), r.v.Source(), restore.At{Seq: seq})
	must(r.t, err)
	target := r.t.TempDir()
	_, err = tree.Restore(r.t.Context(), restore.Options{Target: target})
	must(r.t, err)
	if d := cmp.Diff(volumetest.Scan(r.t, target), volumetest.Scan(r.t, filepath.Join(r.cfg.Warm, "projects"))); d != "" {
		r.t.Fatalf("restored, warm:\n%s", d)
	}
}

// Each head that arrives is applied, by another process after a restart as well; one that is not complete is not.
func TestWarm(t *testing.T) {
	r := newWarmRig(t)
	p := r.peer()
	if r.step(p) != ownedPause || len(p.all()) != 1 {
		t.Error("something to do before anything has arrived")
	}
	for range 3 {
		r.seal(nil)
		r.step(p)
		r.wants(p, batch.Seq(r.files))
	}
	must(t, p.Close())
	r.seal(nil)
	p = r.peer()
	defer func() { must(t, p.Close()) }()
	r.step(p)
	r.wants(p, 4)
	r.seal(func(e *batch.Envelope) { e.Complete, e.Why, e.LastWhole = false, "gap", 4 })
	if again := r.step(p); again != ownedPause {
		t.Errorf("asks to be called again after %v", again)
	}
	r.wants(p, 4)
	r.seal(nil)
	r.step(p)
	r.wants(p, 6)
	if strings.Contains(r.log.String(), "level=ERROR") {
		t.Error(r.log.String())
	}
}

// An identity that fits nothing is said in the status and once in the log, whatever arrives; batches are taken all the same. One
// that fits is used when it is there; once it fits no more, the directory stays where it was.
func TestWarmForeignIdentity(t *testing.T) {
	r := newWarmRig(t)
	other, err := age.GenerateX25519Identity()
	must(t, err)
	r.identity(other)
	p := r.peer()
	defer func() { must(t, p.Close()) }()
	var pause time.Duration
	for range 8 {
		r.seal(nil)
		again := r.step(p)
		if again < pause || again == 0 || again > listEvery {
			t.Errorf("again after %v, then after %v", pause, again)
		}
		pause = again
		if r.clock = r.clock.Add(again / 2); r.step(p) != again-again/2 {
			t.Error("tried before its time")
		}
		r.clock = r.clock.Add(again)
	}
	list, err := p.Status(t.Context())
	must(t, err)
	if s := list[0]; s.HeadBatch != 8 || s.Warm.Batch != 0 || !strings.Contains(s.Warm.Error, r.cfg.Identity+" does not open") {
		t.Errorf("%+v, %+v", s, s.Warm)
	}
	if n := strings.Count(r.log.String(), "warm tree is not up to date"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log.String())
	}
	r.identity(r.v.Identity)
	r.step(p)
	r.wants(p, 8)
	r.identity(other)
	r.seal(nil)
	r.step(p)
	if s := p.all()[0].warm.status(); s.Batch != 8 || !strings.Contains(s.Error, "does not open") {
		t.Errorf("%+v", s)
	}
	r.same(8)
}

// A shard that this store has dropped is read from the cache. A batch file that is damaged here too, though not at once.
func TestWarmFromElsewhere(t *testing.T) {
	r := newWarmRig(t)
	p := r.peer()
	defer func() { must(t, p.Close()) }()
	r.seal(nil)
	p.all()[0].ArriveOnce(t.Context())
	shards, err := filepath.Glob(filepath.Join(r.v.Dirs[own], "shards", "*", "*"))
	must(t, err)
	for _, f := range shards {
		must(t, os.Remove(f))
	}
	if len(shards) == 0 {
		t.Error("no shard to drop")
	}
	r.step(p)
	r.wants(p, 1)

	r.seal(nil)
	p.all()[0].ArriveOnce(t.Context())
	must(t, os.WriteFile(filepath.Join(r.v.Dirs[own], batch.Path(1, 2, 2)), []byte("damaged"), 0o600))
	again := r.step(p)
	if s := p.all()[0].warm.status(); again != warmPause || s.Batch != 1 || s.Error == "" {
		t.Errorf("again after %v, %+v", again, s)
	}
	r.clock = r.clock.Add(again)
	r.step(p)
	r.wants(p, 2)
}

// What lies in the way, and the absence of the directory of all trees, are said, and nothing is written there.
func TestWarmNotOwn(t *testing.T) {
	r := newWarmRig(t)
	p := r.peer()
	defer func() { must(t, p.Close()) }()
	r.seal(nil)
	must(t, os.Remove(r.cfg.Warm))
	r.clock = r.clock.Add(r.step(p))
	if s := p.all()[0].warm.status(); !strings.Contains(s.Error, r.cfg.Warm) {
		t.Errorf("%+v", s)
	}
	if _, err := os.Lstat(r.cfg.Warm); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", r.cfg.Warm, err)
	}
	precious := filepath.Join(r.cfg.Warm, "projects", "precious")
	must(t, errors.Join(os.MkdirAll(filepath.Dir(precious), 0o755), os.WriteFile(precious, nil, 0o644)))
	r.clock = r.clock.Add(r.step(p))
	if s := p.all()[0].warm.status(); !strings.Contains(s.Error, "precious") {
		t.Errorf("%+v", s)
	}
	must(t, os.Remove(precious))
	r.step(p)
	r.wants(p, 1)
}

// The daemon does all that by itself, as soon as the head moves.
func TestWarmRuns(t *testing.T) {
	r := newWarmRig(t)
	r.seal(nil)
	for range 2 {
		p, err := New(Options{Config: r.cfg})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return p.Run(ctx) })
		r.until(p, batch.Seq(r.files))
		r.seal(nil)
		r.until(p, batch.Seq(r.files))
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		must(t, p.Close())
		r.same(batch.Seq(r.files))
		r.seal(nil)
	}
}

// until looks until the warm tree of a peer that runs is at a batch.
func (r *warmRig) until(p *Peer, seq batch.Seq) {
	r.t.Helper()
	deadline := time.After(listEvery / 2)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := p.Status(r.t.Context())
		must(r.t, err)
		if len(list) == 1 && list[0].Warm.Batch == uint64(seq) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("not at batch %d: %+v", seq, list)
		}
	}
}
