package history

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/spooler/push"
)

// SetAside keeps a catalog that cannot be gone on with under another name.
func (h *History) SetAside(path string) error {
	aside := path + ".aside-" + h.opt.Now().UTC().Format("20060102T150405.000000000")
	if err := durable.PublishTemp(path, aside); err != nil {
		return fmt.Errorf("set catalog aside: %w", err)
	}
	return nil
}

// errRolledBack means that the own store holds a batch which the catalog does not know: an older catalog was put back, or its
// newest page is damaged and the one before it was read. Going on would seal a number twice.
var errRolledBack = errors.New("the catalog is older than the own store")

// behindOwn looks for batches beyond the catalog's head in the own store.
func (h *History) behindOwn(ctx context.Context) error {
	return push.EachBatchFile(ctx, h.opt.Own, h.meta.Epoch, h.meta.Head+1, func(e batch.Epoch, _, last batch.Seq) error {
		if e > h.meta.Epoch || last > h.meta.Head {
			return fmt.Errorf("batch %d of epoch %d is there, the catalog ends at %d: %w", last, e, h.meta.Head, errRolledBack)
		}
		return nil
	})
}

// Open opens the catalog and brings the own store to where it is. An own store that lost its newest batch, and a catalog older than it, end
// the epoch: nobody can say what else is missing.
func (h *History) Open(path string) error {
	if err := h.openCatalog(path); err != nil {
		return err
	}
	err := h.recover()
	if err == nil {
		err = h.behindOwn(context.Background())
	}
	if !errors.Is(err, errHeadLost) && !errors.Is(err, errRolledBack) {
		return err
	}
	h.opt.Log.Error("a new epoch begins and the whole tree is read again", "error", err)
	if err := errors.Join(h.cat.Close(), h.SetAside(path)); err != nil {
		return err
	}
	return h.openCatalog(path)
}

// openCatalog opens the catalog, and begins a new epoch where it is damaged or gone while the own store holds batches.
func (h *History) openCatalog(path string) error {
	cat, err := catalog.Open(path)
	if errors.Is(err, catalog.ErrCorrupt) {
		h.opt.Log.Error("catalog is damaged: it is set aside, a new epoch begins and the whole tree is read again", "error", err)
		if err := h.SetAside(path); err != nil {
			return err
		}
		cat, err = catalog.Open(path)
	}
	if err != nil {
		return fmt.Errorf("open catalog: %w", err)
	}
	h.cat = cat
	if err := h.beginEpochIfLost(); err != nil {
		return err
	}
	return h.cat.View(func(tx *catalog.Tx) (err error) {
		h.meta, err = tx.Meta()
		return err
	})
}

// recover finishes what a commit left open: the head's batch file gets its name. Dying before it repeats only this.
func (h *History) recover() error {
	if h.meta.HeadTemp == "" {
		return nil
	}
	return h.PublishHead()
}
