package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// genRecord makes any record that can be encoded.
func genRecord() *rapid.Generator[*Record] {
	ident := func(t *rapid.T, label string) (i Ident) {
		if rapid.Bool().Draw(t, "has "+label) {
			i = Ident{rapid.Uint64().Draw(t, label), rapid.Uint64().Draw(t, label), rapid.Int64().Draw(t, label)}
		}
		return i
	}
	attr := func(t *rapid.T, label string) (a Attr) {
		if rapid.Bool().Draw(t, "has "+label) {
			u := func() uint32 { return rapid.Uint32().Draw(t, label) }
			i := func() int64 { return rapid.Int64().Draw(t, label) }
			a = Attr{u(), u(), u(), u(), rapid.Uint64().Draw(t, label), i(), i(), i()}
		}
		return a
	}
	text := func(t *rapid.T, label string, limit int) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, label))
	}
	return rapid.Custom(func(t *rapid.T) *Record {
		r := &Record{
			Op:         Op(rapid.IntRange(int(OpStart), int(OpRemoveXattr)).Draw(t, "op")),
			Flags:      uint8(rapid.IntRange(0, 3).Draw(t, "flags")),
			Time:       rapid.Int64Min(1).Draw(t, "time"),
			Node:       ident(t, "node"),
			Attr:       attr(t, "attr"),
			Parent:     ident(t, "parent"),
			ParentAttr: attr(t, "parent attr"),
			Name:       text(t, "name", 255),
			NewParent:  ident(t, "new parent"), NewParentAttr: attr(t, "new parent attr"), NewName: text(t, "new name", 255),
			Other: ident(t, "other"), OtherAttr: attr(t, "other attr"),
			Target:    text(t, "target", 4095),
			XattrName: text(t, "xattr", 255),
		}
		if rapid.Bool().Draw(t, "has value") {
			r.XattrValue = rapid.SliceOfN(rapid.Byte(), 0, 1024).Draw(t, "value")
		}
		return r
	})
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genRecord().Draw(t, "record")
		frame, err := appendFrame([]byte("before"), seed(7), r, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, n, err := decodeFrame(frame[6:], seed(7))
		if err != nil || n != len(frame)-6 {
			t.Fatalf("decode: %d of %d bytes, %v", n, len(frame)-6, err)
		}
		if diff := cmp.Diff(*r, got); diff != "" {
			t.Fatal(diff)
		}
		if _, _, err := decodeFrame(frame[6:], seed(8)); !errors.Is(err, errDamaged) {
			t.Fatalf("a record of another instance: %v", err)
		}
	})
}

func TestRecordLargest(t *testing.T) {
	r := benchRecord()
	r.NewParent, r.NewParentAttr, r.Other, r.OtherAttr = r.Node, r.Attr, r.Node, r.Attr
	r.Name, r.NewName, r.XattrName = strings.Repeat("n", 255), strings.Repeat("m", 255), strings.Repeat("x", 255)
	r.Target = strings.Repeat("t", 4095)
	r.XattrValue = make([]byte, 64<<10)
	frame, err := appendFrame(nil, 0, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := decodeFrame(frame, 0); err != nil {
		t.Fatal(err)
	}
}

func TestRecordTooLarge(t *testing.T) {
	for _, r := range []*Record{
		{Op: OpCreate, Name: strings.Repeat("n", 1<<16)},
		{Op: OpSetXattr, XattrValue: make([]byte, maxPayload)},
	} {
		b, err := appendFrame([]byte("kept"), 0, r, 1)
		if err == nil || string(b) != "kept" {
			t.Errorf("%q, %v", b[:4], err)
		}
	}
}

func TestRecordTime(t *testing.T) {
	for _, c := range []struct{ own, want int64 }{{0, 42}, {7, 7}} {
		frame, err := appendFrame(nil, 0, &Record{Op: OpStart, Time: c.own}, 42)
		if err != nil {
			t.Fatal(err)
		}
		if r, _, _ := decodeFrame(frame, 0); r.Time != c.want {
			t.Errorf("time %d, want %d", r.Time, c.want)
		}
	}
}

// TestFrameFlips: no single damaged byte makes another record, and none makes an unfinished one.
func TestFrameFlips(t *testing.T) {
	frame, err := appendFrame(nil, seed(1), benchRecord(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		for bit := range 8 {
			bad := bytes.Clone(frame)
			bad[i] ^= 1 << bit
			if _, _, err := decodeFrame(bad, seed(1)); !errors.Is(err, errDamaged) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		if _, _, err := decodeFrame(frame[:i], seed(1)); !errors.Is(err, errShort) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestDecodeRecordRefuses: what is checksummed but not what this program writes.
func TestDecodeRecordRefuses(t *testing.T) {
	good, err := appendRecord(nil, &Record{Op: OpUnlink, Name: "a"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, b ...byte) []byte { return append(bytes.Clone(good[:at]), b...) }
	for name, b := range map[string][]byte{
		"empty":            nil,
		"no op":            append([]byte{0}, good[1:]...),
		"op of the future": append([]byte{byte(OpRemoveXattr) + 1}, good[1:]...),
		"unknown flag":     append([]byte{good[0], 4}, good[2:]...),
		"unknown field":    change(10, 0x20, 0),
		"trailing byte":    append(bytes.Clone(good), 0),
		"cut":              good[:len(good)-1],
		"empty name":       change(12, 0, 0),
		"zero ident":       change(10, append([]byte{0, hasNode}, make([]byte, 24)...)...),
		"zero attr":        change(10, append([]byte{0, hasAttr}, make([]byte, 48)...)...),
		"huge value":       change(10, 0x10, 0, 0xff, 0xff, 0xff, 0xff),
	} {
		if r, err := decodeRecord(b); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestHeader(t *testing.T) {
	inst := instance{serial: 3, id: 0xabcdef}
	good := encodeHeader(inst, 99)
	if err := checkHeader(good, inst, 99); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := checkHeader(bad, inst, 99); !errors.Is(err, errDamaged) {
			t.Errorf("flip at %d: %v", i, err)
		}
		if err := checkHeader(good[:i], inst, 99); !errors.Is(err, errDamaged) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if err := checkHeader(good, instance{serial: 4, id: inst.id}, 99); !errors.Is(err, errDamaged) {
		t.Errorf("another serial: %v", err)
	}
	if err := checkHeader(good, inst, 98); !errors.Is(err, errDamaged) {
		t.Errorf("another start: %v", err)
	}
}

// example is a record whose bytes stand in docs/format-journal.md.
func example() []byte {
	inst := instance{serial: 7, id: 0x9f86d081884c7d65}
	b, _ := appendFrame(encodeHeader(inst, 0), seed(inst.id), &Record{
		Op: OpUnlink, Time: 1_700_000_000_000_000_000,
		Node: Ident{FS: 1, Ino: 12, Birth: 5}, Parent: Ident{FS: 1, Ino: 2, Birth: 4}, Name: "a.txt",
	}, 0)
	return b
}

// TestDocumentedExample keeps the format, and its description, as they are.
func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("../../docs/format-journal.md")
	if err != nil {
		t.Fatal(err)
	}
	if dump := hex.Dump(example()); !strings.Contains(string(doc), dump) {
		t.Errorf("docs/format-journal.md does not hold the example:\n%s", dump)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	good, err := appendFrame(nil, seed(1), benchRecord(), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := decodeFrame(b, seed(1))
		if err != nil {
			return
		}
		again, err := appendFrame(nil, seed(1), &r, r.Time)
		if err != nil || !bytes.Equal(again, b[:n]) {
			t.Fatalf("%v: %x is not %x", err, again, b[:n])
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	good, err := appendRecord(nil, benchRecord(), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if again, err := appendRecord(nil, &r, r.Time); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v: %x is not %x", err, again, b)
		}
	})
}

// fixHeader makes the checksum of a changed header right.
func fixHeader(b []byte) {
	binary.BigEndian.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli))
}
