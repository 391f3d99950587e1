package carry

import (
	"bytes"
	"errors"
	"testing"

	"slipway/internal/batch"
	"slipway/internal/shard"
	"slipway/internal/store"
)

func TestRead(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(name shard.Digest, data []byte) batch.Object {
		t.Helper()
		if err := s.Publish(t.Context(), name.Path(), data); err != nil {
			t.Fatal(err)
		}
		return batch.Object{Digest: name, Size: int64(len(data))}
	}
	b := Take()
	defer b.Free()
	for _, n := range []int{5000, 100, 5000, 9000} { // larger and smaller than what the buffer has
		data := bytes.Repeat([]byte{byte(n)}, n)
		got, err := b.Read(t.Context(), s, put(shard.Sum(data), data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
		}
	}
	if _, err := b.Read(t.Context(), s, put(shard.Digest{1}, []byte("other bytes"))); !errors.Is(err, shard.ErrCorrupt) {
		t.Error("other bytes than its name says:", err)
	}
	o := put(shard.Sum([]byte("bytes")), []byte("bytes"))
	o.Size++
	if _, err := b.Read(t.Context(), s, o); !errors.Is(err, shard.ErrCorrupt) {
		t.Error("another size:", err)
	}
	if _, err := b.Read(t.Context(), s, batch.Object{Digest: shard.Digest{2}, Size: 1}); !errors.Is(err, store.ErrNotExist) {
		t.Error("absent:", err)
	}
}
