package spooler

import (
	"slices"

	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// prepareRest completes the first batch of an epoch that continues another owner's tree: to what has changed it adds every entry and
// every file of the catalog that the batch leaves as they are, so that the body holds the whole tree.
func (v *volume) prepareRest(s *sealing) error {
	has := make(map[batch.FileID]struct{}, len(s.body.Inodes))
	for i := range s.body.Inodes {
		has[s.body.Inodes[i].ID] = struct{}{}
	}
	emitted := make(map[entryKey]struct{}, len(s.entries))
	for _, e := range s.entries {
		emitted[entryKey{e.Parent, e.Name}] = struct{}{}
	}
	needed := map[batch.FileID]struct{}{batch.Root: {}}
	entries := slices.Clone(s.entries)
	var dirs []batch.FileID
	tx := v.tree.tx
	err := tx.Inodes(func(in *catalog.Inode) error {
		if in.Mode&modeType == modeDir {
			dirs = append(dirs, in.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		err := tx.Entries(dir, func(name string, id batch.FileID) error {
			if _, changed := emitted[entryKey{dir, name}]; !changed {
				entries = append(entries, batch.Entry{Parent: dir, Name: name, ID: id})
				needed[id] = struct{}{}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, e := range s.entries {
		needed[e.ID] = struct{}{}
	}
	s.body.Entries = entries
	return tx.Inodes(func(in *catalog.Inode) error {
		if _, there := has[in.ID]; there {
			return nil
		}
		if _, wanted := needed[in.ID]; wanted {
			s.body.Inodes = append(s.body.Inodes, in.Inode)
		}
		return nil
	})
}
