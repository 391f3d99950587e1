package shard

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"slipway/internal/chunk"
)

// Every bit of a small shard: the digest tells, and so does reading it without having looked at the digest.
func TestFlippedBits(t *testing.T) {
	b := newBuilder(t)
	data := text(400)
	s := add(t, b, data)
	digest, sealed := seal(t, b)
	for i := range len(sealed) * 8 {
		sealed[i/8] ^= 1 << (i % 8)
		if Sum(sealed) == digest {
			t.Fatalf("bit %d: same digest", i)
		}
		r, err := Open(bytes.NewReader(sealed), int64(len(sealed)), []age.Identity{testID})
		if err == nil {
			_, err = r.Chunk(*s, &testKeys)
		}
		var match *age.NoIdentityMatchError
		if !errors.Is(err, ErrCorrupt) && !errors.As(err, &match) { // a flip in a stanza may look like another's shard
			t.Fatalf("bit %d: %v", i, err)
		}
		sealed[i/8] ^= 1 << (i % 8)
	}
	for n := range sealed {
		r, err := Open(bytes.NewReader(sealed[:n]), int64(n), []age.Identity{testID})
		if err == nil {
			_, err = r.Chunk(*s, &testKeys)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// enclose makes an age file over anything, as somebody can who knows the recipients.
func enclose(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, testID.Recipient())
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileSlots(t *testing.T) {
	b := newBuilder(t)
	good := add(t, b, text(4000))
	add(t, b, text(4000))
	_, sealed := seal(t, b)
	r := open(t, sealed)
	const huge = 1<<63 - 1
	for name, change := range map[string]func(*Slot){
		"no length":        func(s *Slot) { s.Len = 0 },
		"negative length":  func(s *Slot) { s.Len = -1 },
		"huge length":      func(s *Slot) { s.Len = huge },
		"above the limit":  func(s *Slot) { s.Len = chunk.Max + 1 },
		"longer":           func(s *Slot) { s.Len = 9000 },
		"as big":           func(s *Slot) { s.Len = chunk.Max },
		"nothing stored":   func(s *Slot) { s.Stored = 0 },
		"negative stored":  func(s *Slot) { s.Stored = -5 },
		"huge stored":      func(s *Slot) { s.Stored = huge },
		"less stored":      func(s *Slot) { s.Stored-- },
		"more stored":      func(s *Slot) { s.Stored++ },
		"negative offset":  func(s *Slot) { s.Offset = -1 },
		"huge offset":      func(s *Slot) { s.Offset = huge },
		"offset behind":    func(s *Slot) { s.Offset = MaxSize - s.Stored },
		"inside the frame": func(s *Slot) { s.Offset++; s.Stored-- },
		"negative in":      func(s *Slot) { s.In = -1 },
		"huge in":          func(s *Slot) { s.In = huge },
		"in behind":        func(s *Slot) { s.In = 4001 },
		"overflowing in":   func(s *Slot) { s.In = huge - s.Len + 1 },
		"other chunk":      func(s *Slot) { s.Chunk[3] ^= 1 },
	} {
		s := *good
		change(&s)
		if data, err := r.Chunk(s, &testKeys); !errors.Is(err, ErrCorrupt) || data != nil {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		// What can be no slot of any shard is known without one: batches check their pieces so.
		if never := strings.HasPrefix(name, "negative") || strings.HasPrefix(name, "huge"); never && !errors.Is(s.Check(), ErrCorrupt) {
			t.Errorf("%s can be a slot", name)
		}
	}
	if _, err := r.Chunk(*good, &testKeys); err != nil {
		t.Errorf("the good slot: %v", err)
	}
	wrong := *good
	wrong.Chunk[0] ^= 1
	if _, err := r.Chunk(wrong, nil); err != nil {
		t.Errorf("without keys only lengths count: %v", err)
	}
	if err := good.Check(); err != nil {
		t.Errorf("the good slot: %v", err)
	}
}

// Frames that lie about their size, or decompress to a million times theirs.
func TestHostileFrames(t *testing.T) {
	honest := compress(nil, text(1000))
	bomb := func(opts ...zstd.EOption) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, 1<<20)
		for range 256 {
			_, _ = w.Write(zeros)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	lying := bytes.Clone(honest)
	lying[4] |= 0xc0 // an eight byte length field
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, 1, 2, 3, 4)
	for name, plain := range map[string][]byte{
		"bomb":           bomb(),
		"bomb, window":   bomb(zstd.WithWindowSize(128 << 20)),
		"frames of zero": bytes.Repeat(compress(nil, make([]byte, FrameSize)), 64),
		"lying header":   lying,
		"skippable":      skippable,
		"two frames":     append(bytes.Clone(honest), honest...),
		"no frame":       []byte("not zstd at all"),
		"cut":            honest[:len(honest)-1],
		"half a header":  honest[:3],
	} {
		sealed := enclose(t, plain)
		r := open(t, sealed)
		stored := int64(len(plain))
		for _, s := range []Slot{{Stored: stored, Len: 999}, {Stored: stored, Len: 1001}, {Stored: stored, Len: chunk.Max}, {Stored: stored, Len: FrameSize + 1}} {
			var data []byte
			var err error
			spent := testing.AllocsPerRun(1, func() { data, err = r.Chunk(s, nil) })
			if name == "two frames" && s.Len == 999 {
				continue // the first frame has these bytes: what is behind it is not asked for
			}
			if !errors.Is(err, ErrCorrupt) || data != nil {
				t.Errorf("%s as %d bytes: %d bytes, %v (%v allocations)", name, s.Len, len(data), err, spent)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	sealed := enclose(t, compress(nil, text(100)))
	for _, size := range []int64{-1, 0, MaxSize + 1, 1 << 62} {
		if _, err := Open(bytes.NewReader(sealed), size, []age.Identity{testID}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	_, err := Open(bytes.NewReader(sealed), int64(len(sealed)), []age.Identity{mustIdentity()})
	var match *age.NoIdentityMatchError
	if !errors.As(err, &match) || errors.Is(err, ErrCorrupt) {
		t.Errorf("another identity: %v", err)
	}
	large := enclose(t, make([]byte, MaxSize))
	if _, err := Open(bytes.NewReader(large), int64(len(large)), []age.Identity{testID}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a shard above the limit: %v", err)
	}
	if _, err := Open(bytes.NewReader(text(5000)), 5000, []age.Identity{testID}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no age file: %v", err)
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add(Sum(nil).Path())
	f.Add("shards/3f/3fa9.shard")
	f.Fuzz(func(t *testing.T, p string) {
		if d, err := ParsePath(p); err == nil && d.Path() != p {
			t.Errorf("%q is read as %s", p, d.Path())
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(compress(nil, text(2000)), int64(10), int64(500))
	f.Add(compress(nil, noise(1, 300)), int64(0), int64(300))
	f.Add(append(compress(nil, text(FrameSize)), compress(nil, text(99))...), int64(0), int64(FrameSize+99))
	f.Fuzz(func(t *testing.T, plain []byte, in, length int64) {
		sealed := enclose(t, plain)
		s := Slot{Stored: int64(len(plain)), In: in, Len: length}
		data, err := open(t, sealed).Chunk(s, nil)
		if err == nil && int64(len(data)) != length || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes instead of %d: %v", len(data), length, err)
		}
	})
}
