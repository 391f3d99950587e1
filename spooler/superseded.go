package spooler

import (
	"context"
	"fmt"

	"slipway/spooler/seal"
)

// yield ends this node's ownership, if the store that is ahead shows that another node was promoted. Dying before the note is written
// repeats the look; after it nothing is sealed here any more.
func (s *Spooler) yield(ctx context.Context, e *epochEnd) error {
	now, err := s.vol.history.SupersededAt(ctx, s.destination(e.store), e.store)
	if err != nil {
		return fmt.Errorf("look whose epoch is ahead at %s: %w", e.store, err)
	}
	if now == nil {
		return nil
	}
	if err := s.state.WriteSuperseded(*now); err != nil {
		return &seal.Fatal{Err: err}
	}
	return &seal.Fatal{Err: now}
}
