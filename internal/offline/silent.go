package offline

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"slipway/internal/batchlist"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/store"
)

// silent answers for a spooler that is there and says nothing, stopped perhaps: it holds the catalog, so only its own store and the
// last status.json can be read.
type silent struct {
	*Volume // without a catalog
	store   string
}

// silentOf returns what can be told of a primary whose daemon is silent.
func silentOf(p *config.Primary) *silent {
	s := &silent{&Volume{cfg: p}, p.Spool.Dir}
	if list, err := control.LastStatus(p.State); err == nil && len(list) > 0 {
		s.last = list[0] // without it every stage is the lowest
	}
	return s
}

// Status returns the last status.json.
func (s *silent) Status(context.Context) ([]control.Status, error) {
	last := s.last
	last.Volume, last.Stale, last.Daemon = s.cfg.Volume, true, control.NotAnswering
	return []control.Status{last}, nil
}

// Batches lists the batch files of the own store, with the stages as last known.
func (s *silent) Batches(ctx context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	if volume != s.cfg.Volume && volume != "" {
		return []control.BatchRow{}, nil
	}
	root, err := store.Open(s.store, store.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	rows := []control.BatchRow{}
	list, err := listed(ctx, store.Sub(root, s.cfg.Volume), batchlist.Path(s.cfg.State, s.cfg.Volume), filepath.Join(s.store, s.cfg.Volume), from, limit)
	for _, b := range list {
		r := batchRow(s.cfg.Volume, b, nil)
		stage, stores := s.stage(r.Seq)
		r.Stage, r.Stores, r.Copies = stage.String(), stores, copiesOf(s.last.Stores, r.Seq)
		rows = append(rows, r)
	}
	return rows, err
}

// Pending can only be counted.
func (s *silent) Pending(context.Context, int) ([]control.PendingRow, error) {
	p := s.last.Pending
	return nil, fmt.Errorf("list pending files: %w; %s ago it had %d, of %s", control.ErrSilent, s.age(), p.Files, config.FormatSize(p.Bytes))
}

// Explain needs the catalog.
func (s *silent) Explain(context.Context, string) (control.Explained, error) {
	return control.Explained{}, fmt.Errorf("explain a path: %w, and holds what would tell it", control.ErrSilent)
}

// List needs the catalog.
func (s *silent) List(context.Context, string, bool) ([]control.ListRow, error) {
	return nil, fmt.Errorf("list the tree: %w, and holds what would tell it; with --identity it is read from the stores", control.ErrSilent)
}

func (s *silent) age() string { return age(s.last.At) }

// age says how long ago something was said.
func age(at time.Time) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return config.FormatDuration(time.Since(at))
}
