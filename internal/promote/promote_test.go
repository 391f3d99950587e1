package promote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/claim"
	"slipway/internal/config"
	"slipway/internal/keys"
	"slipway/internal/progress"
	"slipway/internal/restore/volumetest"
	"slipway/internal/state"
	"slipway/internal/store"
)

// cluster is a cache and peers that hold a volume of an owner who is gone.
type cluster struct {
	t     *testing.T
	v     *volumetest.Volume
	ident string
	next  []string // the peers' keys
	peers []*config.Peer
}

// newCluster makes a volume whose every store is named by place: the cache first, then the peers bravo and charlie. Its last batch
// names the peers' keys if named.
func newCluster(t *testing.T, named bool) *cluster {
	t.Helper()
	c := &cluster{t: t, v: volumetest.New(t, "cache1", "bravo", "charlie")}
	var next []string
	for i, node := range []string{"bravo", "charlie"} {
		st := filepath.Join(t.TempDir(), "state")
		must(t, os.Mkdir(st, 0o700))
		p := &config.Peer{
			Node: node, Name: node, Store: filepath.Dir(c.v.Dirs[i+1]), State: st, StaleAfter: 50 * time.Millisecond,
			Cache: config.Store{Name: "cache1", URL: filepath.Dir(c.v.Dirs[0])},
		}
		other := 2 - i
		p.Replicas = []config.Store{{Name: []string{"", "bravo", "charlie"}[other], URL: filepath.Dir(c.v.Dirs[other])}}
		signer, err := keys.EnsureNodeKey(state.Dir(st).NodeKey(), node)
		must(t, err)
		next = append(next, keys.PublicLine(signer))
		c.peers = append(c.peers, p)
	}
	if !named {
		next = nil
	}
	now := time.Now().UnixNano()
	c.v.Seal(&batch.Body{
		Inodes: []batch.Inode{
			{ID: batch.Root, Mode: 0o040755, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: now},
			{ID: 2, Mode: 0o100644, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: now, Content: c.v.Content("of alpha")},
		},
		Entries: []batch.Entry{{Parent: batch.Root, Name: "file", ID: 2}},
	}, func(e *batch.Envelope) { e.NextKeys = next })
	c.next = next
	c.ident = filepath.Join(t.TempDir(), "identity")
	text := c.v.Identity.String() + "\n# owner alpha " + c.v.Owner.Key + "\n"
	must(t, os.WriteFile(c.ident, []byte(text), 0o600))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// later is a clock by which the newest batch is old.
func later() time.Time { return time.Now().Add(time.Hour) }

func (c *cluster) options(i int) Options {
	return Options{Config: c.peers[i], Volume: "projects", Source: filepath.Join(c.t.TempDir(), "src"), Identity: c.ident, Now: later}
}

func TestPromote(t *testing.T) {
	c := newCluster(t, true)
	o := c.options(0)
	r, err := Run(t.Context(), o)
	if err != nil || r.From != "alpha" || r.To != "bravo" || r.Epoch != 2 || r.After != 1 || r.Files != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	cfg, err := config.Load(r.Config)
	if err != nil || cfg.Primary == nil || cfg.Primary.Node != "bravo" || cfg.Primary.Replicas[0].Name != "charlie" ||
		cfg.Primary.Recipients[0] != c.v.Identity.Recipient().String() {
		t.Fatalf("%+v %v", cfg, err)
	}
	if data, err := os.ReadFile(filepath.Join(o.Source, "file")); err != nil || string(data) != "of alpha" {
		t.Errorf("%q %v", data, err)
	}
	secret, err := keys.LoadSecret(state.Dir(cfg.Primary.State).Secret())
	if err != nil || secret != c.v.Secret {
		t.Errorf("secret: %v", err)
	}
	there, err := claim.Read(t.Context(), c.v.Stores[0].Store, 2, 0)
	if err != nil || there.Node != "bravo" {
		t.Errorf("%+v %v", there, err)
	}
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrOwner) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := Run(t.Context(), c.options(1)); !errors.Is(err, claim.ErrTaken) || !strings.Contains(err.Error(), "bravo") {
		t.Errorf("the other peer: %v", err)
	}
}

// TestTwoAtOnce: of two peers that are promoted at the same time exactly one is.
func TestTwoAtOnce(t *testing.T) {
	c := newCluster(t, true)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		o := c.options(i)
		wg.Go(func() { _, errs[i] = Run(context.Background(), o) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, claim.ErrTaken) {
			t.Errorf("the loser: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d won: %v", won, errs)
	}
}

// TestGoesOn: a promotion that was cut off behind its claim is finished by the same call, as its own.
func TestGoesOn(t *testing.T) {
	c := newCluster(t, true)
	o := c.options(0)
	home := Home(o.Config, "projects", 2)
	must(t, os.MkdirAll(string(home), 0o700))
	must(t, os.WriteFile(home.Spool(), nil, 0o600)) // no own store can be made there
	if _, err := Run(t.Context(), o); err == nil {
		t.Fatal("promoted without an own store")
	}
	must(t, os.Remove(home.Spool()))
	if _, err := os.Stat(ConfigPath(o.Config, "projects")); !os.IsNotExist(err) {
		t.Fatalf("a configuration without files: %v", err)
	}
	if _, err := Run(t.Context(), c.options(1)); !errors.Is(err, claim.ErrTaken) {
		t.Errorf("another peer meanwhile: %v", err)
	}
	if r, err := Run(t.Context(), o); err != nil || r.Epoch != 2 {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestRefuses(t *testing.T) {
	t.Run("not named", func(t *testing.T) {
		if _, err := Run(t.Context(), newCluster(t, false).options(0)); !errors.Is(err, ErrNotNamed) {
			t.Error(err)
		}
	})
	t.Run("new batch", func(t *testing.T) {
		c := newCluster(t, true)
		o := c.options(0)
		o.Now = time.Now
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrAlive) {
			t.Error(err)
		}
		o.Force = true
		must(t, progress.Write(t.Context(), c.v.Stores[0].Store, progress.Progress{
			VolumeID: c.v.ID, Volume: "projects", Node: "alpha", Run: "r1", Number: 1, Epoch: 1, Head: 4, State: progress.Sending,
		}))
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatalf("forced: %v", err)
		}
		if !strings.Contains(strings.Join(r.Warnings, "\n"), "alpha has sealed batches 2 to 4") {
			t.Errorf("what is lost is not said: %q", r.Warnings)
		}
	})
	t.Run("directory", func(t *testing.T) {
		o := newCluster(t, true).options(0)
		must(t, os.MkdirAll(filepath.Join(o.Source, "something"), 0o755))
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrSource) {
			t.Error(err)
		}
	})
	t.Run("silent store", func(t *testing.T) {
		c := newCluster(t, true)
		o := c.options(0)
		c.peers[0].Replicas[0].URL = "sftp://slipway@127.0.0.1:1/data"
		c.peers[0].SSH.Key = filepath.Join(t.TempDir(), "key")
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "charlie") {
			t.Errorf("not forced: %v", err)
		}
		if e, err := claim.Highest(t.Context(), c.v.Stores[0].Store); err != nil || e != 0 {
			t.Errorf("epoch %d was claimed all the same: %v", e, err)
		}
		o.Force = true
		r, err := Run(t.Context(), o)
		if err != nil || !strings.Contains(strings.Join(r.Warnings, "\n"), "not asked: charlie") {
			t.Errorf("%+v %v", r, err)
		}
	})
}

// TestAliveAtOnce: a sign in the own store is of this node's time, so nothing has to be waited for, whichever way it turns out.
func TestAliveAtOnce(t *testing.T) {
	c := newCluster(t, true)
	o := c.options(0)
	own, err := store.Open(c.peers[0].Store, store.Options{})
	must(t, err)
	told := progress.Progress{VolumeID: c.v.ID, Volume: "projects", Node: "alpha", Run: "r1", Number: 1, Epoch: 1, Head: 1, State: progress.Idle}
	began := time.Now()
	for _, s := range append([]store.Store{store.Sub(own, "projects")}, c.v.Stores[0].Store) {
		must(t, progress.Write(t.Context(), s, told))
	}
	ahead := time.Duration(0)
	o.Now = func() time.Time { return time.Now().Add(ahead) }
	must(t, os.Chtimes(filepath.Join(c.peers[0].Store, "projects", batch.Path(1, 1, 1)), began.Add(-time.Hour), began.Add(-time.Hour)))
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrAlive) || !strings.Contains(err.Error(), "progress/alpha.json") {
		t.Error("told just now:", err)
	}
	ahead = silence
	if _, err := Run(t.Context(), o); err != nil {
		t.Error("silent for long enough:", err)
	}
	if took := time.Since(began); took > silence {
		t.Errorf("it took %v", took)
	}
}

// TestAliveByProgress: progress that moves while it is looked at is an owner that lives.
func TestAliveByProgress(t *testing.T) {
	c := newCluster(t, true)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	first := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint64(1); ctx.Err() == nil; n++ {
			if n == 2 {
				close(first)
			}
			p := progress.Progress{VolumeID: c.v.ID, Volume: "projects", Node: "alpha", Run: "r1", Number: n, Epoch: 1, Head: 1, State: progress.Sending}
			if err := progress.Write(ctx, c.v.Stores[0].Store, p); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	<-first
	if _, err := Run(t.Context(), c.options(0)); !errors.Is(err, ErrAlive) {
		t.Error(err)
	}
}

// TestGoesOnWithNewerHead: a promotion was cut off after it had brought the files back, and the owner has delivered once more since.
// What lies there of the older batch is replaced, not sealed anew; and a call that names a directory with other files is refused.
func TestGoesOnWithNewerHead(t *testing.T) {
	c := newCluster(t, true)
	o := c.options(0)
	must(t, os.Mkdir(o.Source+"-other", 0o755))
	cfg := ConfigPath(o.Config, "projects")
	_, err := Run(t.Context(), o)
	must(t, err)
	must(t, os.Remove(cfg)) // as if cut off before its last step
	next := time.Now().UnixNano()
	c.v.Seal(&batch.Body{
		Inodes: []batch.Inode{
			{ID: 2, Mode: 0o100644, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: next, Content: c.v.Content("newer, of alpha")},
		},
	}, func(e *batch.Envelope) { e.NextKeys = c.next })
	other := o
	other.Source += "-other"
	must(t, os.WriteFile(filepath.Join(other.Source, "mine"), nil, 0o600))
	if _, err := Run(t.Context(), other); !errors.Is(err, ErrSource) {
		t.Errorf("into a directory with other files: %v", err)
	}
	r, err := Run(t.Context(), o)
	if err != nil || r.After != 2 || len(r.Differ) > 0 {
		t.Fatalf("%+v %v", r, err)
	}
	if data, err := os.ReadFile(filepath.Join(o.Source, "file")); err != nil || string(data) != "newer, of alpha" {
		t.Errorf("%q %v", data, err)
	}
	// A name that is not in the head any more.
	must(t, os.Remove(cfg))
	c.v.Seal(&batch.Body{Entries: []batch.Entry{{Parent: batch.Root, Name: "file"}}}, func(e *batch.Envelope) { e.NextKeys = c.next })
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrSource) {
		t.Errorf("with a file that was removed: %v", err)
	}
	must(t, os.Remove(filepath.Join(o.Source, "file")))
	if r, err = Run(t.Context(), o); err != nil || r.After != 3 {
		t.Errorf("%+v %v", r, err)
	}
}
