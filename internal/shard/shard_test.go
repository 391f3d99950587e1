package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"slipway/internal/chunk"
)

var (
	testKeys = chunk.DeriveKeys(chunk.Secret{1})
	testID   = mustIdentity()
)

func mustIdentity() *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return id
}

func newBuilder(t testing.TB, more ...age.Recipient) *Builder {
	t.Helper()
	b, err := NewBuilder(append([]age.Recipient{testID.Recipient()}, more...), testKeys)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noise does not compress, text does.
func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func text(n int) []byte {
	return bytes.Repeat([]byte("slipway seals what applications write. "), n/39+1)[:n]
}

func add(t testing.TB, b *Builder, data []byte) *Slot {
	t.Helper()
	s, err := b.Add(testKeys.ID(data), data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t testing.TB, b *Builder) (Digest, []byte) {
	t.Helper()
	d, sealed, err := b.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if d != Sum(sealed) || len(sealed) > MaxSize {
		t.Fatalf("%d bytes sealed as %s", len(sealed), d)
	}
	return d, bytes.Clone(sealed) // the builder uses it again
}

func open(t testing.TB, sealed []byte) *Reader {
	t.Helper()
	r, err := Open(bytes.NewReader(sealed), int64(len(sealed)), []age.Identity{testID})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBuilder(t)
		var slots []*Slot
		var chunks [][]byte
		for range rapid.IntRange(1, 12).Draw(rt, "chunks") {
			n := rapid.OneOf(rapid.IntRange(1, 2000), rapid.IntRange(1, FrameSize+1), rapid.IntRange(FrameSize-1, 3<<20)).Draw(rt, "size")
			data := text(n)
			if rapid.Bool().Draw(rt, "noise") {
				data = noise(byte(n), n)
			}
			if !b.Fits(n) {
				continue
			}
			slots, chunks = append(slots, add(t, b, data)), append(chunks, data)
		}
		_, sealed := seal(t, b)
		r := open(t, sealed)
		for _, i := range rapid.Permutation(indices(len(slots))).Draw(rt, "order") {
			got, err := r.Chunk(*slots[i], &testKeys)
			if err != nil || !bytes.Equal(got, chunks[i]) {
				rt.Fatalf("chunk %d of %d bytes: %d bytes, %v", i, len(chunks[i]), len(got), err)
			}
		}
	})
}

func indices(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func TestPaths(t *testing.T) {
	d := Sum([]byte("slipway"))
	p := d.Path()
	if want := "shards/" + d.String()[:2] + "/" + d.String() + ".shard"; p != want {
		t.Errorf("path %s", p)
	}
	if back, err := ParsePath(p); err != nil || back != d {
		t.Errorf("%s: %v", p, err)
	}
	for _, bad := range []string{
		"", p + "/", "/" + p, p[1:], strings.ToUpper(p), p + ".shard", strings.TrimSuffix(p, ".shard"), "shards//" + d.String() + ".shard",
		"shards/00/" + d.String() + ".shard", "shards/../" + p, strings.Replace(p, "shards", "shard", 1), strings.Repeat("a/", 5000), "shards/3f/.shard",
	} {
		if _, err := ParsePath(bad); !errors.Is(err, errPath) {
			t.Errorf("%.100q: %v", bad, err)
		}
	}
	text, err := json.Marshal(map[Digest]Digest{d: d})
	var back map[Digest]Digest
	if err != nil || json.Unmarshal(text, &back) != nil || back[d] != d {
		t.Errorf("%s: %v", text, err)
	}
	if _, err := ParseDigest(strings.ToUpper(d.String())); !errors.Is(err, errDigest) {
		t.Errorf("capital letters: %v", err)
	}
}
