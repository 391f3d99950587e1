// Package peer is the process of a replica peer: it takes the batches that owners push into its store, checks them and says so in
// acks, and sends a volume on to the cache from its own copy when the volume's sender does not work. docs/sending.md says how it is
// decided who sends. With an identity it also keeps a directory of each volume equal to the newest complete batch (internal/warm).
//
// After a crash: every batch and shard is where it was. What was checked is remembered below the state directory, which may be
// behind: then a few batches are checked again. Where delivery stands is read at the cache. Only what `copies` backup hosts hold is
// ever removed, and only when the store comes near its cap.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/store"
)

// listEvery is how often the store is listed for what no event told of.
const listEvery = 30 * time.Second

// Options of a Peer.
type Options struct {
	Config *config.Peer
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
}

// Peer holds the volumes of other nodes.
type Peer struct {
	cfg    *config.Peer
	now    func() time.Time
	log    *slog.Logger
	root   store.Store
	cache  store.Store
	others []namedStore
	far    []namedStore // the cache and the others once more, for warm trees: their reading takes no connection from sending
	watch  *intake.Watcher
	used   atomic.Int64 // bytes in the store, as last counted
	public string       // this node's public key; set by Run before anything is started

	mu      sync.Mutex
	volumes map[string]*volume // guarded by mu
}

type namedStore struct {
	name string
	s    store.Store
}

// New makes a Peer. Nothing is started and nobody is contacted.
func New(opt Options) (*Peer, error) {
	p := &Peer{cfg: opt.Config, now: opt.Now, log: opt.Log, volumes: map[string]*volume{}}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if p.root, err = store.Open(p.cfg.Store, store.Options{}); err != nil {
		return nil, fmt.Errorf("open store %s: %w", p.cfg.Store, err)
	}
	if p.cache, err = p.open(p.cfg.Cache); err != nil {
		return nil, err
	}
	for _, r := range p.cfg.Replicas {
		s, err := p.open(r)
		if err != nil {
			return nil, err
		}
		p.others = append(p.others, namedStore{r.Name, s})
	}
	if p.cfg.Warm != "" {
		for _, st := range append([]config.Store{p.cfg.Cache}, p.cfg.Replicas...) {
			s, err := p.open(st)
			if err != nil {
				return nil, err
			}
			p.far = append(p.far, namedStore{st.Name, s})
		}
	}
	p.watch = intake.NewWatcher(p.cfg.Store, p.log)
	return p, nil
}

func (p *Peer) open(st config.Store) (store.Store, error) {
	opt, err := config.StoreOptions(p.cfg.SSH, st)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(st.URL, opt)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", st.Name, err)
	}
	return s, nil
}

// Close frees the connections and the warm trees. Run must have returned.
func (p *Peer) Close() error {
	var faults []error
	for _, v := range p.all() {
		if v.warm != nil {
			faults = append(faults, v.warm.close())
		}
	}
	faults = append(faults, p.root.Close(), p.cache.Close())
	for _, o := range slices.Concat(p.others, p.far) {
		faults = append(faults, o.s.Close())
	}
	return errors.Join(faults...)
}

// Run holds, checks and, when it is this node's turn, sends, until ctx ends. A second peer on the same state directory is refused.
func (p *Peer) Run(ctx context.Context) error {
	if err := durable.MkdirAll(p.cfg.State, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(p.cfg.State, "peer.lock"))
	if err != nil {
		return fmt.Errorf("lock state directory %s, another peer may run there: %w", p.cfg.State, err)
	}
	defer func() { _ = lock.Close() }() // the process ends anyway
	if err := p.ensureKey(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.watch.Run(ctx, p.wake) })
	g.Go(func() error { return p.countLoop(ctx) })
	g.Go(func() error {
		running := map[string]bool{}
		return loop.Every(ctx, listEvery, p.watch.Root, func() time.Duration {
			p.discover(ctx)
			for _, v := range p.all() {
				if !running[v.name] {
					running[v.name] = true
					v.start(ctx, g)
				}
			}
			return 0
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// discover finds volumes that have appeared in the store.
func (p *Peer) discover(ctx context.Context) {
	infos, err := p.root.List(ctx, "")
	if err != nil {
		p.log.Error("list the store", "store", p.cfg.Store, "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, info := range infos {
		if info.Dir && p.volumes[info.Name] == nil {
			p.volumes[info.Name] = p.newVolume(info.Name)
		}
	}
}

// all returns the volumes by name.
func (p *Peer) all() []*volume {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*volume, 0, len(p.volumes))
	for _, v := range p.volumes {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *volume) int { return strings.Compare(a.name, b.name) })
	return list
}

// wake is called by the watcher with the name of a directory below the store in which something appeared.
func (p *Peer) wake(name string) {
	p.mu.Lock()
	v := p.volumes[name]
	p.mu.Unlock()
	if v != nil {
		loop.Nudge(v.arrived)
	}
}

// countLoop counts what the store holds, for the cap.
func (p *Peer) countLoop(ctx context.Context) error {
	return loop.Every(ctx, listEvery, nil, func() time.Duration {
		p.CountOnce(ctx)
		return 0
	})
}

// CountOnce counts the bytes in the store, and drops what is stored elsewhere when they come near the cap.
func (p *Peer) CountOnce(ctx context.Context) {
	n, err := intake.TreeSize(ctx, p.cfg.Store)
	if err != nil {
		if ctx.Err() == nil {
			p.log.Warn("count the store", "error", err)
		}
		return
	}
	p.used.Store(n)
	for _, v := range p.all() {
		loop.Nudge(v.arrived) // full, or not any more
		if p.pressed() {
			v.drop(ctx)
		}
	}
}

// pressure is the share of the cap, in hundredths, from which on what is stored elsewhere is dropped.
const pressure = 80

func (p *Peer) pressed() bool { return p.cfg.Cap > 0 && p.used.Load() >= p.cfg.Cap/100*pressure }

func (p *Peer) full() bool { return p.cfg.Cap > 0 && p.used.Load() >= p.cfg.Cap }
