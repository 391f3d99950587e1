package spooler

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/offline"
)

// Pending implements control.Reporter: the pending files, and behind them what is left out and never becomes pending.
func (s *Spooler) Pending(ctx context.Context, limit int) ([]control.PendingRow, error) {
	rows, err := s.vol.pendingRows(limit)
	if err != nil || limit > 0 && len(rows) >= limit {
		return rows, err
	}
	left, err := s.left.Pending(ctx, max(0, limit-len(rows)))
	return append(rows, left...), err
}

func (v *volume) pendingRows(limit int) ([]control.PendingRow, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var rows []control.PendingRow
	err := v.tree.Within(func() error {
		if err := v.catchUp(); err != nil {
			return err
		}
		for p := range v.pending.All() {
			if limit > 0 && len(rows) >= limit {
				return nil
			}
			path, ok, err := v.tree.Path(p.ID())
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			row := v.pending.Row(p, v.room())
			row.Path = path
			rows = append(rows, row)
		}
		return nil
	})
	slices.SortFunc(rows, func(a, b control.PendingRow) int { return strings.Compare(a.Path, b.Path) })
	return rows, err
}

// Explain implements control.Reporter.
func (s *Spooler) Explain(_ context.Context, path string) (control.Explained, error) {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	out := control.Explained{Path: path, Stage: control.Pending.String()}
	err := v.tree.Within(func() error {
		if err := v.catchUp(); err != nil {
			return err
		}
		if left, _ := s.left.At(path); left.State != "" {
			out.WaitingFor = left.Why
			return nil
		}
		id, ok, err := v.tree.Find(path)
		if err != nil {
			return err
		}
		if !ok {
			if v.mirror.Walking() {
				out.WaitingFor = "its directory has not been compared with the source yet"
				return nil
			}
			return fmt.Errorf("%q: %w", path, fs.ErrNotExist)
		}
		if p := v.pending.Get(id); p != nil {
			row := v.pending.Row(p, v.room())
			out.WaitingFor, out.Since = row.Why, &row.Since
			return nil
		}
		n, err := v.tree.Get(id)
		if err != nil {
			return err
		}
		if n == nil || n.Dirty() {
			out.WaitingFor = "the next batch"
			return nil
		}
		s.explainSealed(&out, n.Seq)
		return nil
	})
	if err == nil && out.Batch > 0 {
		since := v.history.SealedAt(batch.Seq(out.Batch))
		out.Since, out.Reached = &since, s.stages.Reached(batch.Seq(out.Batch), since)
	}
	return out, err
}

// explainSealed says how far the batch of a file is.
func (s *Spooler) explainSealed(out *control.Explained, seq batch.Seq) {
	stage, copies := s.stages.Of(seq)
	out.Stage, out.Copies, out.Batch, out.Stores = stage.String(), copies, uint64(seq), s.stages.Holding(seq)
	var until *time.Time
	if out.WaitingFor, until = s.stages.Why(seq, stage, s.vol.now()); until != nil {
		seconds := max(0, until.Sub(s.vol.now()).Seconds())
		out.ETASeconds = &seconds
	}
}

// List implements control.Lister: the tree as last sealed, and what is left out of it.
func (s *Spooler) List(ctx context.Context, path string, recursive bool) ([]control.ListRow, error) {
	return offline.ListCatalog(ctx, s.vol.history.Catalog(), s.left, path, recursive)
}
