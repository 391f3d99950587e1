package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"slipway/internal/chunk"
)

// Many small chunks share frames; a big one has frames of its own between them.
func TestLayout(t *testing.T) {
	b := newBuilder(t)
	small := add(t, b, text(1000))
	big := add(t, b, text(3<<20))
	next := add(t, b, text(2000))
	if small.Stored != 0 || big.Stored == 0 {
		t.Errorf("before the frame is flushed: %+v, %+v", small, big)
	}
	_, sealed := seal(t, b)
	if small.Offset != next.Offset || small.Stored != next.Stored || next.In != 1000 {
		t.Errorf("small chunks do not share a frame: %+v, %+v", small, next)
	}
	if big.In != 0 || big.Offset == small.Offset {
		t.Errorf("big chunk shares a frame: %+v", big)
	}
	var raw []byte
	plain, err := age.Decrypt(bytes.NewReader(sealed), testID)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := zstd.NewReader(nil)
	defer d.Close()
	if raw, err = d.DecodeAll(frames, nil); err != nil || len(raw) != 1000+3<<20+2000 {
		t.Errorf("whole stream: %d bytes, %v", len(raw), err)
	}
}

// Whatever fits stays within MaxSize, and a shard of incompressible data is nearly full.
func TestFits(t *testing.T) {
	other := mustIdentity()
	for _, size := range []int{1 << 20, 700_000, chunk.Max, FrameSize + 1, 100_000} {
		b := newBuilder(t, other.Recipient())
		for i := 0; b.Fits(size); i++ {
			add(t, b, noise(byte(i), size))
		}
		b.flush()
		if _, err := b.Add(chunk.ID{}, noise(0, size)); !errors.Is(err, errNotFit) {
			t.Errorf("one more of %d bytes: %v", size, err)
		}
		for i := 0; b.Fits(10_000); i++ {
			add(t, b, noise(byte(i), 10_000))
		}
		estimate := b.Size()
		if _, sealed := seal(t, b); len(sealed) < MaxSize-16_000 || int64(len(sealed)) < estimate-4096 {
			t.Errorf("chunks of %d bytes: sealed %d bytes, estimated %d", size, len(sealed), estimate)
		}
	}
	b := newBuilder(t)
	for _, n := range []int{-1, 0, chunk.Max + 1} {
		if b.Fits(n) {
			t.Errorf("a chunk of %d bytes fits", n)
		}
	}
	if _, err := b.Add(chunk.ID{}, nil); !errors.Is(err, errNotFit) {
		t.Errorf("an empty chunk: %v", err)
	}
	for range MaxChunks {
		add(t, b, []byte("x"))
	}
	if b.Fits(1) || b.Len() != MaxChunks {
		t.Errorf("more than %d chunks fit", MaxChunks)
	}
}

func TestBuilderIsEmptyAfterSeal(t *testing.T) {
	b := newBuilder(t)
	if _, _, err := b.Seal(); !errors.Is(err, errEmptyShard) {
		t.Errorf("sealing nothing: %v", err)
	}
	first := add(t, b, text(5000))
	_, sealed := seal(t, b)
	if b.Len() != 0 {
		t.Errorf("%d chunks after Seal", b.Len())
	}
	kept := *first
	second := add(t, b, noise(1, 6000))
	_, again := seal(t, b)
	if *first != kept {
		t.Error("a slot of the first shard changed with the second")
	}
	if got, err := open(t, sealed).Chunk(kept, &testKeys); err != nil || !bytes.Equal(got, text(5000)) {
		t.Errorf("first shard after the second: %v", err)
	}
	if got, err := open(t, again).Chunk(*second, &testKeys); err != nil || !bytes.Equal(got, noise(1, 6000)) {
		t.Errorf("second shard: %v", err)
	}
	if _, err := NewBuilder(nil, testKeys); !errors.Is(err, errNoRecipients) {
		t.Errorf("no recipients: %v", err)
	}
}

// Data may be reused by the caller as soon as Add returns.
func TestAddCopies(t *testing.T) {
	b := newBuilder(t)
	buf := text(4000)
	s := add(t, b, buf)
	clear(buf)
	_, sealed := seal(t, b)
	if got, err := open(t, sealed).Chunk(*s, &testKeys); err != nil || !bytes.Equal(got, text(4000)) {
		t.Errorf("changed with the caller's buffer: %v", err)
	}
}

// A bit that flips in memory after the chunk was named must not be sealed: the writer could never find out later.
func TestSelfCheck(t *testing.T) {
	flips := map[string]func(*Builder){
		"open frame":       func(b *Builder) { b.open[17] ^= 4 },
		"compressed frame": func(b *Builder) { b.plain[len(b.plain)/2] ^= 4 },
		"frame header":     func(b *Builder) { b.plain[1] ^= 1 },
		"frame length":     func(b *Builder) { b.plain[5] ^= 1 },
		"slot":             func(b *Builder) { b.frames[0].slots[0].Chunk[0] ^= 1 },
	}
	for name, flip := range flips {
		b := newBuilder(t)
		add(t, b, noise(1, FrameSize+10))
		add(t, b, text(2000))
		flip(b)
		if _, sealed, err := b.Seal(); !errors.Is(err, ErrCorrupt) || sealed != nil {
			t.Errorf("%s: sealed %d bytes, %v", name, len(sealed), err)
		}
		if b.Len() != 0 {
			t.Errorf("%s: %d chunks left after the error", name, b.Len())
		}
		s := add(t, b, text(2000))
		_, sealed := seal(t, b)
		if _, err := open(t, sealed).Chunk(*s, &testKeys); err != nil {
			t.Errorf("%s: next shard: %v", name, err)
		}
	}
}

func BenchmarkBuilder(b *testing.B) {
	corpora := map[string][]byte{"sources": mixed(16 << 20), "noise": noise(1, 16<<20)}
	for name, corpus := range corpora {
		for _, size := range []int{4 << 10, 18 << 10, 1100 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				chunks := slices.Collect(slices.Chunk(corpus, size))
				builder := newBuilder(b)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					data := chunks[i%len(chunks)]
					if !builder.Fits(len(data)) {
						seal(b, builder)
					}
					if _, err := builder.Add(testKeys.ID(data), data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// mixed compresses to about a third, as sources do.
func mixed(n int) []byte {
	words := strings.Fields("func return err if nil range string int64 the of a that shard batch store chunk package import type struct byte")
	r := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	for out.Len() < n {
		fmt.Fprintf(&out, "%s_%x %s ", words[r.IntN(len(words))], r.IntN(4096), words[r.IntN(len(words))])
	}
	return out.Bytes()[:n]
}
