package batch

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

var (
	testIdentity = mustIdentity()
	testSigner   = mustSigner(1)
	otherSigner  = mustSigner(2)
)

func mustIdentity() *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return id
}

func mustSigner(seed byte) ssh.Signer {
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	return s
}

func signerLine(s ssh.Signer) string { return keyLine(s.PublicKey()) }

// testEnvelope is the envelope of batch 42, as a spooler fills it in.
func testEnvelope() Envelope {
	prev := Digest(shard.Sum([]byte("batch 41")))
	return Envelope{
		VolumeID: VolumeID{1, 2, 3}, Volume: "projects", Node: "alpha", Epoch: 1, First: 42, Last: 42, Prev: &prev, Base: 1,
		SealedAt: time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC),
		Peers:    []Peer{{Name: "bravo", Key: signerLine(otherSigner)}, {Name: "charlie"}},
		NextKeys: []string{signerLine(testSigner), signerLine(otherSigner)},
		Introduces: []Object{
			{Digest: shard.Sum([]byte("one")), Size: 1000}, {Digest: shard.Sum([]byte("two")), Size: shard.MaxSize},
		},
		Abandons: []Object{{Digest: shard.Sum([]byte("three")), Size: 7}},
		Counts:   Counts{Files: 3, Bytes: 4096, Removals: 1},
		Complete: true,
	}
}

// testPiece is a piece of n bytes in shard s.
func testPiece(s string, n int64) Piece {
	return Piece{Shard: shard.Sum([]byte(s)), Slot: shard.Slot{Chunk: chunk.ID(shard.Sum([]byte(fmt.Sprint("chunk", s, n)))), Offset: 512, Stored: 300, Len: n}}
}

func testBody() *Body {
	return &Body{
		Secret: &chunk.Secret{9, 9, 9},
		Inodes: []Inode{
			{ID: Root, Mode: 0o40755, UID: 1000, GID: 1000, Mtime: 1763892000123456789},
			{ID: 2, Mode: 0o100644, Mtime: -1, Xattrs: map[string][]byte{"user.comment": []byte("naïve \"quotes\"\n"), "user.raw": {0xff, 0}},
				Content: &Content{Size: 5000, Pieces: []Piece{testPiece("one", 904), testPiece("two", 0x1000)}, Clean: true}},
			{ID: 3, Mode: 0o120777, Target: "caf\xe9/../x"},
			{ID: 4, Mode: 0o20600, Rdev: 0x501},
			{ID: 5, Mode: 0o100600},
			{ID: 6, Mode: 0o100600, Content: &Content{Size: 1 << 40, Holes: []Hole{{0, 1<<40 - 10}}, Pieces: []Piece{testPiece("one", 10)},
				Before: &Content{Clean: true}}},
		},
		Entries: []Entry{
			{Parent: Root, Name: "a.txt", ID: 2}, {Parent: Root, Name: "caf\xe9", ID: 3}, {Parent: Root, Name: "new\nline \"quoted\" \\", ID: 4},
			{Parent: Root, Name: "\u2028 🚢 \x7f", ID: 5}, {Parent: Root, Name: "gone"}, {Parent: Root, Name: "big", ID: 6},
		},
	}
}

func mustSeal(t testing.TB, env Envelope, body *Body) *Sealed {
	t.Helper()
	s, err := Seal(env, body, []age.Recipient{testIdentity.Recipient()}, testSigner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustParse(t testing.TB, file []byte) *Batch {
	t.Helper()
	b, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPaths(t *testing.T) {
	const want = "batches/00000007/00000012/000000123456-000000123457.batch"
	if p := Path(7, 123456, 123457); p != want {
		t.Errorf("path %s", p)
	}
	e, first, last, err := ParsePath(want)
	if err != nil || e != 7 || first != 123456 || last != 123457 {
		t.Errorf("%d %d %d: %v", e, first, last, err)
	}
	for _, bad := range []string{
		"", want + "x", want[1:], "/" + want, strings.ToUpper(want), strings.Replace(want, "00000012/", "00000013/", 1),
		strings.Replace(want, "000000123457", "000000123455", 1), strings.Replace(want, "00000007", "00000000", 1), strings.Replace(want, "00000007", "+0000007", 1),
		strings.Replace(want, "00000007", "0x000007", 1), strings.Replace(want, "00000007", "4294967296", 1), strings.Repeat("9", len(want)),
		"batches/00000007/00000000/000000000000-000000000001.batch", strings.Replace(want, ".batch", ".BATCH", 1), strings.Replace(want, "-", "/", 1),
	} {
		if e, first, last, err := ParsePath(bad); !errors.Is(err, errPath) || e != 0 || first != 0 || last != 0 {
			t.Errorf("%.100q is read as %d %d %d: %v", bad, e, first, last, err)
		}
	}
}

func TestIDTexts(t *testing.T) {
	id, d := NewVolumeID(), Digest(shard.Sum(nil))
	if id == NewVolumeID() || id == (VolumeID{}) {
		t.Error("volume ids are not random")
	}
	text, err := json.Marshal(map[VolumeID]Digest{id: d})
	if err != nil || string(text) != fmt.Sprintf(`{"%s":"%s"}`, id, d) {
		t.Errorf("%s: %v", text, err)
	}
	var back map[VolumeID]Digest
	if err := json.Unmarshal(text, &back); err != nil || back[id] != d {
		t.Errorf("%v: %v", back, err)
	}
	if again, err := ParseVolumeID(id.String()); err != nil || again != id {
		t.Errorf("%s: %v", again, err)
	}
	if again, err := ParseDigest(d.String()); err != nil || again != d {
		t.Errorf("%s: %v", again, err)
	}
	for _, bad := range []string{"", "E3" + d.String()[2:], d.String()[1:], d.String() + "0", "zz" + d.String()[2:]} {
		if got, err := ParseDigest(bad); !errors.Is(err, errHex) || got != (Digest{}) {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for _, good := range []string{"projects", "a", "A-1_2.3", strings.Repeat("x", 63), "0"} {
		if !ValidName(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", ".", "..", "-x", "_x", "a/b", "a b", "ä", "a\n", strings.Repeat("x", 64), "a\x00"} {
		if ValidName(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add(Path(1, 42, 42))
	f.Add("batches/00000001/00000000/000000000042-000000000041.batch")
	f.Fuzz(func(t *testing.T, p string) {
		if e, first, last, err := ParsePath(p); err == nil && Path(e, first, last) != p {
			t.Errorf("%q is read as %s", p, Path(e, first, last))
		}
	})
}
