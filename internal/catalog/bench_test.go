package catalog

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/journal"
)

// BenchmarkOpen opens a catalog of a million files as the spooler does, nearly all of which is the check, and as the command line
// does beside it.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "catalog")
	c, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	const files, step = 1_000_000, 50_000
	for from := 0; from < files; from += step {
		err := c.Update(func(tx *Tx) error {
			locs := make([]Location, step)
			for i := range locs {
				id := batch.FileID(from + i + 2)
				in := testInode(id)
				in.Ident = journal.Ident{FS: 1, Ino: uint64(id)}
				if err := tx.PutInode(in); err != nil {
					return err
				}
				if err := tx.PutEntry(batch.Root, fmt.Sprintf("file%08d", id), id); err != nil {
					return err
				}
				var chunkID chunk.ID
				binary.BigEndian.PutUint64(chunkID[:], uint64(id)*0x9E3779B97F4A7C15)
				locs[i].Slot.Chunk = chunkID
			}
			return tx.PutChunks(locs)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("writer", func(b *testing.B) {
		for b.Loop() {
			c, err := Open(path)
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reader", func(b *testing.B) {
		for b.Loop() {
			r, err := OpenReader(path)
			if err != nil {
				b.Fatal(err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
