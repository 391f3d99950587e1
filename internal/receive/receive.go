// Package receive is the process of a node that keeps what other clusters' shippers send to it: for them it is a backup host. It accepts
// only volumes of owners it was told of, checks every batch when it comes, accounts each volume against its quota, and says in acks how
// far it has come. docs/sites.md shows two sites that back each other up.
//
// After a crash: every batch and shard is where it was. What was checked is remembered below the state directory, which may be behind: then
// a few batches are checked again.
package receive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
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

const (
	listEvery  = 30 * time.Second // the store is listed for what no event told of
	countEvery = 5 * time.Second  // a volume in which something arrives is counted at most this often
)

// Options of a Receiver.
type Options struct {
	Config *config.Receive
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
}

// Receiver keeps the volumes of other clusters.
type Receiver struct {
	cfg   *config.Receive
	now   func() time.Time
	log   *slog.Logger
	root  store.Store
	watch *intake.Watcher

	mu       sync.Mutex         // guards what follows
	volumes  map[string]*volume // accepted ones that have appeared
	stranger map[string]bool    // others, complained about
}

// volume is one that is accepted.
type volume struct {
	r       *Receiver
	name    string
	keep    *intake.Keeper
	arrived chan struct{} // capacity one
	used    atomic.Int64  // bytes, as last counted
	counted time.Time     // by ArriveOnce
}

// New makes a Receiver. Nothing is started.
func New(opt Options) (*Receiver, error) {
	r := &Receiver{cfg: opt.Config, now: opt.Now, log: opt.Log, volumes: map[string]*volume{}, stranger: map[string]bool{}}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.root, err = store.Open(r.cfg.Store, store.Options{}); err != nil {
		return nil, fmt.Errorf("open store %s: %w", r.cfg.Store, err)
	}
	r.watch = intake.NewWatcher(r.cfg.Store, r.log)
	return r, nil
}

// Close ends the use of the store. Run must have returned.
func (r *Receiver) Close() error { return r.root.Close() }

// Run accepts and checks until ctx ends. A second receiver on the same state directory is refused.
func (r *Receiver) Run(ctx context.Context) error {
	if err := durable.MkdirAll(r.cfg.State, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(r.cfg.State, "receive.lock"))
	if err != nil {
		return fmt.Errorf("lock state directory %s, another receiver may run there: %w", r.cfg.State, err)
	}
	defer func() { _ = lock.Close() }() // the process ends anyway
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.watch.Run(ctx, r.wake) })
	g.Go(func() error {
		running := map[string]bool{}
		return loop.Every(ctx, listEvery, r.watch.Root, func() time.Duration {
			for _, v := range r.Discover(ctx) {
				if !running[v.name] {
					running[v.name] = true
					g.Go(func() error {
						return loop.Every(ctx, listEvery, v.arrived, func() time.Duration { return v.ArriveOnce(ctx) })
					})
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

// Discover finds volumes that have appeared in the store, and returns the accepted ones by name.
func (r *Receiver) Discover(ctx context.Context) []*volume {
	infos, err := r.root.List(ctx, "")
	if err != nil && ctx.Err() == nil {
		r.log.Error("list the store", "store", r.cfg.Store, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, info := range infos {
		name := info.Name
		switch {
		case !info.Dir || r.volumes[name] != nil || r.stranger[name]:
		case len(r.cfg.Owners[name]) == 0:
			r.stranger[name] = true
			r.log.Error("a volume is not accepted: no owner's key is configured for it", "volume", name, "fix", "add it to owners:, or take the account away")
		default:
			r.volumes[name] = r.newVolume(name)
		}
	}
	return slices.Collect(maps.Values(r.volumes))
}

func (r *Receiver) newVolume(name string) *volume {
	v := &volume{r: r, name: name, arrived: make(chan struct{}, 1)}
	v.keep = &intake.Keeper{
		Volume: intake.Volume{
			Name: name, Dir: filepath.Join(r.cfg.Store, name), Store: store.Sub(r.root, name), Now: r.now, Owners: r.cfg.Owners[name],
			Pins: intake.Pins(filepath.Join(r.cfg.State, "pins")), // read only: owners: says who counts
		},
		Kind: "received", StoreName: r.cfg.Name, URL: r.cfg.Store, State: filepath.Join(r.cfg.State, "volumes"),
		Full: v.full, Strict: true, Log: r.log,
	}
	return v
}

// wake is called by the watcher with the name of a directory below the store in which something appeared.
func (r *Receiver) wake(name string) {
	r.mu.Lock()
	v := r.volumes[name]
	r.mu.Unlock()
	if v != nil {
		loop.Nudge(v.arrived)
	}
}

func (v *volume) full() bool {
	quota := v.r.cfg.QuotaOf(v.name)
	return quota > 0 && v.used.Load() > quota
}

// ArriveOnce takes what has come as long as the quota allows, and returns how soon to look again.
func (v *volume) ArriveOnce(ctx context.Context) time.Duration {
	if now := v.r.now(); now.Sub(v.counted) >= countEvery {
		v.counted = now
		if n, err := intake.TreeSize(ctx, v.keep.Dir); err == nil {
			v.used.Store(n)
		} else if ctx.Err() == nil {
			v.r.log.Warn("count what was received", "volume", v.name, "error", err)
		}
	}
	again, err := v.keep.Arrive(ctx)
	if err != nil && ctx.Err() == nil {
		v.r.log.Error("check what arrived", "volume", v.name, "error", err)
	}
	c := v.keep.Chain()
	if v.r.watch.Follow(&v.keep.Volume, &c) {
		loop.Nudge(v.arrived) // something may have come before it was watched
	}
	return again
}

// errElsewhere: a receiver holds what it cannot read.
var errElsewhere = errors.New("a receiver knows no file names and decides nothing: ask on the volume's owner")
