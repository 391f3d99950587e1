// Package shipper is the process on a cache host: it checks what arrives in the store, holds it until a sending condition is
// met, ships it to the backup hosts, reads it back, acknowledges each step in acks files and evicts what every host has.
// docs/sending.md describes it, with the table of states and what moves one to the next.
//
// After a crash: every batch and shard is where it was, because the shipper only adds to backup hosts, and takes from its own
// store only what all of them hold. What was checked is remembered in <state>/volumes/<volume>.json, which may be behind:
// then a few batches are checked again, and a backup host is asked where it stands before anything is sent to it. Acks are
// written after what they say is durable, so that they may be behind too, and are never ahead. Two shippers on one store send
// some things twice and harm nothing; a second one on the same state directory is refused.
package shipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/store"
)

// Intervals of the loops. Events wake them at once; these are for events that were lost.
const (
	listEvery     = 30 * time.Second // a full listing of the store
	maintainEvery = 30 * time.Second
)

// Options say how a Shipper works.
type Options struct {
	Config    *config.Cache
	Now       func() time.Time                        // nil: time.Now
	OpenStore func(config.Store) (store.Store, error) // nil: by URL, with the configuration's keys, connections and limits
	Log       *slog.Logger                            // nil: slog.Default
}

// Shipper holds and ships the volumes of one cache store.
type Shipper struct {
	cfg   *config.Cache
	now   func() time.Time
	log   *slog.Logger
	root  store.Store
	when  []Condition
	hosts []*host
	usage usage

	watch *intake.Watcher // made by New, fed by Run

	beginMu sync.Mutex
	begun   bool // guarded by beginMu: the volumes are those of Run or ShipOnce, and not what remember read

	orderMu sync.Mutex // one operator's word at a time

	mu      sync.Mutex
	volumes map[string]*volume // guarded by mu
}

// New makes a Shipper. It starts nothing and contacts nobody.
func New(opt Options) (*Shipper, error) {
	cfg := opt.Config
	s := &Shipper{cfg: cfg, now: opt.Now, log: opt.Log, volumes: map[string]*volume{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if _, err := filepath.Abs(cfg.Store); err != nil || !filepath.IsAbs(cfg.Store) {
		return nil, fmt.Errorf("open store %q: the cache's own store is an absolute directory", cfg.Store)
	}
	var err error
	if s.root, err = store.Open(cfg.Store, store.Options{}); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Store, err)
	}
	if s.when, err = compileAll(cfg.Ship); err != nil {
		return nil, err
	}
	open := opt.OpenStore
	if open == nil {
		open = func(st config.Store) (store.Store, error) { return openStore(cfg.SSH, st) }
	}
	for _, st := range cfg.Ship.To {
		h, err := newHost(st, open)
		if err != nil {
			return nil, err
		}
		s.hosts = append(s.hosts, h)
	}
	s.watch = intake.NewWatcher(cfg.Store, s.log)
	return s, nil
}

// compileAll reads ship.when; without it everything goes at once.
func compileAll(ship config.Ship) (list []Condition, err error) {
	when := ship.When
	if len(when) == 0 {
		when = []config.Condition{{Age: new(time.Duration)}}
	}
	for _, item := range when {
		c, err := Compile(item, ship.Cap)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func openStore(ssh config.SSH, st config.Store) (store.Store, error) {
	opt, err := config.StoreOptions(ssh, st)
	if err != nil {
		return nil, err
	}
	opt.Unseen = true // one host that is not what it should be must not keep the others from being served
	return store.Open(st.URL, opt)
}

// Close frees the connections. Run and ShipOnce must have returned.
func (s *Shipper) Close() error {
	var faults []error
	for _, h := range s.hosts {
		faults = append(faults, h.store.Close())
	}
	return errors.Join(append(faults, s.root.Close())...)
}

// lock keeps a second shipper off this state directory until it is closed.
func (s *Shipper) lock() (io.Closer, error) {
	if err := durable.MkdirAll(s.cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	f, err := durable.Lock(filepath.Join(s.cfg.State, "shipper.lock"))
	if err != nil {
		return nil, fmt.Errorf("lock state directory %s, another shipper may run there: %w", s.cfg.State, err)
	}
	return f, nil
}

// begin locks the state directory until the function that it returns is called, and forgets what was read for a look.
func (s *Shipper) begin() (end func(), err error) {
	f, err := s.lock()
	if err != nil {
		return nil, err
	}
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	if !s.begun {
		s.mu.Lock()
		s.begun, s.volumes = true, map[string]*volume{}
		s.mu.Unlock()
	}
	return func() { _ = f.Close() }, nil
}

// Run ships until ctx ends.
func (s *Shipper) Run(ctx context.Context) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.watch.Run(ctx, s.wake) })
	group.Go(func() error { return s.runMaintain(ctx) })
	group.Go(func() error {
		running := map[string]bool{}
		return loop.Every(ctx, listEvery, s.watch.Root, func() time.Duration {
			s.discover(ctx)
			for _, v := range s.all() {
				if !running[v.name] {
					running[v.name] = true
					s.start(ctx, group, v)
				}
			}
			return 0
		})
	})
	return group.Wait()
}

// start runs a volume's loops: one for what arrives, one that compares it with the replicas, two for each backup host.
func (s *Shipper) start(ctx context.Context, group *errgroup.Group, v *volume) {
	group.Go(func() error {
		return loop.Every(ctx, listEvery, v.wake, func() time.Duration {
			again, err := s.arrive(ctx, v)
			if err != nil && ctx.Err() == nil {
				s.log.Error("check what arrived", "volume", v.name, "error", err)
			}
			return again
		})
	})
	group.Go(func() error { return s.runAgree(ctx, v) })
	for _, c := range v.cursors {
		group.Go(func() error { return c.run(ctx) })
		group.Go(func() error { return c.runVerify(ctx) })
	}
}

// ShipOnce is the step: check what arrived, ship what is due (now: everything that arrived), evict what may go. It returns
// once every backup host has what is due, or did not take it.
func (s *Shipper) ShipOnce(ctx context.Context, now bool) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	s.discover(ctx)
	s.count(ctx)
	volumes := s.all()
	faults := make([]error, len(volumes))
	var group errgroup.Group
	for i, v := range volumes {
		group.Go(func() error {
			faults[i] = s.shipVolume(ctx, v, now)
			return nil // one volume's fault is not another's
		})
	}
	_ = group.Wait() // the faults are in the list
	return errors.Join(append(faults, s.maintain(ctx), ctx.Err())...)
}

// shipVolume does for one volume what ShipOnce does for all, for every backup host at once.
func (s *Shipper) shipVolume(ctx context.Context, v *volume, now bool) error {
	_, err := s.arrive(ctx, v)
	if now {
		v.release()
	}
	faults := make([]error, len(v.cursors))
	var group errgroup.Group
	for i, c := range v.cursors {
		group.Go(func() error {
			faults[i] = errors.Join(c.once(ctx), c.verifyOnce(ctx))
			return nil
		})
	}
	_ = group.Wait() // the faults are in the list
	return errors.Join(append(faults, err)...)
}

// all returns the volumes by name.
func (s *Shipper) all() []*volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*volume, 0, len(s.volumes))
	for _, v := range s.volumes {
		list = append(list, v)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// wake is called by the watcher with the name of a directory below the store in which something appeared.
func (s *Shipper) wake(name string) {
	s.mu.Lock()
	v := s.volumes[name]
	s.mu.Unlock()
	if v != nil {
		wakeUp(v.wake)
	}
}

// wakeUp makes sure that whoever waits for c looks once more: a channel of capacity one loses no event and piles none up.
func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
