// Package carry takes one shard after another from store to store, checked, in memory that is used again.
package carry

import (
	"context"
	"fmt"
	"sync"

	"slipway/internal/batch"
	"slipway/internal/hugebuf"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// Buffer holds one shard at a time. Not safe for concurrent use.
type Buffer struct{ data []byte }

var buffers = sync.Pool{New: func() any { return &Buffer{data: hugebuf.Make(shard.MaxSize)} }}

// Take returns a buffer that was in use before, or a new one.
func Take() *Buffer { return buffers.Get().(*Buffer) }

// Free ends the use of the buffer and of what it holds.
func (b *Buffer) Free() { buffers.Put(b) }

// Read reads a whole shard and compares its digest; shard.ErrCorrupt when its bytes are not those of its name. The bytes are valid
// until the next Read or Free.
func (b *Buffer) Read(ctx context.Context, s store.Store, o batch.Object) ([]byte, error) {
	data, err := store.ReadInto(ctx, s, o.Digest.Path(), shard.MaxSize, b.data)
	if err != nil {
		return nil, fmt.Errorf("read shard %s: %w", o.Digest, err)
	}
	if cap(data) > cap(b.data) {
		b.data = data
	}
	if int64(len(data)) != o.Size || shard.Sum(data) != o.Digest {
		return nil, fmt.Errorf("read shard %s: %w", o.Digest, shard.ErrCorrupt)
	}
	return data, nil
}
