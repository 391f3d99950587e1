package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// The golden store of version 1: written once, by golden_write_test.go, and read for ever. It holds a volume of four batches,
// the identity that reads it and, in tree.json, what the tree was after each batch.
const goldenDir = "../../e2e/golden/v1"

var update = flag.Bool("update", false, "write e2e/golden/v1 where it is not there, and the outputs in docs/format.md")

// treeFile is one name of the expected tree. A hard link has the inode number of its other name.
type treeFile struct {
	Path   string            `json:"path"` // quoted as Go does where it is not UTF-8
	Inode  FileID            `json:"inode"`
	Mode   string            `json:"mode"`
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Rdev   uint64            `json:"rdev,omitempty"`
	Mtime  int64             `json:"mtime"`
	Target string            `json:"target,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"` // values in hex
	State  string            `json:"state,omitempty"`  // of a regular file: clean, moving, pending
	Size   int64             `json:"size,omitempty"`
	Holes  []Hole            `json:"holes,omitempty"`
	SHA256 string            `json:"sha256,omitempty"` // of its data, holes as zeros; moving: of the clean content before
}

// goldenStore reads a volume's directory as any reader would: batches in order, shards by their digests.
type goldenStore struct {
	t       testing.TB
	dir     string
	ids     []age.Identity
	owner   string
	keys    *chunk.Keys
	inodes  map[FileID]*Inode
	entries map[FileID]map[string]FileID
}

func (g *goldenStore) read(name string) []byte {
	g.t.Helper()
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return data
}

// apply reads one batch and puts its states over the tree.
func (g *goldenStore) apply(n Seq, prev *Digest) *Digest {
	t := g.t
	t.Helper()
	b := mustParse(t, g.read(Path(1, n, n)))
	if err := b.Verify([]string{g.owner}); err != nil {
		t.Fatal(err)
	}
	if b.Envelope.First != n || fmt.Sprint(b.Envelope.Prev) != fmt.Sprint(prev) {
		t.Fatalf("batch %d is %d and follows %s, not %s", n, b.Envelope.First, b.Envelope.Prev, prev)
	}
	for _, o := range b.Envelope.Introduces {
		if data := g.read(o.Digest.Path()); shard.Sum(data) != o.Digest || int64(len(data)) != o.Size {
			t.Fatalf("shard %s is damaged", o.Digest)
		}
	}
	shards := make(map[shard.Digest][]byte)
	for _, o := range b.Envelope.BodyShards {
		shards[o.Digest] = g.read(o.Digest.Path())
	}
	body, err := b.Open(g.ids, fetchFrom(shards))
	if err != nil {
		t.Fatal(err)
	}
	if body.Secret != nil {
		keys := chunk.DeriveKeys(*body.Secret)
		g.keys = &keys
	}
	for _, i := range body.Inodes {
		g.inodes[i.ID] = &i
	}
	for _, e := range body.Entries {
		if g.entries[e.Parent] == nil {
			g.entries[e.Parent] = make(map[string]FileID)
		}
		g.entries[e.Parent][e.Name] = e.ID
		if e.ID == 0 {
			delete(g.entries[e.Parent], e.Name)
		}
	}
	return &b.Digest
}

// chunkBytes reads a piece out of its shard.
func (g *goldenStore) chunkBytes(p Piece) []byte {
	g.t.Helper()
	sealed := g.read(p.Shard.Path())
	r, err := shard.Open(bytes.NewReader(sealed), int64(len(sealed)), g.ids)
	if err != nil {
		g.t.Fatal(err)
	}
	data, err := r.Chunk(p.Slot, g.keys)
	if err != nil {
		g.t.Fatal(err)
	}
	return data
}

// content returns a file's bytes, holes as zeros.
func (g *goldenStore) content(c *Content) []byte {
	g.t.Helper()
	pieces := slices.Clone(c.Pieces)
	for _, l := range c.Lists {
		list, err := DecodeList(g.chunkBytes(l))
		if err != nil {
			g.t.Fatal(err)
		}
		pieces = append(pieces, list...)
	}
	var data []byte
	for _, p := range pieces {
		data = append(data, g.chunkBytes(p)...)
	}
	whole := make([]byte, 0, c.Size)
	for _, h := range c.Holes {
		n := h.Offset - int64(len(whole))
		whole = append(append(whole, data[:n]...), make([]byte, h.Len)...)
		data = data[n:]
	}
	whole = append(whole, data...)
	if int64(len(whole)) != c.Size {
		g.t.Fatalf("content of %d bytes, not %d", len(whole), c.Size)
	}
	return whole
}

// tree lists the tree as it is now, in order of paths.
func (g *goldenStore) tree() []treeFile {
	var list []treeFile
	var walk func(dir FileID, path string)
	walk = func(dir FileID, path string) {
		list = append(list, g.file(g.inodes[dir], path))
		for _, name := range slices.Sorted(maps.Keys(g.entries[dir])) {
			id := g.entries[dir][name]
			if i := g.inodes[id]; i.kind() == 0o40000 {
				walk(id, path+name+"/")
			} else {
				list = append(list, g.file(i, path+name))
			}
		}
	}
	walk(Root, "/")
	return list
}

func (g *goldenStore) file(i *Inode, path string) treeFile {
	f := treeFile{
		Path: strings.Trim(fmt.Sprintf("%q", path), `"`), Inode: i.ID, Mode: fmt.Sprintf("%o", i.Mode), UID: i.UID, GID: i.GID,
		Rdev: i.Rdev, Mtime: i.Mtime, Target: strings.Trim(fmt.Sprintf("%q", i.Target), `"`),
	}
	for name, value := range i.Xattrs {
		if f.Xattrs == nil {
			f.Xattrs = make(map[string]string)
		}
		f.Xattrs[name] = hex.EncodeToString(value)
	}
	if !i.regular() {
		return f
	}
	c := i.Content
	if c == nil {
		f.State = "pending"
		return f
	}
	f.State = "clean"
	if !c.Clean {
		f.State, c = "moving", c.Before
	}
	sum := sha256.Sum256(g.content(c))
	f.Size, f.Holes, f.SHA256 = c.Size, c.Holes, hex.EncodeToString(sum[:])
	return f
}

func openGolden(t testing.TB, dir string) *goldenStore {
	t.Helper()
	g := &goldenStore{t: t, dir: dir, inodes: make(map[FileID]*Inode), entries: make(map[FileID]map[string]FileID)}
	identity := string(g.read("../../identity.txt"))
	ids, err := age.ParseIdentities(strings.NewReader(identity))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(identity) {
		if owner, ok := strings.CutPrefix(line, "# owner alpha "); ok {
			g.owner = strings.TrimSuffix(owner, "\n")
		}
	}
	g.ids, g.dir = ids, dir
	return g
}

// Files written by version 1 are read for ever.
func TestGoldenStore(t *testing.T) {
	if _, err := os.Stat(goldenDir); *update && errors.Is(err, fs.ErrNotExist) {
		writeGolden(t, goldenDir)
	}
	var want [][]treeFile
	data, err := os.ReadFile(filepath.Join(goldenDir, "tree.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	g := openGolden(t, filepath.Join(goldenDir, "store/projects"))
	var prev *Digest
	for n := range want {
		prev = g.apply(Seq(n+1), prev)
		if diff := cmp.Diff(want[n], g.tree()); diff != "" {
			t.Errorf("tree after batch %d:\n%s", n+1, diff)
		}
	}
	if len(want) != 4 {
		t.Errorf("%d trees", len(want))
	}
}
