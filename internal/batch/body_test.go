package batch

import (
	"bytes"
	"fmt"
	"io"
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
