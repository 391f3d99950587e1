package spooler

import (
	"fmt"
	"io/fs"

	"slipway/internal/control"
	"slipway/internal/leftout"
)

// admit refuses what a barrier cannot be about: paths that are left out, and paths that are not there and were not lately.
func (s *Spooler) admit(b control.Barrier, mark moment) error {
	v := s.vol
	return v.tree.Within(func() error {
		if err := v.catchUp(); err != nil {
			return err
		}
		for _, path := range b.Paths {
			left, there := s.left.At(path)
			if left.State == leftout.Excluded {
				return fmt.Errorf("%q is %s: it is never sealed", path, left.Why)
			}
			if there || v.mirror.Folded().Before(mark.pos) {
				continue
			}
			if known, err := v.tree.Knew(path, v.mirror.IsUnchecked); err != nil {
				return err
			} else if !known {
				return fmt.Errorf("%q is not in the volume, and was not lately: %w", path, fs.ErrNotExist)
			}
		}
		return nil
	})
}
