package spooler

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/internal/journal"
	"slipway/spooler/capture"
	"slipway/spooler/pending"
	"slipway/spooler/tree"
)

// maxShards is how many shards a batch may introduce.
const maxShards = 1024

// sealing is one batch on its way: prepare → commit (the catalog's transaction) → publish.
type sealing struct {
	env        batch.Envelope
	body       batch.Body
	change     *tree.Change
	captures   []*pending.File
	introduced []capture.Published
	touched    uint64 // the paths of `rpo:` that it changes something below, a bit each
	sealed     *batch.Sealed
	temp       string
}

// sealDue tells whether a batch should be sealed now; otherwise when to look again (zero: when something happens).
func (v *volume) sealDue() (bool, time.Time) {
	if v.dirtySince.IsZero() && len(v.arrived) == 0 {
		return false, time.Time{}
	}
	since := v.dirtySince
	for _, p := range v.arrived {
		since = earliest(since, p.Began())
	}
	soon := v.pending.Imminent(v.pool.Busy())
	return v.rhythm.due(v.now(), since, soon, v.atRest(soon))
}

// atRest tells whether nothing is about to be read: a batch sealed now leaves nothing behind but files that are held open.
func (v *volume) atRest(soon time.Time) bool { return soon.IsZero() && !v.mirror.Walking() }

// seal makes one batch of everything folded and captured so far. false: there was nothing to seal.
//
// Dying before the catalog's commit leaves shards that no batch names (found and abandoned at the next start) and a temporary
// file; dying after it leaves the batch file under its temporary name, which the next start publishes.
func (v *volume) seal(ctx context.Context) (bool, error) {
	s := &sealing{}
	if err := v.resolveCaptures(ctx, s); err != nil {
		return false, err
	}
	if err := v.tree.Within(func() error { return v.prepare(s) }); err != nil {
		return false, fmt.Errorf("prepare batch: %w", err)
	}
	if !v.worthSealing(s) {
		v.dirtySince = time.Time{}
		return false, nil
	}
	v.fillEnvelope(s)
	return true, v.finish(ctx, s)
}

// finish writes, commits and publishes a prepared batch. Where the own store cannot take it (disk full, read-only) the batch is
// held and tried again before anything else is folded: what was prepared must stay what is committed.
func (v *volume) finish(ctx context.Context, s *sealing) error {
	v.held = s
	if err := v.encode(ctx, s); err != nil {
		return fmt.Errorf("seal batch %d: %w", s.env.Last, err)
	}
	// Commit point 2 of docs/guarantees.md. When it fails, memory and disk may differ: the spooler starts anew from the disk.
	if err := v.cat.Update(func(tx *catalog.Tx) error { return v.commit(tx, s) }); err != nil {
		return &fatalError{fmt.Errorf("commit batch %d: %w", s.env.Last, err)}
	}
	v.held = nil
	v.settleCommitted(s)
	if err := v.publishHead(); err != nil {
		return &fatalError{err}
	}
	if err := v.mirror.Trim(v.meta.Position); err != nil {
		v.log.Warn("journal files stay", "error", err)
	}
	v.onSealed(v.meta.Head)
	return nil
}

// fatalError leaves memory unsure: the process ends and begins again from what is on disk.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// encode makes the batch file and lays it, under a temporary name, into the own store.
func (v *volume) encode(ctx context.Context, s *sealing) error {
	sealed, err := v.sign(s.env, &s.body)
	if err != nil {
		return err
	}
	s.sealed = sealed
	for d, data := range sealed.BodyShards {
		if err := v.own.Publish(ctx, d.Path(), data); err != nil {
			return fmt.Errorf("publish body shard %s: %w", d, err)
		}
	}
	s.temp, err = v.writeTemp(sealed)
	return err
}

// writeTemp lays the batch file beside its final place, durable but not visible yet.
func (v *volume) writeTemp(sealed *batch.Sealed) (string, error) {
	dir := filepath.Dir(v.batchFile(sealed.Envelope.Epoch, sealed.Envelope.Last))
	if err := durable.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return durable.WriteTemp(dir, sealed.File, 0o640)
}

func (v *volume) batchFile(e batch.Epoch, seq batch.Seq) string {
	return filepath.Join(v.ownDir, filepath.FromSlash(batch.Path(e, seq, seq)))
}

// position returns where the journal stands for `wait`: everything answered before the call lies before it.
func (v *volume) position() (journal.Position, error) { return journal.End(v.journalDir) }
