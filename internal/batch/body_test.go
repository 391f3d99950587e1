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
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

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

// reopen seals and opens a body.
func reopen(t testing.TB, body *Body) (*Body, *Sealed) {
	t.Helper()
	s := mustSeal(t, testEnvelope(), body)
	got, err := mustParse(t, s.File).Open([]age.Identity{testIdentity}, fetchFrom(s.BodyShards))
	if err != nil {
		t.Fatal(err)
	}
	return got, s
}

// goldenLines is the body of testBody, word for word: docs/format.md shows the same keys. It may never change.
const goldenLines = `{"objects":["7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"]}
{"secret":"0909090000000000000000000000000000000000000000000000000000000000"}
{"inode":1,"mode":"40755","uid":1000,"gid":1000,"mtime":[1763892000,123456789]}
{"inode":2,"mode":"100644","uid":0,"gid":0,"mtime":[-1,999999999],"xattrs":[{"name":"user.comment","value":"naïve \"quotes\"\u000a"},{"name":"user.raw","value_b64":"/wA="}],"content":{"size":5000,"pieces":[[0,512,300,0,904,"CHUNK0"],[1,512,300,0,4096,"CHUNK1"]],"clean":true}}
{"inode":3,"mode":"120777","uid":0,"gid":0,"mtime":[0,0],"target_b64":"Y2Fm6S8uLi94"}
{"inode":4,"mode":"20600","uid":0,"gid":0,"mtime":[0,0],"rdev":[5,1]}
{"inode":5,"mode":"100600","uid":0,"gid":0,"mtime":[0,0],"content":"pending"}
{"inode":6,"mode":"100600","uid":0,"gid":0,"mtime":[0,0],"content":{"size":1099511627776,"pieces":[[0,512,300,0,10,"CHUNK2"]],"holes":[{"offset":0,"len":1099511627766}],"clean":false,"before":{"size":0,"clean":true}}}
{"parent":1,"name":"a.txt","id":2}
{"parent":1,"name_b64":"Y2Fm6Q==","id":3}
{"parent":1,"name":"new\u000aline \"quoted\" \\","id":4}
{"parent":1,"name":"` + "\u2028 🚢 \x7f" + `","id":5}
{"parent":1,"name":"gone","gone":true}
{"parent":1,"name":"big","id":6}
`

// plainLines decrypts and decompresses an inline body.
func plainLines(t testing.TB, b *Batch) string {
	t.Helper()
	plain, err := age.Decrypt(bytes.NewReader(b.body), testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := zstd.NewReader(nil)
	defer d.Close()
	lines, err := d.DecodeAll(frames, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(lines)
}

func TestGoldenLines(t *testing.T) {
	body := testBody()
	want := goldenLines
	for i, p := range []Piece{testPiece("one", 904), testPiece("two", 4096), testPiece("one", 10)} {
		want = strings.Replace(want, fmt.Sprint("CHUNK", i), p.Chunk.String(), 1)
	}
	if diff := cmp.Diff(want, plainLines(t, mustParse(t, mustSeal(t, testEnvelope(), body).File))); diff != "" {
		t.Errorf("body is written differently:\n%s", diff)
	}
}

// anyText draws file names and the like: mostly text, sometimes bytes that are none.
func anyText(most int) *rapid.Generator[string] {
	noSlash := func(s string) bool {
		return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00") && len(s) <= most
	}
	raw := rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, most), func(b []byte) string { return string(b) })
	return rapid.OneOf(rapid.StringN(1, most/4, most), raw).Filter(noSlash)
}

var anyPiece = rapid.Custom(func(t *rapid.T) Piece {
	n := rapid.Int64Range(1, chunk.Max).Draw(t, "len")
	in := int64(0)
	if n < shard.FrameSize {
		in = rapid.Int64Range(0, shard.FrameSize-n).Draw(t, "in")
	}
	stored := rapid.Int64Range(1, min(n, shard.FrameSize)).Draw(t, "stored")
	return Piece{
		Shard: shard.Sum([]byte{rapid.Byte().Draw(t, "shard")}),
		Slot: shard.Slot{
			Chunk: chunk.ID(shard.Sum([]byte{rapid.Byte().Draw(t, "chunk")})), Len: n, In: in, Stored: stored,
			Offset: rapid.Int64Range(0, shard.MaxSize-stored).Draw(t, "offset"),
		},
	}
})

func anyContent(inner bool) *rapid.Generator[*Content] {
	return rapid.Custom(func(t *rapid.T) *Content {
		c := &Content{Clean: inner || rapid.Bool().Draw(t, "clean")}
		c.Pieces = rapid.SliceOfN(anyPiece, 0, 5).Draw(t, "pieces")
		for _, p := range c.Pieces {
			c.Size += p.Len
		}
		if rapid.Bool().Draw(t, "lists") {
			c.Pieces, c.Lists = nil, c.Pieces
		}
		for range rapid.IntRange(0, 3).Draw(t, "holes") {
			h := Hole{Offset: c.Size, Len: rapid.Int64Range(1, 1<<40).Draw(t, "hole")}
			c.Size, c.Holes = h.Offset+h.Len, append(c.Holes, h)
		}
		if !c.Clean && rapid.Bool().Draw(t, "before") {
			c.Before = anyContent(true).Draw(t, "content before")
		}
		return c
	})
}

var anyInode = rapid.Custom(func(t *rapid.T) Inode {
	i := Inode{
		ID: FileID(rapid.Uint64Range(1, uint64(MaxID)).Draw(t, "id")), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		Mode:  rapid.Uint32Range(0, 0o7777).Draw(t, "mode") | rapid.SampledFrom([]uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK}).Draw(t, "kind"),
		Mtime: rapid.Int64().Draw(t, "mtime"),
	}
	for _, name := range rapid.SliceOfNDistinct(anyText(40), 0, 3, func(s string) string { return s }).Draw(t, "xattrs") {
		if i.Xattrs == nil {
			i.Xattrs = make(map[string][]byte)
		}
		i.Xattrs[name] = []byte(rapid.OneOf(anyText(40), rapid.Just("")).Draw(t, "value"))
	}
	if i.device() {
		i.Rdev = rapid.Uint64().Draw(t, "rdev")
	}
	if i.symlink() {
		i.Target = anyText(100).Draw(t, "target") + rapid.SampledFrom([]string{"", "/.."}).Draw(t, "up")
	}
	if i.regular() && rapid.Bool().Draw(t, "captured") {
		i.Content = anyContent(false).Draw(t, "content")
	}
	return i
})

var anyEntry = rapid.Custom(func(t *rapid.T) Entry {
	return Entry{
		Parent: FileID(rapid.Uint64Range(1, uint64(MaxID)).Draw(t, "parent")), Name: anyText(255).Draw(t, "name"),
		ID: FileID(rapid.Uint64Range(0, uint64(MaxID)).Draw(t, "id")),
	}
})

func TestBodyRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		body := &Body{
			Inodes:  rapid.SliceOfN(anyInode, 0, 6).Draw(rt, "inodes"),
			Entries: rapid.SliceOfN(anyEntry, 0, 6).Draw(rt, "entries"),
		}
		if rapid.Bool().Draw(rt, "full") {
			body.Secret = &chunk.Secret{rapid.Byte().Draw(rt, "secret")}
		}
		got, _ := reopen(t, body)
		if diff := cmp.Diff(body, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("body changed:\n%s", diff)
		}
	})
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

// What a writer may not say, a reader does not take.
func TestRecordRules(t *testing.T) {
	regular := func(c Content) Body { return Body{Inodes: []Inode{{ID: 2, Mode: 0o100644, Content: &c}}} }
	entry := func(name string) Body { return Body{Entries: []Entry{{Parent: 1, Name: name, ID: 2}}} }
	inode := func(i Inode) Body { return Body{Inodes: []Inode{i}} }
	p := testPiece("one", 100)
	bad := p
	bad.Stored = 1 << 40
	const huge = 1<<63 - 1
	for name, body := range map[string]Body{
		"no name":                            entry(""),
		"dot":                                entry("."),
		"dot dot":                            entry(".."),
		"slash":                              entry("a/b"),
		"absolute":                           entry("/etc/passwd"),
		"NUL":                                entry("a\x00b"),
		"long name":                          entry(strings.Repeat("x", 1025)),
		"no parent":                          {Entries: []Entry{{Name: "a", ID: 2}}},
		"huge id":                            {Entries: []Entry{{Parent: 1, Name: "a", ID: MaxID + 1}}},
		"huge parent":                        {Entries: []Entry{{Parent: MaxID + 1, Name: "a"}}},
		"no inode":                           inode(Inode{Mode: 0o100644}),
		"huge inode":                         inode(Inode{ID: MaxID + 1, Mode: 0o100644}),
		"no kind":                            inode(Inode{ID: 2, Mode: 0o644}),
		"unknown kind":                       inode(Inode{ID: 2, Mode: 0o170644}),
		"mode above":                         inode(Inode{ID: 2, Mode: 0o1100644}),
		"link without target":                inode(Inode{ID: 2, Mode: 0o120777}),
		"unwritable: file with target":       inode(Inode{ID: 2, Mode: 0o100644, Target: "x"}),
		"target with NUL":                    inode(Inode{ID: 2, Mode: 0o120777, Target: "a\x00"}),
		"long target":                        inode(Inode{ID: 2, Mode: 0o120777, Target: strings.Repeat("x", 4097)}),
		"unwritable: directory with content": inode(Inode{ID: 2, Mode: 0o40755, Content: &Content{Clean: true}}),
		"attribute without name":             inode(Inode{ID: 2, Mode: 0o40755, Xattrs: map[string][]byte{"": nil}}),
		"attribute with NUL":                 inode(Inode{ID: 2, Mode: 0o40755, Xattrs: map[string][]byte{"user.\x00": nil}}),
		"huge attribute":                     inode(Inode{ID: 2, Mode: 0o40755, Xattrs: map[string][]byte{"user.a": make([]byte, 64<<10+1)}}),
		"negative size":                      regular(Content{Size: -1}),
		"pieces are less":                    regular(Content{Size: 101, Pieces: []Piece{p}}),
		"pieces are more":                    regular(Content{Size: 99, Pieces: []Piece{p}}),
		"no pieces":                          regular(Content{Size: 1}),
		"bad slot":                           regular(Content{Size: 100, Pieces: []Piece{bad}}),
		"bad slot in list":                   regular(Content{Size: 100, Lists: []Piece{bad}}),
		"pieces and lists":                   regular(Content{Size: 100, Pieces: []Piece{p}, Lists: []Piece{p}}),
		"many pieces":                        regular(Content{Size: 25700, Pieces: slices.Repeat([]Piece{p}, 257)}),
		"hole outside":                       regular(Content{Size: 100, Holes: []Hole{{0, 101}}}),
		"hole behind":                        regular(Content{Size: 100, Holes: []Hole{{100, 1}}}),
		"empty hole":                         regular(Content{Size: 100, Pieces: []Piece{p}, Holes: []Hole{{0, 0}}}),
		"negative hole":                      regular(Content{Size: 100, Holes: []Hole{{-1, 100}}}),
		"hole of negative size":              regular(Content{Size: 0, Pieces: []Piece{p}, Holes: []Hole{{0, -100}}}),
		"holes overlap":                      regular(Content{Size: 100, Holes: []Hole{{0, 60}, {50, 50}}}),
		"holes overflow":                     regular(Content{Size: huge, Holes: []Hole{{0, huge}, {huge, 2}}}),
		"clean with before":                  regular(Content{Clean: true, Before: &Content{Clean: true}}),
		"before is not clean":                regular(Content{Before: &Content{}}),
		"before of before":                   regular(Content{Before: &Content{Clean: true, Before: &Content{Clean: true}}}),
		"before is wrong":                    regular(Content{Before: &Content{Clean: true, Size: 1}}),
	} {
		if _, err := Seal(testEnvelope(), &body, []age.Recipient{testIdentity.Recipient()}, testSigner); !errors.Is(err, errRecord) {
			t.Errorf("%s is sealed: %v", name, err)
		}
		if strings.HasPrefix(name, "unwritable") {
			continue
		}
		lines := appendObjects(nil, []shard.Digest{p.Shard})
		for i := range body.Inodes {
			lines = appendInode(lines, &body.Inodes[i], func(shard.Digest) uint32 { return 0 })
		}
		for i := range body.Entries {
			lines = appendEntry(lines, &body.Entries[i])
		}
		if err := readLines(bytes.NewReader(lines), discard()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s is read: %v", name, err)
		}
	}
}

func discard() sink {
	return sink{inode: func(*Inode) error { return nil }, entry: func(*Entry) error { return nil }, secret: func(chunk.Secret) error { return nil }}
}

// A record has one spelling. Most of these decode without complaint in encoding/json.
func TestSpellings(t *testing.T) {
	id := testPiece("one", 100).Chunk.String()
	objects := `{"objects":["` + shard.Sum([]byte("one")).String() + `"]}` + "\n"
	file := func(content string) string {
		return objects + `{"inode":2,"mode":"100644","uid":0,"gid":0,"mtime":[0,0],"content":` + content + "}\n"
	}
	good := file(`{"size":100,"pieces":[[0,512,300,0,100,"`+id+`"]],"clean":true}`) + `{"parent":1,"name":"a","id":2}` + "\n"
	if err := readLines(strings.NewReader(good), discard()); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                 "",
		"blank line":              "\n",
		"no newline":              strings.TrimSuffix(objects, "\n"),
		"objects not first":       `{"parent":1,"name":"a","id":2}` + "\n" + objects,
		"objects null":            `{"objects":null}` + "\n",
		"object twice":            objects + objects,
		"object short":            `{"objects":["3f"]}` + "\n",
		"object in capitals":      strings.ToUpper(objects),
		"unknown key":             objects + `{"parent":1,"name":"a","id":2,"extra":1}` + "\n",
		"key twice":               objects + `{"parent":1,"name":"b","name":"a","id":2}` + "\n",
		"key in capitals":         objects + `{"parent":1,"NAME":"a","id":2}` + "\n",
		"keys in another order":   objects + `{"name":"a","parent":1,"id":2}` + "\n",
		"space":                   objects + `{"parent": 1,"name":"a","id":2}` + "\n",
		"carriage return":         objects + `{"parent":1,"name":"a","id":2}` + "\r\n",
		"two records":             objects + `{"parent":1,"name":"a","id":2}{"parent":1,"name":"b","id":2}` + "\n",
		"exponent":                objects + `{"parent":1e0,"name":"a","id":2}` + "\n",
		"negative":                objects + `{"parent":-1,"name":"a","id":2}` + "\n",
		"gone with id":            objects + `{"parent":1,"name":"a","id":2,"gone":true}` + "\n",
		"neither":                 objects + `{"parent":1,"name":"a"}` + "\n",
		"id zero":                 objects + `{"parent":1,"name":"a","id":0}` + "\n",
		"lone surrogate":          objects + `{"parent":1,"name":"\ud800","id":2}` + "\n",
		"bad UTF-8":               objects + "{\"parent\":1,\"name\":\"caf\xe9\",\"id\":2}\n",
		"escaped letter":          objects + `{"parent":1,"name":"\u0061","id":2}` + "\n",
		"base64 of text":          objects + `{"parent":1,"name_b64":"YQ==","id":2}` + "\n",
		"name in both":            objects + `{"parent":1,"name":"a","name_b64":"6Q==","id":2}` + "\n",
		"base64 unpadded":         objects + `{"parent":1,"name_b64":"6Q","id":2}` + "\n",
		"base64 with spare bits":  objects + `{"parent":1,"name_b64":"6R==","id":2}` + "\n",
		"slash by base64":         objects + `{"parent":1,"name_b64":"Ly/p","id":2}` + "\n",
		"not an object":           objects + "[]\n",
		"null":                    objects + "null\n",
		"text":                    objects + "hello\n",
		"secret short":            objects + `{"secret":"00"}` + "\n",
		"inode and entry":         objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"parent":1,"name":"a","id":2}` + "\n",
		"mode as a number":        objects + `{"inode":2,"mode":16877,"uid":0,"gid":0,"mtime":[0,0]}` + "\n",
		"mode with a zero":        objects + `{"inode":2,"mode":"040755","uid":0,"gid":0,"mtime":[0,0]}` + "\n",
		"mtime not normal":        objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,1000000000]}` + "\n",
		"mtime overflows":         objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[9223372037,0]}` + "\n",
		"mtime of three":          objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0,0]}` + "\n",
		"uid too large":           objects + `{"inode":2,"mode":"40755","uid":4294967296,"gid":0,"mtime":[0,0]}` + "\n",
		"no content":              objects + `{"inode":2,"mode":"100644","uid":0,"gid":0,"mtime":[0,0]}` + "\n",
		"content null":            file(`null`),
		"content of a directory":  objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"content":"pending"}` + "\n",
		"target of a file":        objects + `{"inode":2,"mode":"100644","uid":0,"gid":0,"mtime":[0,0],"target":"x","content":"pending"}` + "\n",
		"another word":            file(`"sealed"`),
		"object out of range":     file(`{"size":100,"pieces":[[1,512,300,0,100,"` + id + `"]],"clean":true}`),
		"object negative":         file(`{"size":100,"pieces":[[-1,512,300,0,100,"` + id + `"]],"clean":true}`),
		"object huge":             file(`{"size":100,"pieces":[[4294967296,512,300,0,100,"` + id + `"]],"clean":true}`),
		"number of 20 digits":     file(`{"size":100,"pieces":[[0,18446744073709551615,300,0,100,"` + id + `"]],"clean":true}`),
		"piece too short":         file(`{"size":100,"pieces":[[0,512,300,100,"` + id + `"]],"clean":true}`),
		"piece without id":        file(`{"size":100,"pieces":[[0,512,300,0,100]],"clean":true}`),
		"piece with a plus":       file(`{"size":100,"pieces":[[0,+512,300,0,100,"` + id + `"]],"clean":true}`),
		"piece with zeros":        file(`{"size":100,"pieces":[[0,0512,300,0,100,"` + id + `"]],"clean":true}`),
		"no pieces":               file(`{"size":0,"pieces":[],"clean":true}`),
		"pieces not a list":       file(`{"size":0,"pieces":{},"clean":true}`),
		"pieces with a comma":     file(`{"size":100,"pieces":[[0,512,300,0,100,"` + id + `"],],"clean":true}`),
		"attributes not in order": objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"xattrs":[{"name":"user.b","value":""},{"name":"user.a","value":""}]}` + "\n",
		"attribute twice":         objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"xattrs":[{"name":"user.a","value":"x"},{"name":"user.a","value":""}]}` + "\n",
		"attributes not a list":   objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"xattrs":7}` + "\n",
		"many attributes":         objects + `{"inode":2,"mode":"40755","uid":0,"gid":0,"mtime":[0,0],"xattrs":[` + strings.Repeat("{},", 100_000) + "{}]}\n",
		"deep":                    objects + file(strings.Repeat(`{"before":`, 20_000)+"0"+strings.Repeat("}", 20_000)),
	} {
		err := readLines(strings.NewReader(text), discard())
		if !errors.Is(err, ErrCorrupt) || name == "many attributes" && !errors.Is(err, errXattrs) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sealPart makes a part over any lines, as somebody can who knows the recipients.
func sealPart(t testing.TB, compressed []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, testIdentity.Recipient())
	if err == nil {
		_, err = w.Write(compressed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Bodies that would decompress to gigabytes end at the limits of a line or of a part.
func TestBombs(t *testing.T) {
	repeat := func(unit []byte, times int, opts ...zstd.EOption) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		for range times {
			_, _ = w.Write(unit)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	mib := func(s string) []byte { return bytes.Repeat([]byte(s), 1<<20/len(s)) }
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"one line":       {repeat(make([]byte, 1<<20), 200), errLongLine},
		"many lines":     {repeat(mib(`{"objects":[]}`+"\n"), 100), errLongPart},
		"wide window":    {repeat(mib("x"), 200, zstd.WithWindowSize(128<<20)), zstd.ErrWindowSizeExceeded},
		"not compressed": {[]byte(goldenLines), zstd.ErrMagicMismatch},
		"empty":          {nil, errNoLine},
	} {
		if err := readPart(bytes.NewReader(sealPart(t, c.body)), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readPart(strings.NewReader("hello"), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("not encrypted: %v", err)
	}
	cut := sealPart(t, repeat([]byte(`{"objects":[]}`+"\n"), 1))
	if err := readPart(bytes.NewReader(cut[:len(cut)-1]), []age.Identity{testIdentity}, discard()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut: %v", err)
	}
}

func FuzzBody(f *testing.F) {
	s := mustSeal(f, testEnvelope(), testBody())
	f.Add([]byte(plainLines(f, mustParse(f, s.File))))
	f.Add([]byte(`{"objects":[]}` + "\n" + `{"parent":1,"name":"a","gone":true}` + "\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		body := &Body{}
		to := sink{
			inode:  func(i *Inode) error { body.Inodes = append(body.Inodes, *i); return nil },
			entry:  func(e *Entry) error { body.Entries = append(body.Entries, *e); return nil },
			secret: func(s chunk.Secret) error { body.Secret = &s; return nil },
		}
		if err := readLines(bytes.NewReader(lines), to); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		again, _ := reopen(t, body)
		if diff := cmp.Diff(body, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("what was read is sealed as something else:\n%s", diff)
		}
	})
}

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
