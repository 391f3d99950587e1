package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// goldenWriter makes the golden store. It is kept to show where the files come from; running it again gives other files,
// because age is randomised, and is refused where some are.
type goldenWriter struct {
	t       *testing.T
	dir     string // of the volume
	id      *age.X25519Identity
	other   *age.X25519Identity
	keys    chunk.Keys
	builder *shard.Builder
	fills   []func(shard.Digest) // tell pieces their shard, once it is sealed
	env     Envelope
	readme  *Content // of batch 1
}

func writeGolden(t *testing.T, dir string) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("golden files are written once: %v", err)
	}
	secret := chunk.Secret(sha256.Sum256([]byte("golden")))
	w := &goldenWriter{t: t, dir: filepath.Join(dir, "store/projects"), id: mustIdentity(), other: mustIdentity(), keys: chunk.DeriveKeys(secret)}
	w.env = Envelope{
		VolumeID: VolumeID(bytes.Repeat([]byte{0x5e}, 16)), Volume: "projects", Node: "alpha", Epoch: 1, First: 1, Last: 1, Base: 1,
		SealedAt: time.Date(2026, 11, 23, 10, 0, 0, 1, time.UTC), Why: "adoption",
		Peers: []Peer{{Name: "bravo", Key: signerLine(otherSigner)}}, NextKeys: []string{signerLine(testSigner), signerLine(otherSigner)},
	}
	owner := signerLine(testSigner)
	w.write("../../identity.txt", fmt.Appendf(nil, "# created: 2026-11-23T10:00:00Z\n# public key: %s\n# owner alpha %s\n%s\n", w.id.Recipient(), owner, w.id))
	w.write("../../allowed_signers", []byte("alpha "+owner+"\n"))
	w.write("volume.json", fmt.Appendf(nil, `{"format":1,"volume":"projects","volume_id":"%s"}`+"\n", w.env.VolumeID))
	w.first(secret)
	w.second()
	w.third()
	w.fourth(secret)
	g := openGolden(t, w.dir)
	var trees [][]treeFile
	var prev *Digest
	for n := range w.env.First - 1 {
		prev = g.apply(n+1, prev)
		trees = append(trees, g.tree())
	}
	text, err := json.MarshalIndent(trees, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	w.write("../../tree.json", append(text, '\n'))
}

func (w *goldenWriter) write(name string, data []byte) {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// store adds one chunk to the open shard.
func (w *goldenWriter) store(p *Piece, data []byte) {
	if w.builder == nil {
		var err error
		if w.builder, err = shard.NewBuilder([]age.Recipient{w.id.Recipient(), w.other.Recipient()}, w.keys); err != nil {
			w.t.Fatal(err)
		}
	}
	slot, err := w.builder.Add(w.keys.ID(data), data)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fills = append(w.fills, func(d shard.Digest) { *p = Piece{Shard: d, Slot: *slot} })
}

// content cuts data into chunks as the spooler does.
func (w *goldenWriter) content(data []byte, holes ...Hole) *Content {
	c := &Content{Size: int64(len(data)), Clean: true, Holes: holes, Pieces: make([]Piece, 0, 16)}
	for _, h := range holes {
		c.Size += h.Len
	}
	cutter, err := w.keys.NewCutter(bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cutter.Close()
	for {
		part, err := cutter.Next()
		if err != nil {
			return c
		}
		c.Pieces = append(c.Pieces, Piece{})
		w.store(&c.Pieces[len(c.Pieces)-1], part)
	}
}

// sealShard publishes the open shard.
func (w *goldenWriter) sealShard() {
	digest, sealed, err := w.builder.Seal()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, fill := range w.fills {
		fill(digest)
	}
	w.fills = nil
	w.write(digest.Path(), sealed)
	w.env.Introduces = append(w.env.Introduces, Object{Digest: digest, Size: int64(len(sealed))})
}

// seal publishes a batch and prepares the next envelope.
func (w *goldenWriter) seal(body *Body, seal func(Envelope, *Body) *Sealed) {
	s := seal(w.env, body)
	w.write(Path(1, w.env.First, w.env.Last), s.File)
	for d, data := range s.BodyShards {
		w.write(d.Path(), data)
	}
	w.env.Prev = &s.Digest
	w.env.First++
	w.env.Last++
	w.env.SealedAt = w.env.SealedAt.Add(time.Second)
	w.env.Introduces, w.env.Abandons = nil, nil
	w.env.Complete, w.env.Why, w.env.Counts = true, "", Counts{}
}

func (w *goldenWriter) plainSeal(env Envelope, body *Body) *Sealed {
	s, err := Seal(env, body, []age.Recipient{w.id.Recipient(), w.other.Recipient()}, testSigner)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

const goldenTime = 1763892000_123456789

// regular, with a time of its own.
func regular(id FileID, c *Content) Inode {
	return Inode{ID: id, Mode: 0o100644, UID: 1000, GID: 1000, Mtime: goldenTime + int64(id), Content: c}
}

// first: the beginning of an adoption, two small files in one frame.
func (w *goldenWriter) first(secret chunk.Secret) {
	hello := regular(2, w.content([]byte("hello from slipway\n")))
	readme := regular(3, w.content([]byte(strings.Repeat("Every change is sealed, pushed and shipped.\n", 40))))
	w.sealShard()
	w.readme = readme.Content
	w.env.Counts = Counts{Files: 2, Bytes: hello.Content.Size + readme.Content.Size}
	w.seal(&Body{Secret: &secret, Inodes: []Inode{{ID: Root, Mode: 0o40755, UID: 1000, GID: 1000, Mtime: goldenTime}, hello, readme},
		Entries: []Entry{{Parent: Root, Name: "hello.txt", ID: 2}, {Parent: Root, Name: "README", ID: 3}}}, w.plainSeal)
}

// second: every kind of file and name, a file of several chunks, one with holes, one with lists.
func (w *goldenWriter) second() {
	var lines bytes.Buffer
	for i := range 70_000 {
		fmt.Fprintf(&lines, "%d squared is %d\n", i, i*i)
	}
	big := regular(10, w.content(lines.Bytes()))
	sparse := regular(11, w.content([]byte("head and tail"), Hole{4, 1 << 20}, Hole{4 + 1<<20 + 5, 4096}))
	w.sealShard()
	pieces := make([]Piece, 700)
	for i := range pieces {
		w.store(&pieces[i], fmt.Appendf(nil, "piece %d of a file with more pieces than an inode names\n", i))
	}
	w.sealShard()
	listed := regular(12, &Content{Clean: true, Lists: make([]Piece, 0, 16)})
	for _, p := range pieces {
		listed.Content.Size += p.Len
	}
	for _, l := range CutLists(pieces) {
		listed.Content.Lists = append(listed.Content.Lists, Piece{})
		w.store(&listed.Content.Lists[len(listed.Content.Lists)-1], l)
	}
	w.sealShard()
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, 0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff}
	attrs := regular(13, &Content{Clean: true})
	attrs.Xattrs = map[string][]byte{"user.comment": []byte("naïve “text”\n"), "user.raw": {0, 0xff}, "system.posix_acl_access": acl}
	attrs.Mode, attrs.UID, attrs.Mtime = 0o104750, 4294967294, -1
	w.env.Counts = Counts{Files: 5, Bytes: big.Content.Size}
	w.seal(&Body{Inodes: []Inode{
		{ID: 4, Mode: 0o42775, UID: 1000, GID: 50, Mtime: goldenTime}, big, sparse, listed, attrs,
		{ID: 14, Mode: 0o120777, Target: "../hello.txt"}, {ID: 15, Mode: 0o120777, Target: "caf\xe9"}, {ID: 16, Mode: 0o10600}, {ID: 17, Mode: 0o140755},
		{ID: 18, Mode: 0o20600, Rdev: unix.Mkdev(1, 3)}, {ID: 19, Mode: 0o60640, Rdev: unix.Mkdev(259, 70_000)}, {ID: 20, Mode: 0o41777}, regular(21, &Content{Clean: true}),
	}, Entries: []Entry{
		{Parent: Root, Name: "all kinds", ID: 4}, {Parent: 4, Name: "squares.txt", ID: 10}, {Parent: 4, Name: "sparse", ID: 11}, {Parent: 4, Name: "listed", ID: 12},
		{Parent: 4, Name: "attributes", ID: 13}, {Parent: 4, Name: "link", ID: 14}, {Parent: 4, Name: "link to latin-1", ID: 15}, {Parent: 4, Name: "fifo", ID: 16},
		{Parent: 4, Name: "socket", ID: 17}, {Parent: 4, Name: "null", ID: 18}, {Parent: 4, Name: "disk", ID: 19}, {Parent: 4, Name: "empty directory", ID: 20},
		{Parent: 4, Name: "caf\xe9", ID: 21}, {Parent: 4, Name: "new\nline, \"quotes\" and \\", ID: 21}, {Parent: 4, Name: "🚢 \u2028 ünï", ID: 21}, {Parent: 4, Name: strings.Repeat("x", 255), ID: 2},
	}}, w.plainSeal)
}

// third: a removal, a rename, a rewrite, content that was moving and content that is still to come.
func (w *goldenWriter) third() {
	rewritten := regular(2, w.content([]byte("hello again\n")))
	moving := regular(3, w.content([]byte("half a sentence, caught while")))
	w.sealShard()
	moving.Content.Clean = false
	moving.Content.Before = w.readme
	w.env.Abandons = []Object{{Digest: shard.Sum([]byte("sealed, never named")), Size: 1234}}
	w.env.Counts = Counts{Files: 2, Bytes: rewritten.Content.Size + moving.Content.Size, Removals: 2}
	w.seal(&Body{Inodes: []Inode{rewritten, moving, regular(22, nil)}, Entries: []Entry{
		{Parent: Root, Name: "all kinds"}, {Parent: Root, Name: "everything", ID: 4}, {Parent: 4, Name: "sparse"}, {Parent: 4, Name: "to come", ID: 22},
	}}, w.plainSeal)
}

// fourth: the whole tree again, its body in two shards as if it were large.
func (w *goldenWriter) fourth(secret chunk.Secret) {
	g := openGolden(w.t, w.dir)
	var prev *Digest
	for n := range w.env.First - 1 {
		prev = g.apply(n+1, prev)
	}
	body := &Body{Secret: &secret}
	delete(g.inodes, 11)
	for _, id := range sortedIDs(g.inodes) {
		body.Inodes = append(body.Inodes, *g.inodes[id])
		names := g.entries[id]
		for _, name := range sortedNames(names) {
			body.Entries = append(body.Entries, Entry{Parent: id, Name: name, ID: names[name]})
		}
	}
	w.env.Full = true
	w.seal(body, func(env Envelope, body *Body) *Sealed {
		pw := newPartWriter([]age.Recipient{w.id.Recipient(), w.other.Recipient()})
		half := len(body.Inodes) / 2
		var parts [][]byte
		for _, b := range []*Body{{Secret: body.Secret, Inodes: body.Inodes[:half]}, {Inodes: body.Inodes[half:], Entries: body.Entries}} {
			var err error
			if parts, err = pw.write(b); err != nil {
				w.t.Fatal(err)
			}
		}
		s, err := finish(env, parts, testSigner)
		if err != nil {
			w.t.Fatal(err)
		}
		return s
	})
}

func sortedIDs(m map[FileID]*Inode) []FileID {
	var list []FileID
	for id := range m {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

func sortedNames(m map[string]FileID) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
