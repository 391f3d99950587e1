package catalog

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/internal/shard"
)

// dec takes fields from a record in the order enc wrote them. The first fault sticks; later fields are zero.
type dec struct {
	b   []byte
	err error
}

func (d *dec) fault(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: record: %s", ErrCorrupt, what)
	}
	d.b = nil
}

// done returns the first fault; bytes left over are one.
func (d *dec) done() error {
	if d.err == nil && len(d.b) != 0 {
		d.fault("too long")
	}
	return d.err
}

func (d *dec) u() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fault("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *dec) i() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fault("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *dec) u32() uint32 {
	v := d.u()
	if v > math.MaxUint32 {
		d.fault("number too large")
		return 0
	}
	return uint32(v)
}

func (d *dec) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fault("cut short")
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *dec) fixed(dst []byte) { copy(dst, d.take(uint64(len(dst)))) }
func (d *dec) str() string      { return string(d.take(d.u())) }

func (d *dec) bytes() []byte { return append([]byte{}, d.take(d.u())...) }

func (d *dec) flag() bool {
	p := d.take(1)
	if len(p) == 1 && p[0] > 1 {
		d.fault("bad flag")
	}
	return len(p) == 1 && p[0] == 1
}

// count reads a number of items of which each takes at least size bytes, so that no damaged count makes a huge allocation.
func (d *dec) count(size int) int {
	n := d.u()
	if n > uint64(len(d.b)/size) {
		d.fault("count too large")
		return 0
	}
	return int(n)
}

func (d *dec) time() time.Time {
	if !d.flag() {
		return time.Time{}
	}
	sec, nsec := d.i(), d.u()
	if nsec >= 1e9 {
		d.fault("bad time")
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (d *dec) position() journal.Position {
	return journal.Position{Serial: d.u(), Instance: d.u(), Offset: d.i()}
}

func (d *dec) slot(s *shard.Slot) { s.Offset, s.Stored, s.In, s.Len = d.i(), d.i(), d.i(), d.i() }

func (d *dec) pieces() []batch.Piece {
	n := d.count(1 + len(batch.Piece{}.Chunk))
	if n == 0 {
		return nil
	}
	list := make([]batch.Piece, n)
	for i := range list {
		p := &list[i]
		if d.flag() {
			d.fixed(p.Shard[:])
		} else if i > 0 {
			p.Shard = list[i-1].Shard
		}
		d.fixed(p.Chunk[:])
		d.slot(&p.Slot)
	}
	return list
}

// content reads what a file holds; before says that this is already the content named by another one.
func (d *dec) content(before bool) *batch.Content {
	if !d.flag() {
		return nil
	}
	c := &batch.Content{Size: d.i(), Clean: d.flag(), Pieces: d.pieces(), Lists: d.pieces()}
	if n := d.count(2); n > 0 {
		c.Holes = make([]batch.Hole, n)
		for i := range c.Holes {
			c.Holes[i] = batch.Hole{Offset: d.i(), Len: d.i()}
		}
	}
	if before {
		if d.flag() {
			d.fault("content before content before content")
		}
		return c
	}
	c.Before = d.content(true)
	return c
}

func (d *dec) attr() journal.Attr {
	return journal.Attr{
		Mode: d.u32(), UID: d.u32(), GID: d.u32(), Nlink: d.u32(),
		Rdev: d.u(), Size: d.i(), Mtime: d.i(), Ctime: d.i(),
	}
}

func (d *dec) ident() journal.Ident {
	p := d.take(identLen)
	if len(p) < identLen {
		return journal.Ident{}
	}
	return journal.Ident{
		FS:    binary.BigEndian.Uint64(p),
		Ino:   binary.BigEndian.Uint64(p[8:]),
		Birth: int64(binary.BigEndian.Uint64(p[16:])),
	}
}

func (d *dec) inode(id batch.FileID) Inode {
	in := Inode{Ident: d.ident()}
	in.ID = id
	in.Mode, in.UID, in.GID, in.Rdev, in.Mtime = d.u32(), d.u32(), d.u32(), d.u(), d.i()
	in.Target = d.str()
	if n := d.count(2); n > 0 {
		in.Xattrs = make(map[string][]byte, n)
		for range n {
			name := d.str()
			in.Xattrs[name] = d.bytes()
		}
	}
	in.Content = d.content(false)
	in.Size, in.Ctime, in.Seq = d.i(), d.i(), batch.Seq(d.u())
	in.Attr = d.attr()
	return in
}

func (d *dec) meta() Meta {
	var m Meta
	d.fixed(m.VolumeID[:])
	m.Epoch = batch.Epoch(d.u32())
	m.Head = batch.Seq(d.u())
	d.fixed(m.HeadDigest[:])
	m.Base = batch.Seq(d.u())
	m.SealedAt = d.time()
	m.LastWhole = batch.Seq(d.u())
	m.Complete = d.flag()
	m.Position = d.position()
	m.NextFile = batch.FileID(d.u())
	m.HeadTemp, m.Excluded, m.BootID = d.str(), d.str(), d.str()
	return m
}

func (d *dec) batch(seq batch.Seq) BatchInfo {
	b := BatchInfo{Seq: seq, Epoch: batch.Epoch(d.u32()), SealedAt: d.time()}
	d.fixed(b.Digest[:])
	b.Files, b.Bytes, b.Removals, b.Shards, b.Stored, b.Complete = d.i(), d.i(), d.i(), int(d.i()), d.i(), d.flag()
	return b
}

func (d *dec) pending() Pending {
	return Pending{Since: d.time(), Position: d.position(), Reason: d.str(), Writers: int(d.i()), Bytes: d.i()}
}

func (d *dec) location() Location {
	var l Location
	d.fixed(l.Shard[:])
	d.slot(&l.Slot)
	return l
}

func (d *dec) shardInfo() ShardInfo {
	return ShardInfo{Size: d.i(), Seq: batch.Seq(d.u()), Evicted: d.flag()}
}
