package seal

import (
	"cmp"
	"slices"

	"slipway/internal/batch"
)

// Peers are the replica peers with the keys that are known of them.
func (s *Sealer) Peers() []batch.Peer { return s.peers }

// NamePeer lets the next batch name a peer's key, and makes sure that there is one. false: it was named before.
func (s *Sealer) NamePeer(i int, key string) bool {
	if s.peers[i].Key == key {
		return false
	}
	s.peers = slices.Clone(s.peers) // an envelope on its way has the old list
	s.peers[i].Key = key
	s.renamed = true
	s.Changed()
	return true
}

// NextKeys are the keys that may own the volume after this node: its own and its peers'.
func (s *Sealer) NextKeys() []string {
	keys := []string{s.opt.Key}
	for _, p := range s.peers {
		if p.Key != "" {
			keys = append(keys, p.Key)
		}
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return slices.Compact(keys)
}

// CheckNamed finds out at start whether the newest batch names all that it should: a spooler that ended between recording a key and
// the next batch, or a changed configuration.
func (s *Sealer) CheckNamed() {
	h := s.opt.History
	if h.Meta().Head == 0 || h.First().Fresh {
		return
	}
	b, err := h.ReadBatch(batch.Path(h.Meta().Epoch, h.Meta().Head, h.Meta().Head))
	if err != nil {
		return // whoever needs that batch says so
	}
	for _, key := range s.NextKeys() {
		if !slices.Contains(b.Envelope.NextKeys, key) {
			s.renamed = true
			s.Changed()
		}
	}
}
