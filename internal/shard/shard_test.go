package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
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
	return d, sealed
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
