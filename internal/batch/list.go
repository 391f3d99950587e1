package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"slipway/internal/shard"
)

// List chunks: a file with more than MaxPieces pieces names them in chunks of their own, stored like any content. A list ends
// behind the piece whose chunk id says so, so that pieces put in or taken out change the lists around them and no other.
const (
	minList = 32
	maxList = 512
	// A list of minList pieces and more ends where the last two bytes of the chunk id, as a big-endian number, are below
	// this: one in 96, which makes the mean 128.
	listEnd = 65536 / 96
)

// CutLists encodes pieces as list chunks, cut by content so that a small change of a huge file changes few of them.
func CutLists(pieces []Piece) [][]byte {
	var lists [][]byte
	for from := 0; from < len(pieces); {
		to := from + listLength(pieces[from:])
		lists = append(lists, encodeList(pieces[from:to]))
		from = to
	}
	return lists
}

func listLength(pieces []Piece) int {
	for n := minList; n < min(len(pieces), maxList); n++ {
		id := pieces[n-1].Chunk
		if binary.BigEndian.Uint16(id[len(id)-2:]) < listEnd {
			return n
		}
	}
	return min(len(pieces), maxList)
}

// encodeList writes a line per piece: ["shard",offset,stored,in,len,"chunk id"].
func encodeList(pieces []Piece) []byte {
	var b []byte
	for i := range pieces {
		b = append(b, '[')
		b = appendHex(b, pieces[i].Shard[:])
		b = appendSlot(b, &pieces[i].Slot)
		b = append(b, "]\n"...)
	}
	return b
}

// maxListBytes bounds a list chunk: digests, four numbers, brackets.
const maxListBytes = maxList * (2*66 + 4*20 + 8)

var errList = errors.New("not a list of pieces")

// DecodeList reads one list chunk.
func DecodeList(data []byte) ([]Piece, error) {
	if len(data) == 0 || len(data) > maxListBytes {
		return nil, fmt.Errorf("read list of %d bytes: %w: %w", len(data), ErrCorrupt, errList)
	}
	pieces := make([]Piece, 0, min(len(data)/150+1, maxList))
	for rest := data; len(rest) > 0; {
		p, after, ok := cutPiece(rest)
		if !ok || len(pieces) == maxList {
			return nil, fmt.Errorf("read list, piece %d: %w: %w", len(pieces), ErrCorrupt, errList)
		}
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("read list, piece %d: %w: %w", len(pieces), ErrCorrupt, err)
		}
		pieces, rest = append(pieces, p), after
	}
	if !bytes.Equal(encodeList(pieces), data) {
		return nil, fmt.Errorf("read list: %w: %w", ErrCorrupt, errLine)
	}
	return pieces, nil
}

func cutPiece(line []byte) (p Piece, rest []byte, ok bool) {
	const head = 2*len(p.Shard) + 4 // ["…",
	if len(line) < head || string(line[:2]) != `["` || string(line[head-2:head]) != `",` {
		return Piece{}, nil, false
	}
	d, err := shard.ParseDigest(string(line[2 : head-2]))
	if err != nil {
		return Piece{}, nil, false
	}
	p.Shard = d
	if rest, ok = cutSlot(line[head:], &p.Slot); !ok {
		return Piece{}, nil, false
	}
	rest, ok = bytes.CutPrefix(rest, []byte("\n"))
	return p, rest, ok
}
