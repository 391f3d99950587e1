package batch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// fetchFrom reads body shards from what Seal returned.
func fetchFrom(shards map[shard.Digest][]byte) Fetch {
	return func(d shard.Digest) (io.ReaderAt, int64, error) {
		data, ok := shards[d]
		if !ok {
			return nil, 0, io.ErrUnexpectedEOF
		}
		return bytes.NewReader(data), int64(len(data)), nil
	}
}

// A body above 8 MiB lies in shards of its own; each is readable alone.
func TestLargeBody(t *testing.T) {
	body := &Body{Secret: &chunk.Secret{7}}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1200 {
		c := &Content{Clean: true}
		for j := range 150 {
			p := testPiece(fmt.Sprint(i), int64(1000+i))
			p.Chunk = chunk.ID(shard.Sum(fmt.Append(nil, i, j)))
			p.Offset = r.Int64N(7 << 20)
			c.Size, c.Pieces = c.Size+p.Len, append(c.Pieces, p)
		}
		body.Inodes = append(body.Inodes, Inode{ID: FileID(i + 2), Mode: 0o100644, Mtime: r.Int64(), Content: c})
		body.Entries = append(body.Entries, Entry{Parent: Root, Name: fmt.Sprintf("%x", r.Uint64()), ID: FileID(i + 2)})
	}
	got, s := reopen(t, body)
	if !reflect.DeepEqual(body, got) {
		t.Error("body changed")
	}
	env := s.Envelope
	if len(s.BodyShards) < 2 || env.BodySize != 0 || len(env.BodyShards) != len(s.BodyShards) || len(env.Introduces) != 2+len(s.BodyShards) {
		t.Fatalf("%d body shards, envelope names %d, introduces %d, body of %d bytes", len(s.BodyShards), len(env.BodyShards), len(env.Introduces), env.BodySize)
	}
	for d, data := range s.BodyShards {
		if shard.Sum(data) != d || len(data) > shard.MaxSize {
			t.Errorf("body shard %s of %d bytes", d, len(data))
		}
	}
}

// sealParts seals a batch whose body lies in two shards, small as it is.
func sealParts(t testing.TB) *Sealed {
	t.Helper()
	w := newPartWriter([]age.Recipient{testIdentity.Recipient()})
	body := testBody()
	if _, err := w.write(&Body{Secret: body.Secret, Inodes: body.Inodes}); err != nil {
		t.Fatal(err)
	}
	parts, err := w.write(&Body{Entries: body.Entries})
	if err != nil {
		t.Fatal(err)
	}
	s, err := finish(testEnvelope(), parts, testSigner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBodyShards(t *testing.T) {
	s, other := sealParts(t), sealParts(t)
	b, ids := mustParse(t, s.File), []age.Identity{testIdentity}
	if body, err := b.Open(ids, fetchFrom(s.BodyShards)); err != nil || !cmp.Equal(body, testBody()) {
		t.Errorf("body changed: %v", err)
	}
	first, last := b.Envelope.BodyShards[0], b.Envelope.BodyShards[1]
	flipped := bytes.Clone(s.BodyShards[first.Digest])
	flipped[300] ^= 1
	// Another body to the same recipients, of the same length: only the digest tells.
	forged := other.BodyShards[other.Envelope.BodyShards[0].Digest]
	if int64(len(forged)) != first.Size {
		t.Fatalf("forged body shard of %d bytes, not %d", len(forged), first.Size)
	}
	for name, data := range map[string][]byte{
		"cut": flipped[:100], "empty": {}, "longer": append(bytes.Clone(s.BodyShards[first.Digest]), 0), "flipped": flipped,
		"exchanged": s.BodyShards[last.Digest], "forged": forged,
	} {
		shards := maps.Clone(s.BodyShards)
		shards[first.Digest] = data
		if _, err := b.Open(ids, fetchFrom(shards)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, size := range []int64{-1, 1 << 50, first.Size} {
		lying := func(shard.Digest) (io.ReaderAt, int64, error) { return bytes.NewReader(nil), size, nil }
		if _, err := b.Open(ids, lying); !errors.Is(err, ErrCorrupt) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	missing := func(shard.Digest) (io.ReaderAt, int64, error) { return nil, 0, fs.ErrNotExist }
	if _, err := b.Open(ids, missing); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		t.Errorf("missing: %v", err)
	}
	if _, err := b.Open(ids, nil); !errors.Is(err, errNoFetch) {
		t.Errorf("no fetch: %v", err)
	}
	stop := errors.New("enough")
	_, err := b.Records(ids, fetchFrom(s.BodyShards), func(*Inode) error { return stop }, func(*Entry) error { return nil })
	if !errors.Is(err, stop) || errors.Is(err, ErrCorrupt) {
		t.Errorf("the taker's own error: %v", err)
	}
}

func TestSecondSecret(t *testing.T) {
	w := newPartWriter([]age.Recipient{testIdentity.Recipient()})
	if _, err := w.write(&Body{Secret: &chunk.Secret{1}}); err != nil {
		t.Fatal(err)
	}
	parts, err := w.write(&Body{Secret: &chunk.Secret{2}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := finish(testEnvelope(), parts, testSigner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mustParse(t, s.File).Open([]age.Identity{testIdentity}, fetchFrom(s.BodyShards)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("two secrets: %v", err)
	}
}

// A body of much text that compresses well is one body, not shards.
func TestCompressibleBodyStaysInside(t *testing.T) {
	body := &Body{}
	for i := range 100_000 {
		body.Entries = append(body.Entries, Entry{Parent: Root, Name: fmt.Sprintf("photographs/of/the/harbour-%08d.jpeg", i)[20:], ID: FileID(i + 2)})
	}
	got, s := reopen(t, body)
	if len(got.Entries) != len(body.Entries) || s.BodyShards != nil {
		t.Errorf("%d entries, %d body shards", len(got.Entries), len(s.BodyShards))
	}
}

// Records of the largest size, one after another, with nothing that compresses.
func TestLargestLines(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	random := func() (d [32]byte) { _, _ = r.Read(d[:]); return d }
	body := &Body{}
	for i := range 4 {
		c := &Content{Size: 1, Clean: true}
		for range 39_000 {
			p := testPiece("x", 4<<20)
			p.Shard, p.Chunk = random(), random()
			c.Lists = append(c.Lists, p)
		}
		body.Inodes = append(body.Inodes, Inode{ID: FileID(i + 2), Mode: 0o100644, Content: c})
	}
	got, _ := reopen(t, body)
	if !reflect.DeepEqual(body, got) {
		t.Error("body changed")
	}
	c := body.Inodes[0].Content
	for range 2 {
		c.Lists = append(c.Lists, c.Lists...)
	}
	if _, err := Seal(testEnvelope(), body, []age.Recipient{testIdentity.Recipient()}, testSigner); !errors.Is(err, errLineSize) {
		t.Errorf("a record above the limit: %v", err)
	}
}
