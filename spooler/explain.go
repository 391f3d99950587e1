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
		for id, p := range v.pending.files {
			if limit > 0 && len(rows) >= limit {
				return nil
			}
			path, ok, err := v.tree.Path(id)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			rows = append(rows, control.PendingRow{
				Path: path, State: p.reason, Since: p.since, Bytes: p.bytes,
				Writers: v.pending.writers[id], Why: v.whyPending(p),
			})
		}
		return nil
	})
	slices.SortFunc(rows, func(a, b control.PendingRow) int { return strings.Compare(a.Path, b.Path) })
	return rows, err
}

// whyPending says in words what a pending file waits for.
func (v *volume) whyPending(p *pendingFile) string {
	switch {
	case p.done != nil:
		return "read; waits for the next batch"
	case p.running:
		return "is being read"
	case p.err != nil:
		return "tried again: " + p.err.Error()
	case p.hasty:
		return "an fsync waits for it: it is read next"
	case v.pending.writers[p.id] > 0:
		return fmt.Sprintf("open for writing; read every %v while it changes", v.timing.openInterval)
	case p.reason == reasonOpen && p.tries > 0:
		return "a mapping or a process of before the last mount still has it open"
	case !v.room():
		return "waits for room in the local store"
	}
	return "waits until it is quiet"
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
			if v.walking() {
				out.WaitingFor = "its directory has not been compared with the source yet"
				return nil
			}
			return fmt.Errorf("%q: %w", path, fs.ErrNotExist)
		}
		if p := v.pending.files[id]; p != nil {
			since := p.since
			out.WaitingFor, out.Since = v.whyPending(p), &since
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
		since := v.sealedAt(batch.Seq(out.Batch))
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
	return offline.ListCatalog(ctx, s.vol.cat, s.left, path, recursive)
}
