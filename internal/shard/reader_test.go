package shard

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"filippo.io/age"
)

// faulty is a shard on a disk or behind a connection that fails from some call on.
type faulty struct {
	io.ReaderAt
	calls, from int
}

var errDisk = errors.New("input/output error")

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.calls++; f.calls > f.from {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(p, off)
}

// A lost connection is not a rotten shard: the one is tried again, the other set aside.
func TestReadErrorsAreNotCorruption(t *testing.T) {
	b := newBuilder(t)
	s := add(t, b, noise(1, 300_000))
	_, sealed := seal(t, b)
	for from := range 4 {
		src := &faulty{ReaderAt: bytes.NewReader(sealed), from: from}
		r, err := Open(src, int64(len(sealed)), []age.Identity{testID})
		if err == nil {
			_, err = r.Chunk(*s, &testKeys)
		}
		if !errors.Is(err, errDisk) || errors.Is(err, ErrCorrupt) {
			t.Errorf("fault at call %d: %v", from+1, err)
		}
	}
}

// Small files of one frame are read one after another: the frame is decrypted and decompressed once.
func TestFrameIsReadOnce(t *testing.T) {
	b := newBuilder(t)
	var slots []*Slot
	for i := range 200 {
		slots = append(slots, add(t, b, noise(byte(i), 3000)))
	}
	_, sealed := seal(t, b)
	src := &faulty{ReaderAt: bytes.NewReader(sealed), from: 1 << 30}
	r, err := Open(src, int64(len(sealed)), []age.Identity{testID})
	if err != nil {
		t.Fatal(err)
	}
	before := src.calls
	for _, s := range slots {
		if _, err := r.Chunk(*s, &testKeys); err != nil {
			t.Fatal(err)
		}
	}
	if calls := src.calls - before; calls > 20 {
		t.Errorf("200 chunks of one frame took %d reads", calls)
	}
	one, _ := r.Chunk(*slots[0], &testKeys)
	clear(one)
	if _, err := r.Chunk(*slots[0], &testKeys); err != nil {
		t.Errorf("a caller's write reached the cache: %v", err)
	}
}

func TestReaderAtOnce(t *testing.T) {
	b := newBuilder(t)
	var slots []*Slot
	for i := range 60 {
		slots = append(slots, add(t, b, noise(byte(i), 100_000)))
	}
	_, sealed := seal(t, b)
	r := open(t, sealed)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range slots {
				if _, err := r.Chunk(*slots[(i*7+w)%len(slots)], &testKeys); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkReader(b *testing.B) {
	builder := newBuilder(b)
	data := mixed(18 << 10)
	var slots []*Slot
	for builder.Fits(len(data)) && len(slots) < 400 {
		slots = append(slots, add(b, builder, data))
	}
	_, sealed := seal(b, builder)
	b.SetBytes(int64(len(slots) * len(data)))
	for b.Loop() {
		r := open(b, sealed)
		for _, s := range slots {
			if _, err := r.Chunk(*s, &testKeys); err != nil {
				b.Fatal(err)
			}
		}
	}
}
