package spooler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/nodekey"
	"slipway/internal/store"
)

// How often the replica peers whose key the configuration does not give are asked for it.
const (
	keyMissing = 2 * time.Second
	keyKnown   = 10 * time.Minute
)

// knownPeers are the keys recorded at first contact.
func (s *Spooler) knownPeers() nodekey.Known { return nodekey.Known(s.state.Peers()) }

// namedPeers lists the replica peers with the keys that the configuration or the record of the first contact gives.
func (s *Spooler) namedPeers() (peers []batch.Peer, err error) {
	for _, r := range s.opt.Config.Replicas {
		var key string
		if r.Key != "" {
			key, err = keys.ParsePublic([]byte(r.Key)) // an envelope names keys without their comments
		} else {
			key, err = s.knownPeers().Get(r.Name)
		}
		if err != nil {
			return nil, err
		}
		peers = append(peers, batch.Peer{Name: r.Name, Key: key})
	}
	return peers, nil
}

// keyLoop asks for the peers' keys.
func (s *Spooler) keyLoop(ctx context.Context) error {
	for {
		timer := time.NewTimer(s.MeetPeersOnce(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// MeetPeersOnce asks each replica peer whose key the configuration does not give, and returns how soon to ask again. A key met for
// the first time is recorded, and then named in the next envelope. Another key than the recorded one is a warning.
func (s *Spooler) MeetPeersOnce(ctx context.Context) time.Duration {
	again := keyKnown
	for i, r := range s.opt.Config.Replicas {
		if r.Key != "" {
			continue
		}
		line, err := nodekey.Read(ctx, s.stores[i], r.Name)
		if err == nil {
			err = s.knownPeers().Meet(r.Name, line)
		}
		s.noteKey(r.Name, err)
		switch {
		case err == nil:
			s.nameKey(i, line)
		case s.peerKey(i) == "":
			again = keyMissing
		}
	}
	return again
}

func (s *Spooler) peerKey(i int) string {
	s.vol.mu.Lock()
	defer s.vol.mu.Unlock()
	return s.vol.sealer.Peers()[i].Key
}

// nameKey lets the next batch name a peer's key, and makes sure that there is one.
func (s *Spooler) nameKey(i int, line string) {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.sealer.NamePeer(i, line) {
		return
	}
	v.log.Warn("replica peer's key recorded at first contact: compare it with node.key.pub there, or write it as key: in the configuration",
		"replica", v.sealer.Peers()[i].Name, "key", line)
	s.nudge()
}

// noteKey remembers what status warns of.
func (s *Spooler) noteKey(name string, err error) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if !errors.Is(err, nodekey.ErrOther) {
		if err == nil {
			delete(s.strangeKeys, name)
		}
		if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrTemporary) && !errors.Is(err, context.Canceled) {
			s.log.Warn("replica peer's key cannot be had", "replica", name, "error", err)
		}
		return
	}
	if s.strangeKeys == nil {
		s.strangeKeys = map[string]string{}
	}
	if s.strangeKeys[name] == "" {
		s.log.Error("replica peer shows another key than at first contact: it is not taken", "replica", name, "error", err)
	}
	s.strangeKeys[name] = err.Error()
}

// keyWarnings name the peers that show another key than they did at first contact.
func (s *Spooler) keyWarnings() (w []string) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	for _, r := range s.opt.Config.Replicas {
		if s.strangeKeys[r.Name] != "" {
			w = append(w, fmt.Sprintf("replica %s shows another key than at first contact, and it is not taken: %s; if the node was made anew, remove %s",
				r.Name, s.strangeKeys[r.Name], s.state.Peers()+"/"+r.Name+".pub"))
		}
	}
	return w
}
