package batch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// record is any line of a body behind its first.
type record struct {
	Objects []shard.Digest `json:"objects"`
	Secret  *chunk.ID      `json:"secret"` // 32 bytes in hex, like an id

	Inode   FileID       `json:"inode"`
	Mode    string       `json:"mode"`
	UID     uint32       `json:"uid"`
	GID     uint32       `json:"gid"`
	Mtime   [2]int64     `json:"mtime"`
	Rdev    [2]uint32    `json:"rdev"`
	Target  string       `json:"target"`
	Target8 []byte       `json:"target_b64"`
	Xattrs  wireXattrs   `json:"xattrs"`
	Content *wireContent `json:"content"`

	Parent FileID `json:"parent"`
	Name   string `json:"name"`
	Name8  []byte `json:"name_b64"`
	ID     FileID `json:"id"`
}

type wireXattr struct {
	Name   string `json:"name"`
	Name8  []byte `json:"name_b64"`
	Value  string `json:"value"`
	Value8 []byte `json:"value_b64"`
}

// maxXattrs is more than listxattr(2) can return.
const maxXattrs = 16384

type wireXattrs []wireXattr

var errXattrs = errors.New("too many attributes")

// UnmarshalJSON stops at maxXattrs: a line of empty ones would take thirty times its size.
func (x *wireXattrs) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		if len(*x) == maxXattrs {
			return errXattrs
		}
		var one wireXattr
		if err := d.Decode(&one); err != nil {
			return err
		}
		*x = append(*x, one)
	}
	return nil
}

type wireContent struct {
	pending bool

	Size   int64        `json:"size"`
	Pieces wirePieces   `json:"pieces"`
	Lists  wirePieces   `json:"lists"`
	Holes  []Hole       `json:"holes"`
	Clean  bool         `json:"clean"`
	Before *wireContent `json:"before"`
}

// UnmarshalJSON tells "pending" from content.
func (c *wireContent) UnmarshalJSON(data []byte) error {
	if string(data) == `"pending"` {
		c.pending = true
		return nil
	}
	type plain wireContent // without this method
	return json.Unmarshal(data, (*plain)(c))
}

// either returns the bytes of a text from whichever of its two keys is there; which it may be, the comparison with the
// canonical line tells.
func either(text string, raw []byte) string {
	if raw != nil {
		return string(raw)
	}
	return text
}

type wirePiece struct {
	object uint32
	slot   shard.Slot
}

type wirePieces []wirePiece

var errPiece = errors.New("piece is not [object,offset,stored,in,len,\"chunk id\"]")

// UnmarshalJSON reads [[object,offset,stored,in,len,"id"],…] in the one spelling there is. A body is mostly pieces, and
// encoding/json would read each through six interfaces.
func (p *wirePieces) UnmarshalJSON(data []byte) error {
	rest, ok := bytes.CutPrefix(data, []byte("["))
	for ok && len(rest) > 0 {
		var w wirePiece
		var object int64
		if rest, ok = bytes.CutPrefix(rest, []byte("[")); !ok {
			break
		}
		if object, rest, ok = cutInt(rest); !ok || object < 0 || object > maxObjects {
			return errPiece
		}
		w.object = uint32(object)
		if rest, ok = cutSlot(rest, &w.slot); !ok {
			return errPiece
		}
		*p = append(*p, w)
		if string(rest) == "]" {
			return nil
		}
		rest, ok = bytes.CutPrefix(rest, []byte(","))
	}
	return errPiece
}

// cutInt reads digits up to a comma, which it takes with it.
func cutInt(data []byte) (n int64, rest []byte, ok bool) {
	end := bytes.IndexByte(data[:min(len(data), 20)], ',')
	if end < 0 {
		return 0, nil, false
	}
	n, err := strconv.ParseInt(string(data[:end]), 10, 64)
	return n, data[end+1:], err == nil
}

// cutSlot reads offset,stored,in,len,"chunk id"].
func cutSlot(data []byte, s *shard.Slot) (rest []byte, ok bool) {
	rest = data
	for _, field := range [...]*int64{&s.Offset, &s.Stored, &s.In, &s.Len} {
		if *field, rest, ok = cutInt(rest); !ok {
			return nil, false
		}
	}
	const idLen = 2*len(s.Chunk) + 2
	if len(rest) <= idLen || rest[0] != '"' || rest[idLen-1] != '"' || rest[idLen] != ']' {
		return nil, false
	}
	id, err := chunk.ParseID(string(rest[1 : idLen-1]))
	s.Chunk = id
	return rest[idLen+1:], err == nil
}

// sink takes the records of a body.
type sink struct {
	inode  func(*Inode) error
	entry  func(*Entry) error
	secret func(chunk.Secret) error
}

// part decodes the lines of one part of a body.
type part struct {
	sink
	objects []shard.Digest
	numbers map[shard.Digest]uint32
	again   []byte // the line as we would write it, reused
	started bool   // the first line was there
}

func (p *part) number(d shard.Digest) uint32 { return p.numbers[d] }

// maxObjects bounds the table: more do not fit into a part.
const maxObjects = MaxPart / 64

var (
	errLine  = errors.New("line is not in canonical form")
	errFirst = errors.New("body does not begin with its objects")
	errTable = errors.New("object number out of range")
)

// line decodes one line with its newline. Every line is encoded again and compared: a key twice, in other letters or
// unknown, a lone surrogate that became U+FFFD, _b64 where it need not be, a number like 1e3 all end here.
func (p *part) line(line []byte) error {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	switch {
	case r.Objects != nil:
		return p.addObjects(line, r.Objects)
	case !p.started:
		return errFirst
	case r.Secret != nil:
		s := chunk.Secret(*r.Secret)
		if err := p.same(appendSecret(p.again[:0], &s), line); err != nil {
			return err
		}
		return p.secret(s)
	case r.Inode != 0:
		return p.addInode(line, &r)
	default:
		return p.addEntry(line, &r)
	}
}

func (p *part) same(again, line []byte) error {
	p.again = again
	if !bytes.Equal(again, line) {
		return fmt.Errorf("%w: %.200q", errLine, line)
	}
	return nil
}

func (p *part) addObjects(line []byte, list []shard.Digest) error {
	p.started = true
	if err := p.same(appendObjects(p.again[:0], list), line); err != nil {
		return err
	}
	for _, d := range list {
		if _, twice := p.numbers[d]; twice || len(p.objects) >= maxObjects {
			return fmt.Errorf("object %s: %w", d, errTable)
		}
		p.numbers[d] = uint32(len(p.objects))
		p.objects = append(p.objects, d)
	}
	return nil
}

func (p *part) addEntry(line []byte, r *record) error {
	e := Entry{Parent: r.Parent, Name: either(r.Name, r.Name8), ID: r.ID}
	if err := e.check(); err != nil {
		return err
	}
	if err := p.same(appendEntry(p.again[:0], &e), line); err != nil {
		return err
	}
	return p.entry(&e)
}

func (p *part) addInode(line []byte, r *record) error {
	mode, err := strconv.ParseUint(r.Mode, 8, 32)
	if err != nil {
		return err
	}
	i := Inode{
		ID: r.Inode, Mode: uint32(mode), UID: r.UID, GID: r.GID, Rdev: unix.Mkdev(r.Rdev[0], r.Rdev[1]),
		Mtime: r.Mtime[0]*1e9 + r.Mtime[1], Target: either(r.Target, r.Target8),
	}
	if len(r.Xattrs) > 0 {
		i.Xattrs = make(map[string][]byte, len(r.Xattrs))
		for _, x := range r.Xattrs {
			i.Xattrs[either(x.Name, x.Name8)] = []byte(either(x.Value, x.Value8))
		}
	}
	if i.Content, err = p.content(r.Content); err != nil {
		return fmt.Errorf("inode %d: %w", i.ID, err)
	}
	if err := i.check(); err != nil {
		return err
	}
	if err := p.same(appendInode(p.again[:0], &i, p.number), line); err != nil {
		return err
	}
	return p.inode(&i)
}

// content gives the objects their digests.
func (p *part) content(w *wireContent) (*Content, error) {
	if w == nil || w.pending {
		return nil, nil
	}
	c := &Content{Size: w.Size, Holes: w.Holes, Clean: w.Clean}
	var err error
	if c.Pieces, err = p.pieces(w.Pieces); err != nil {
		return nil, err
	}
	if c.Lists, err = p.pieces(w.Lists); err != nil {
		return nil, err
	}
	c.Before, err = p.content(w.Before)
	return c, err
}

func (p *part) pieces(list wirePieces) ([]Piece, error) {
	if len(list) == 0 {
		return nil, nil
	}
	pieces := make([]Piece, len(list))
	for i, w := range list {
		if int(w.object) >= len(p.objects) {
			return nil, fmt.Errorf("object %d of %d: %w", w.object, len(p.objects), errTable)
		}
		pieces[i] = Piece{Shard: p.objects[w.object], Slot: w.slot}
	}
	return pieces, nil
}
