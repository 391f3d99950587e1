// Package history is the batches that this node has sealed: its catalog and its own store, which are kept at the same batch, and the epoch
// that they are in.
//
// After a crash Open finishes what a commit has left open. Where catalog and own store do not fit together any more, it begins the
// next epoch: no number is sealed twice.
package history

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/durable"
	"slipway/internal/store"
)

// Options of a history.
type Options struct {
	VolumeID batch.VolumeID
	Own      store.Store // the node's own store, rooted at the volume,
	Dir      string      // and where that is
	Key      string      // this node's public key
	Log      *slog.Logger
	Now      func() time.Time
}

// History is the batches of one volume. It takes no lock: whoever owns it guards it.
type History struct {
	opt   Options
	cat   *catalog.Catalog
	meta  catalog.Meta
	first First
}

// First says how the next batch begins an epoch.
type First struct {
	Fresh     bool   // it is the first of its epoch
	Continued bool   // Fresh, and the catalog holds the tree that the epoch continues
	NamedBy   string // of a later epoch: the signed envelope that named this node's key
}

// New makes a history. Open follows.
func New(opt Options) *History { return &History{opt: opt} }

// Close ends what Open opened.
func (h *History) Close() error {
	if h.cat == nil {
		return nil
	}
	return h.cat.Close()
}

// Catalog is the one that was opened.
func (h *History) Catalog() *catalog.Catalog { return h.cat }

// Meta is where the history stands.
func (h *History) Meta() catalog.Meta { return h.meta }

// SetMeta moves where the history stands, within a transaction of the catalog. When that fails, memory and disk differ.
func (h *History) SetMeta(tx *catalog.Tx, m catalog.Meta) error {
	if err := tx.SetMeta(m); err != nil {
		return err
	}
	h.meta = m
	return nil
}

// First says how the next batch begins an epoch.
func (h *History) First() First { return h.first }

// Begun notes that the epoch has a batch.
func (h *History) Begun() { h.first = First{} }

// WriteTemp lays the batch file beside its final place, durable but not visible yet.
func (h *History) WriteTemp(sealed *batch.Sealed) (string, error) {
	dir := filepath.Dir(h.batchFile(sealed.Envelope.Epoch, sealed.Envelope.Last))
	if err := durable.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return durable.WriteTemp(dir, sealed.File, 0o640)
}

func (h *History) batchFile(e batch.Epoch, seq batch.Seq) string {
	return filepath.Join(h.opt.Dir, filepath.FromSlash(batch.Path(e, seq, seq)))
}

// errHeadLost means that the own store has lost the newest batch: it was removed, or another directory was put in its place.
var errHeadLost = errors.New("the own store has lost its newest batch")

// PublishHead gives the committed batch file its name. Repeating it changes nothing.
func (h *History) PublishHead() error {
	final := h.batchFile(h.meta.Epoch, h.meta.Head)
	temp := filepath.Join(filepath.Dir(final), h.meta.HeadTemp)
	if _, err := os.Lstat(filepath.Dir(final)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish batch %d: %s is not there: %w", h.meta.Head, filepath.Dir(final), errHeadLost)
	}
	err := durable.PublishTemp(temp, final)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish batch %d: neither %s nor its temporary file is there: %w", h.meta.Head, final, errHeadLost)
	}
	if err != nil {
		return fmt.Errorf("publish batch %d: %w", h.meta.Head, err)
	}
	return nil
}

// errStop ends an iteration early.
var errStop = errors.New("enough")

// SealedAt returns when a batch was sealed; now if the catalog does not know it.
func (h *History) SealedAt(seq batch.Seq) time.Time {
	at := h.opt.Now()
	_ = h.cat.View(func(tx *catalog.Tx) error { // a damaged row only makes the lag read zero
		return tx.Batches(seq, func(b catalog.BatchInfo) error {
			at = b.SealedAt
			return errStop
		})
	})
	return at
}
