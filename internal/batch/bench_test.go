package batch

import (
	"fmt"
	"testing"

	"filippo.io/age"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

func BenchmarkSeal(b *testing.B) {
	body := &Body{}
	for i := range 15_000 {
		p := testPiece(fmt.Sprint(i/400), int64(1000+i))
		p.Chunk = chunk.ID(shard.Sum(fmt.Append(nil, i)))
		body.Inodes = append(body.Inodes, Inode{ID: FileID(i + 2), Mode: 0o100644, Mtime: int64(i) * 1e12, Content: &Content{Size: p.Len, Pieces: []Piece{p}, Clean: true}})
		body.Entries = append(body.Entries, Entry{Parent: FileID(i/30 + 1), Name: fmt.Sprintf("file-%d.go", i), ID: FileID(i + 2)})
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustSeal(b, testEnvelope(), body)
		}
	})
	file := mustSeal(b, testEnvelope(), body).File
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := mustParse(b, file).Open([]age.Identity{testIdentity}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
