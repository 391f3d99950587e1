package spooler

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/journal"
)

// Barrier implements control.Reporter: has everything that was changed below the paths before the first call been sealed, and
// how far is the batch that covers it? It forces nothing. The first call refuses paths that it cannot be about.
func (s *Spooler) Barrier(_ context.Context, b control.Barrier) (control.Barrier, error) {
	v := s.vol
	v.mu.Lock()
	defer v.mu.Unlock()
	first := b.Mark == ""
	mark, err := s.mark(&b)
	if err == nil && first {
		err = s.admit(b, mark)
	}
	if err != nil {
		return b, err
	}
	if b.Seq == 0 {
		why, err := v.unsealedBefore(mark, b.Paths)
		if err != nil {
			return b, err
		}
		if why != "" {
			b.Stage, b.Why = control.Pending.String(), why
			s.nudge()
			return b, nil
		}
		b.Sealed, b.Seq = true, uint64(v.history.Meta().Head)
		b.Mark = mark.format(v.history.Meta().Head)
	}
	b.Sealed = true
	stage, copies := s.stages.Of(batch.Seq(b.Seq))
	b.Stage, b.Copies, b.Need = stage.String(), copies, s.stages.Need()
	b.Why, _ = s.stages.Why(batch.Seq(b.Seq), stage, s.vol.now())
	return b, nil
}

// Durable implements control.Syncer.
func (s *Spooler) Durable(ctx context.Context, q control.Durable) error {
	return s.fsyncs.Durable(ctx, q)
}

// moment is when somebody began to wait: every operation answered by then lies before the position, and what was stored by then
// through an open handle is covered by a capture that began later.
type moment struct {
	pos journal.Position
	at  time.Time
}

// mark returns the moment that the call is about, and the batch that a former call found to cover it.
func (s *Spooler) mark(b *control.Barrier) (moment, error) {
	if b.Mark == "" {
		pos, err := s.vol.position()
		if err != nil {
			return moment{}, fmt.Errorf("read journal's end: %w", err)
		}
		m := moment{pos, s.vol.now()}
		b.Seq = 0
		b.Mark = m.format(0)
		return m, nil
	}
	var nums [5]uint64
	fields := strings.Split(b.Mark, "-")
	if len(fields) != len(nums) {
		return moment{}, fmt.Errorf("mark %q is not one of this daemon's", b.Mark)
	}
	for i, f := range fields {
		n, err := strconv.ParseUint(f, 16, 64)
		if err != nil {
			return moment{}, fmt.Errorf("mark %q is not one of this daemon's: %w", b.Mark, err)
		}
		nums[i] = n
	}
	b.Seq = nums[3]
	return moment{journal.Position{Serial: nums[0], Instance: nums[1], Offset: int64(nums[2])}, time.Unix(0, int64(nums[4]))}, nil
}

func (m moment) format(seq batch.Seq) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", m.pos.Serial, m.pos.Instance, m.pos.Offset, uint64(seq), m.at.UnixNano())
}

// unsealedBefore says in words what keeps changes before a position from being sealed; "" when all are.
func (v *volume) unsealedBefore(mark moment, paths []string) (string, error) {
	if v.history.Meta().Head == 0 || v.mirror.Folded().Before(mark.pos) {
		return "the spooler reads the journal", nil
	}
	if v.mirror.Walking() {
		return fmt.Sprintf("%d directories are still to be compared with the source", v.mirror.Report().Unchecked), nil
	}
	if !v.sealer.Covers(mark.pos) {
		return "the next batch", nil
	}
	why := ""
	err := v.tree.Within(func() error {
		dirs, err := v.resolve(paths)
		if err != nil {
			return err
		}
		n, first := 0, ""
		for p := range v.pending.All() {
			if !p.ChangedBefore(mark.pos) || p.CoveredSince(mark.at) {
				continue
			}
			hit, err := v.belowAny(p.ID(), dirs)
			if err != nil {
				return err
			}
			if hit {
				v.pending.Ask(p)
				if n++; n == 1 {
					first, _, _ = v.tree.Path(p.ID())
				}
			}
		}
		if n > 0 {
			why = fmt.Sprintf("%d files are still to be read, %q among them", n, first)
		}
		return nil
	})
	return why, err
}

// resolve finds the files at the paths; a path that is not there stands for nothing. None: the whole volume.
func (v *volume) resolve(paths []string) ([]batch.FileID, error) {
	if len(paths) == 0 {
		return []batch.FileID{batch.Root}, nil
	}
	var dirs []batch.FileID
	for _, p := range paths {
		id, ok, err := v.tree.Find(p)
		if err != nil {
			return nil, err
		}
		if ok {
			dirs = append(dirs, id)
		}
	}
	return dirs, nil
}

func (v *volume) belowAny(id batch.FileID, dirs []batch.FileID) (bool, error) {
	for _, d := range dirs {
		if ok, err := v.tree.Below(id, d); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
