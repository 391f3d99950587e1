package spooler

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// namePeers lists the replica peers with the keys that the configuration or the record of the first contact gives.
func (s *Spooler) namePeers(v *volume) error {
	for _, r := range s.opt.Config.Replicas {
		key, err := "", error(nil)
		if r.Key != "" {
			key, err = keys.ParsePublic([]byte(r.Key)) // an envelope names keys without their comments
		} else {
			key, err = s.knownPeers().Get(r.Name)
		}
		if err != nil {
			return err
		}
		v.peers = append(v.peers, batch.Peer{Name: r.Name, Key: key})
	}
	return nil
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
	return s.vol.peers[i].Key
}

// nameKey lets the next batch name a peer's key, and makes sure that there is one.
func (s *Spooler) nameKey(i int, line string) {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.peers[i].Key == line {
		return
	}
	v.peers = slices.Clone(v.peers) // an envelope on its way has the old list
	v.peers[i].Key = line
	v.renamed = true
	v.changed()
	v.log.Warn("replica peer's key recorded at first contact: compare it with node.key.pub there, or write it as key: in the configuration",
		"replica", v.peers[i].Name, "key", line)
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

// lookNamed finds out at start whether the newest batch names all that it should: a spooler that ended between recording a key and
// the next batch, or a changed configuration.
func (v *volume) lookNamed() {
	if v.meta.Head == 0 || v.fresh {
		return
	}
	b, err := v.readOwnBatch(batch.Path(v.meta.Epoch, v.meta.Head, v.meta.Head))
	if err != nil {
		return // whoever needs that batch says so
	}
	for _, key := range nextKeys(v) {
		if !slices.Contains(b.Envelope.NextKeys, key) {
			v.renamed = true
			v.changed()
		}
	}
}
