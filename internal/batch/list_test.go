package batch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// manyPieces are pieces with ids spread as real ones are.
func manyPieces(n int) []Piece {
	list := make([]Piece, n)
	for i := range list {
		list[i] = testPiece(fmt.Sprint(i/8), 1<<20)
		list[i].Chunk = chunk.ID(shard.Sum(fmt.Append(nil, "piece", i)))
	}
	return list
}

func decodeLists(t testing.TB, lists [][]byte) (all []Piece, lengths []int) {
	t.Helper()
	for _, data := range lists {
		pieces, err := DecodeList(data)
		if err != nil {
			t.Fatal(err)
		}
		all, lengths = append(all, pieces...), append(lengths, len(pieces))
	}
	return all, lengths
}

func TestLists(t *testing.T) {
	const n = 100_000
	pieces := manyPieces(n)
	lists := CutLists(pieces)
	all, lengths := decodeLists(t, lists)
	if !slices.Equal(all, pieces) {
		t.Error("pieces changed")
	}
	if mean := n / len(lists); mean < 110 || mean > 145 {
		t.Errorf("mean of %d lists is %d", len(lists), mean)
	}
	for i, l := range lengths {
		if l > maxList || l < minList && i < len(lengths)-1 {
			t.Errorf("list %d has %d pieces", i, l)
		}
	}
	// Cut points are part of the format: this is what they are for these pieces.
	if got := fmt.Sprint(lengths[:6]); got != "[60 89 32 204 33 34]" {
		t.Errorf("first lists have %s pieces", got)
	}
	if got := shard.Sum(bytes.Join(lists, nil)).String(); got != "e90afe65a5cd55e2cb7958093066a56b8dbe4a5b865c58f63fbc79e462433932" {
		t.Errorf("lists have the digest %s", got)
	}
	if CutLists(nil) != nil {
		t.Error("no pieces make a list")
	}
}

func TestListText(t *testing.T) {
	p := testPiece("one", 904)
	want := fmt.Sprintf(`["%s",512,300,0,904,"%s"]`+"\n", p.Shard, p.Chunk)
	if got := CutLists([]Piece{p, p}); len(got) != 1 || string(got[0]) != want+want {
		t.Errorf("%s", got)
	}
}

// One piece changed, put in or taken out, changes few lists.
func TestSmallChangeOfLists(t *testing.T) {
	pieces := manyPieces(20_000)
	known := make(map[string]bool)
	for _, l := range CutLists(pieces) {
		known[string(l)] = true
	}
	other := testPiece("other", 5)
	for name, changed := range map[string][]Piece{
		"changed":   slices.Replace(slices.Clone(pieces), 7000, 7001, other),
		"put in":    slices.Insert(slices.Clone(pieces), 7000, other),
		"taken out": slices.Delete(slices.Clone(pieces), 7000, 7001),
	} {
		fresh := 0
		for _, l := range CutLists(changed) {
			if !known[string(l)] {
				fresh++
			}
		}
		if fresh < 1 || fresh > 5 {
			t.Errorf("%s: %d of %d lists are new", name, fresh, len(known))
		}
	}
}

func TestListRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pieces := rapid.SliceOfN(anyPiece, 1, 700).Draw(rt, "pieces")
		if all, _ := decodeLists(t, CutLists(pieces)); !slices.Equal(all, pieces) {
			rt.Fatal("pieces changed")
		}
	})
}

func TestHostileLists(t *testing.T) {
	good := string(CutLists([]Piece{testPiece("one", 904)})[0])
	for name, text := range map[string]string{
		"nothing":         "",
		"no newline":      strings.TrimSuffix(good, "\n"),
		"blank":           "\n",
		"too many":        strings.Repeat(good, maxList+1),
		"endless":         strings.Repeat("[", 1<<20),
		"space":           " " + good,
		"comma":           strings.Replace(good, "\n", ",\n", 1),
		"capitals":        strings.ToUpper(good),
		"zeros":           strings.Replace(good, ",512,", ",0512,", 1),
		"plus":            strings.Replace(good, ",512,", ",+512,", 1),
		"negative offset": strings.Replace(good, ",512,", ",-512,", 1),
		"huge offset":     strings.Replace(good, ",512,", ",9223372036854775807,", 1),
		"too large":       strings.Replace(good, ",512,", ",9223372036854775808,", 1),
		"huge length":     strings.Replace(good, ",904,", ",4194305,", 1),
		"no length":       strings.Replace(good, ",904,", ",", 1),
		"no id":           good[:100] + "]\n",
		"number first":    "[0,512,300,0,904]\n",
		"object":          "{}\n",
	} {
		if pieces, err := DecodeList([]byte(text)); !errors.Is(err, ErrCorrupt) || pieces != nil {
			t.Errorf("%s: %d pieces, %v", name, len(pieces), err)
		}
	}
}

func FuzzDecodeList(f *testing.F) {
	f.Add(CutLists(manyPieces(3))[0])
	f.Add([]byte("[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pieces, err := DecodeList(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		if !bytes.Equal(encodeList(pieces), data) {
			t.Errorf("%q is written as %q", data, encodeList(pieces))
		}
	})
}
