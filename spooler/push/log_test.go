package push

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
)

// The history as the catalog has it, pushed from start to end.
func TestCatalogLog(t *testing.T) {
	r := newRig(t, false)
	cat, err := catalog.Open(filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cat.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		b := r.seal(r.object(1000))
		if err := cat.Update(func(tx *catalog.Tx) error {
			return errors.Join(
				tx.SetMeta(catalog.Meta{VolumeID: r.volume.ID, Epoch: b.Epoch, Head: b.Seq, Base: 1, NextFile: 2}),
				tx.PutBatch(catalog.BatchInfo{Epoch: b.Epoch, Seq: b.Seq, Digest: b.Digest, SealedAt: time.Now()}),
			)
		}); err != nil {
			t.Fatal(err)
		}
	}
	log := CatalogLog(cat)
	if b, err := log.Bounds(); err != nil || b != (Bounds{Epoch: 1, Head: 3, Base: 1}) {
		t.Fatalf("bounds %+v, %v", b, err)
	}
	for seq := range batch.Seq(5) {
		b, ok, err := log.Sealed(seq)
		if err != nil || ok != (seq >= 1 && seq <= 3) || ok && b != r.log.batches[seq] {
			t.Fatalf("batch %d: %+v, %v, %v", seq, b, ok, err)
		}
	}
	r.target.Log = log
	r.push(r.pusher(), 3)
	r.complete(1)
}
