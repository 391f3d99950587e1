package pending

import (
	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// Load takes over a row of the catalog at start.
func (s *Set) Load(id batch.FileID, row catalog.Pending) {
	s.saved[id] = row.Position
	s.Mark(id, row.Reason, row.Bytes, row.Position).since = row.Since
}

// Save writes into the catalog which files are pending once a batch with the captures of some is committed. Those that the catalog does
// not know are left out: their directory is compared after a restart.
func (s *Set) Save(tx *catalog.Tx, captures []*File) error {
	sealed := map[batch.FileID]bool{}
	for _, p := range captures {
		sealed[p.id] = s.settles(p)
	}
	for id, p := range s.files {
		if sealed[id] || p.reason == New && !inCatalog(tx, id) {
			continue
		}
		if pos, ok := s.saved[id]; ok && pos == p.pos {
			continue
		}
		s.saved[id] = p.pos
		if err := tx.PutPending(id, catalog.Pending{Since: p.since, Position: p.pos, Reason: p.reason, Writers: s.writers[id], Bytes: p.bytes}); err != nil {
			return err
		}
	}
	for id := range s.saved {
		if s.files[id] == nil || sealed[id] {
			delete(s.saved, id)
			if err := tx.DeletePending(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func inCatalog(tx *catalog.Tx, id batch.FileID) bool {
	_, ok, err := tx.Inode(id)
	return err == nil && ok
}
