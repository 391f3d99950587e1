package batch

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

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
		"hole outside, lists":                regular(Content{Size: 100, Lists: []Piece{p}, Holes: []Hole{{0, 101}}}),
		"hole beyond, lists":                 regular(Content{Size: 100, Lists: []Piece{p}, Holes: []Hole{{50, 51}}}),
		"hole behind":                        regular(Content{Size: 100, Holes: []Hole{{100, 1}}}),
		"empty hole":                         regular(Content{Size: 100, Pieces: []Piece{p}, Holes: []Hole{{0, 0}}}),
		"negative hole":                      regular(Content{Size: 100, Holes: []Hole{{-1, 100}}}),
		"hole of negative size":              regular(Content{Size: 0, Pieces: []Piece{p}, Holes: []Hole{{0, -100}}}),
		"many holes":                         regular(Content{Size: 1 << 40, Holes: manyHoles(MaxHoles + 1), Lists: []Piece{p}}),
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

// manyHoles are holes of one byte with one byte between them.
func manyHoles(n int) []Hole {
	list := make([]Hole, n)
	for i := range list {
		list[i] = Hole{Offset: int64(i) * 2, Len: 1}
	}
	return list
}

// The most holes a file may have fit into a record twice: content that moves names what was there before.
func TestMostHoles(t *testing.T) {
	holes := manyHoles(MaxHoles)
	for i := range holes {
		holes[i].Offset += 1 << 50
	}
	c := Content{Size: 1 << 51, Lists: []Piece{testPiece("one", 100)}, Holes: holes}
	before := c
	before.Clean = true
	c.Before = &before
	got, _ := reopen(t, &Body{Inodes: []Inode{{ID: 2, Mode: 0o100644, Content: &c}}})
	if len(got.Inodes) != 1 || len(got.Inodes[0].Content.Before.Holes) != MaxHoles {
		t.Error("holes changed")
	}
}
