package seal

import (
	"context"
	"fmt"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/spooler/capture"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// MaxShards is how many shards a batch may introduce.
const MaxShards = 1024

// Batch is one on its way: Prepare → Write → Commit (the catalog's transaction) → publish.
type Batch struct {
	env        batch.Envelope
	body       batch.Body
	change     *tree.Change
	captures   []*pending.File
	introduced []capture.Published
	touched    uint64 // the paths of `rpo:` that it changes something below, a bit each
	sealed     *batch.Sealed
	temp       string
}

// Due tells whether a batch should be sealed now; otherwise when to look again (zero: when something happens).
func (s *Sealer) Due() (bool, time.Time) {
	if s.Idle() {
		return false, time.Time{}
	}
	since := s.dirtySince
	for _, p := range s.arrived {
		since = earliest(since, p.Began())
	}
	soon := s.opt.Pending.Imminent(s.opt.Busy())
	return s.rhythm.due(s.opt.Now(), since, soon, s.atRest(soon))
}

// atRest tells whether nothing is about to be read: a batch sealed now leaves nothing behind but files that are held open.
func (s *Sealer) atRest(soon time.Time) bool { return soon.IsZero() && !s.opt.Mirror.Walking() }

// Seal makes one batch of everything folded and captured so far. false: there was nothing to seal.
//
// Dying before the catalog's commit leaves shards that no batch names (found and abandoned at the next start) and a temporary
// file; dying after it leaves the batch file under its temporary name, which the next start publishes.
func (s *Sealer) Seal(ctx context.Context) (bool, error) {
	b, err := s.Prepare(ctx)
	if err != nil || b == nil {
		return false, err
	}
	return true, s.finish(ctx, b)
}

// Prepare collects what a batch says; nil: nothing. What was prepared must be committed before anything else is folded.
func (s *Sealer) Prepare(ctx context.Context) (*Batch, error) {
	b := &Batch{}
	if err := s.resolveCaptures(ctx, b); err != nil {
		return nil, err
	}
	if err := s.opt.Tree.Within(func() error { return s.prepare(b) }); err != nil {
		return nil, fmt.Errorf("prepare batch: %w", err)
	}
	if !s.worthSealing(b) {
		s.dirtySince = time.Time{}
		return nil, nil
	}
	s.fillEnvelope(b)
	return b, nil
}

// Resume goes on with a batch that is held.
func (s *Sealer) Resume(ctx context.Context) error {
	if s.held == nil {
		return nil
	}
	if err := s.finish(ctx, s.held); err != nil {
		return err
	}
	s.problem = nil
	return nil
}

// finish writes, commits and publishes a prepared batch. Where the own store cannot take it (disk full, read-only) the batch is
// held and tried again before anything else is folded: what was prepared must stay what is committed.
func (s *Sealer) finish(ctx context.Context, b *Batch) error {
	s.held = b
	if err := s.Write(ctx, b); err != nil {
		return fmt.Errorf("seal batch %d: %w", b.env.Last, err)
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	s.held = nil
	s.settleCommitted(b)
	if err := s.opt.History.PublishHead(); err != nil {
		return &Fatal{err}
	}
	head := s.opt.History.Meta()
	if err := s.opt.Mirror.Trim(head.Position); err != nil {
		s.opt.Log.Warn("journal files stay", "error", err)
	}
	s.opt.Sealed(head.Head)
	return nil
}

// Fatal leaves memory unsure: the process ends and begins again from what is on disk.
type Fatal struct{ Err error }

func (e *Fatal) Error() string { return e.Err.Error() }
func (e *Fatal) Unwrap() error { return e.Err }

// Write makes the batch file and lays it, under a temporary name, into the own store.
func (s *Sealer) Write(ctx context.Context, b *Batch) error {
	sealed, err := s.opt.Sign(b.env, &b.body)
	if err != nil {
		return err
	}
	b.sealed = sealed
	for d, data := range sealed.BodyShards {
		if err := s.opt.Own.Publish(ctx, d.Path(), data); err != nil {
			return fmt.Errorf("publish body shard %s: %w", d, err)
		}
	}
	b.temp, err = s.opt.History.WriteTemp(sealed)
	return err
}

// Commit writes what the batch means into the catalog: commit point 2 of docs/guarantees.md. When it fails, memory and disk may differ: the
// spooler starts anew from the disk.
func (s *Sealer) Commit(b *Batch) error {
	if err := s.opt.History.Catalog().Update(func(tx *catalog.Tx) error { return s.commit(tx, b) }); err != nil {
		return &Fatal{fmt.Errorf("commit batch %d: %w", b.env.Last, err)}
	}
	return nil
}
