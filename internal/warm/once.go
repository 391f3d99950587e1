package warm

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/restore/chain"
)

// ApplyOnce brings the directory to the newest complete batch and returns where it is then. Nothing newer is no error.
func (t *Tree) ApplyOnce(ctx context.Context) (Moment, error) {
	err := t.once(ctx)
	at, _, merr := t.At()
	if err != nil {
		err = fmt.Errorf("bring warm tree %s up to date: %w", t.opt.Dir, err)
	}
	return at, errors.Join(err, merr)
}

func (t *Tree) once(ctx context.Context) error {
	if err := t.Finish(); err != nil {
		return err
	}
	src, err := t.opt.Source(ctx)
	if err != nil {
		return err
	}
	line, err := chain.Open(ctx, src)
	if err != nil {
		return err
	}
	m, err := t.meta()
	if err != nil {
		return err
	}
	if m.Head > 0 && m.VolumeID != line.VolumeID {
		return fmt.Errorf("%w: %s, the stores have %s", ErrVolume, m.VolumeID, line.VolumeID)
	}
	for {
		c, err := t.next(ctx, line, &m)
		if err != nil {
			return err
		}
		if c == nil {
			return t.heal(ctx, line, &m)
		}
		again, err := t.apply(ctx, c)
		if err != nil {
			return err
		}
		if m, err = t.meta(); err != nil {
			return err
		}
		if !again {
			return t.heal(ctx, line, &m)
		}
	}
}

// heal makes again what was found lost, where no newer batch does.
func (t *Tree) heal(ctx context.Context, line *chain.Line, m *catalog.Meta) error {
	for again := true; again; {
		lost := false
		err := t.cat.View(func(tx *catalog.Tx) error {
			return tx.EachPending(func(_ batch.FileID, p catalog.Pending) error {
				lost = lost || p.Reason == reasonLost
				return nil
			})
		})
		if err != nil || !lost {
			return err
		}
		b := &batch.Batch{Digest: m.HeadDigest}
		b.Envelope.VolumeID, b.Envelope.Epoch, b.Envelope.Last, b.Envelope.SealedAt = m.VolumeID, m.Epoch, m.Head, m.SealedAt
		c := &change{batch: b, inodes: make(map[batch.FileID]*batch.Inode), full: true, omitted: !m.Complete, content: reader(line, nil)}
		if again, err = t.apply(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// apply makes one step. again: the tree in the state is not what it was, so the change has to be found anew.
func (t *Tree) apply(ctx context.Context, c *change) (again bool, err error) {
	if err := t.cat.View(c.again); err != nil {
		return false, err
	}
	unread := make(map[batch.FileID]string)
	for {
		var p *planner
		err := t.cat.View(func(tx *catalog.Tx) (err error) {
			p, err = t.plan(tx, c, unread)
			return err
		})
		var lost *lostError
		switch {
		case errors.As(err, &lost):
			t.opt.Log.Error("directory of the warm tree is not there and is made again", "directory", lost.id, "error", lost.err)
			return true, t.forget(lost.id)
		case errors.Is(err, errFull) && !c.full:
			t.opt.Log.Info("warm tree is compared as a whole", "batch", c.batch.Envelope.Last, "cause", err)
			return true, t.doubt()
		case err != nil:
			return false, err
		}
		failed, err := t.stage(ctx, p)
		if err != nil {
			return false, err
		}
		if len(failed) == 0 {
			return false, t.commit(p)
		}
		maps.Copy(unread, failed)
	}
}

// commit is the commit point: from here on the step is finished, whatever happens.
func (t *Tree) commit(p *planner) error {
	first := stageAttach
	if len(p.step.Detach)+len(p.step.Hold) > 0 {
		first = stageDetach
	}
	if p.step.empty() {
		return t.cat.Update(func(tx *catalog.Tx) error { return p.commit(tx, "") })
	}
	if len(p.step.Make)+len(p.step.Mkdir) > 0 {
		if err := t.sync(); err != nil {
			return err
		}
	}
	if err := t.at("save"); err != nil {
		return err
	}
	if err := t.save(p.step); err != nil {
		return err
	}
	// Died here: the note says nothing, for the catalog does not name it.
	if err := t.at("commit"); err != nil {
		return err
	}
	if err := t.cat.Update(func(tx *catalog.Tx) error { return p.commit(tx, first) }); err != nil {
		return err
	}
	return t.finish(p.step, first)
}

func (t *Tree) sync() error {
	if err := unix.Syncfs(t.rootFd()); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// at lets tests end a step.
func (t *Tree) at(op string) error {
	if t.fault == nil {
		return nil
	}
	return t.fault(op)
}

// doubt notes that the batches alone do not tell what to do next.
func (t *Tree) doubt() error {
	return t.cat.Update(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		m.Complete = false
		return tx.SetMeta(m)
	})
}

// reasonLost: the file is not in the directory as it was left there.
const reasonLost = "lost"

// forget notes that a file, and what lies below a directory, is not there.
func (t *Tree) forget(id batch.FileID) error {
	return t.cat.Update(func(tx *catalog.Tx) error { return forget(tx, id) })
}

func forget(tx *catalog.Tx, id batch.FileID) error {
	in, ok, err := tx.Inode(id)
	if err != nil || !ok {
		return errors.Join(err, missing(id, ok))
	}
	if sealed(&in.Inode) {
		seen{}.note(&in)
		if err := errors.Join(tx.PutInode(&in), tx.PutPending(id, catalog.Pending{Reason: reasonLost})); err != nil {
			return err
		}
	}
	if !isDir(&in.Inode) {
		return nil
	}
	return tx.Entries(id, func(_ string, child batch.FileID) error { return forget(tx, child) })
}
