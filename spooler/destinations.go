package spooler

import (
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/store"
	"slipway/spooler/evict"
	"slipway/spooler/push"
	"slipway/spooler/sender"
)

// openPushers makes one pusher for the cache and one for each replica peer. A destination that lags behind what this node has
// evicted is served from the others.
func (s *Spooler) openPushers() error {
	cfg := s.opt.Config
	kinds := make([]string, 0, len(cfg.Replicas)+1)
	list := append([]config.Store(nil), cfg.Replicas...)
	for range cfg.Replicas {
		kinds = append(kinds, "replica")
	}
	list, kinds = append(list, cfg.Cache), append(kinds, "cache")
	for _, st := range list {
		root, err := s.openStore(st)
		if err != nil {
			return err
		}
		s.stores = append(s.stores, root)
	}
	for i, st := range list {
		kind := kinds[i]
		others := append([]store.Store(nil), s.stores[:i]...)
		others = append(append(others, s.stores[i+1:]...), s.backups...)
		s.pushers = append(s.pushers, push.New(push.Target{
			Name: st.Name, Kind: kind, URL: st.URL, Dest: s.stores[i], Elsewhere: others,
			Volume: s.vol.identity, Own: s.vol.own, Log: push.CatalogLog(s.vol.history.Catalog()), Logger: s.log,
			OnAcks:      func(_ string, list []ack.Acks) { s.stages.Acked(list); s.fsyncs.News() },
			OnDelivered: func(name string, head batch.Seq) { s.stages.Delivered(kind, name, head); s.fsyncs.News() },
			OnTrouble:   s.troubled,
			Hurry:       s.fsyncs.Any,
			OnRotten:    s.rotten,
			RetryMax:    s.retryMax(),
		}))
	}
	everywhere := append(append([]store.Store(nil), s.stores...), s.backups...)
	s.vol.evictor.ConfirmTwice = evict.HeldBy(everywhere, 2)
	return nil
}

// openStore opens the volume's part of a configured store.
func (s *Spooler) openStore(st config.Store) (store.Store, error) {
	opt, err := config.StoreOptions(s.opt.Config.SSH, st)
	if err != nil {
		return nil, err
	}
	root, err := store.Open(st.URL, opt)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", st.Name, err)
	}
	s.closers = append(s.closers, root)
	return store.Sub(root, s.opt.Config.Volume), nil
}

// trouble adds the last error of the destinations of a kind.
func (s *Spooler) trouble(kind string) string {
	for _, p := range s.pushers {
		if r := p.Report(); r.Kind == kind && r.Error != "" {
			return ": " + r.Error
		}
	}
	return ""
}

// retryWithPeers bounds the pause after a fault where a peer would take over meanwhile.
const retryWithPeers = 2 * time.Second

func (s *Spooler) retryMax() time.Duration {
	if len(s.opt.Config.Replicas) == 0 {
		return 0
	}
	return retryWithPeers
}

// openSender makes what decides when this node sends to the cache.
func (s *Spooler) openSender() {
	cfg, log := s.opt.Config, push.CatalogLog(s.vol.history.Catalog())
	present := sender.Present{Owner: cfg.Node}
	var others []sender.Place
	for i, r := range cfg.Replicas {
		present.Peers = append(present.Peers, r.Name)
		others = append(others, sender.Place{Name: r.Name, Store: s.stores[i]})
	}
	last := len(s.pushers) - 1
	s.sender = sender.New(sender.Options{
		Node: cfg.Node, VolumeID: s.vol.id, Volume: cfg.Volume,
		Present: func() sender.Present {
			now := present
			if b, err := log.Bounds(); err == nil { // a catalog that cannot be read ends the spooler elsewhere
				now.Epoch, now.Held = b.Epoch, b.Head
			}
			return now
		},
		Own: s.vol.own, Cache: sender.Place{Name: cfg.Cache.Name, Store: s.stores[last]}, Others: others, Pusher: s.pushers[last],
		StaleAfter: cfg.StaleAfter, StallAfter: cfg.StallAfter, Step: cfg.Step, PreferAfter: cfg.PreferAfter,
		OnThere: s.pushers[last].Seen, Now: s.opt.Now, Log: s.log,
	})
}

// rotten notes a shard of the own store that was damaged, for status.
func (s *Spooler) rotten(r push.Rotten) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if len(s.rots) < maxRots {
		s.rots = append(s.rots, r)
	}
}

// maxRots bounds how many damaged shards are remembered.
const maxRots = 100

// rottenAlarms name the damaged shards of this node's own store.
func (s *Spooler) rottenAlarms() (list []control.Alarm) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	for _, r := range s.rots {
		what := "the good copy was put in its place"
		if !r.Mended {
			what = "it could not be replaced"
		}
		list = append(list, control.Alarm{Event: control.VerificationFailed, Level: control.LevelError, Store: s.vol.node, Message: fmt.Sprintf(
			"shard %s in the own store of %s was damaged; it was sent from another copy, and %s: look after the disk", r.Shard.Digest, s.vol.node, what)})
	}
	return list
}
