package catalog

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/internal/shard"
)

// enc appends fields to a record. Numbers are varints, strings and byte strings have their length before them, digests and
// ids have their fixed length.
type enc struct{ b []byte }

func (e *enc) u(v uint64)     { e.b = binary.AppendUvarint(e.b, v) }
func (e *enc) i(v int64)      { e.b = binary.AppendVarint(e.b, v) }
func (e *enc) raw(p []byte)   { e.b = append(e.b, p...) }
func (e *enc) bytes(p []byte) { e.u(uint64(len(p))); e.raw(p) }
func (e *enc) str(s string)   { e.u(uint64(len(s))); e.b = append(e.b, s...) }

func (e *enc) flag(v bool) {
	if v {
		e.b = append(e.b, 1)
		return
	}
	e.b = append(e.b, 0)
}

func (e *enc) time(t time.Time) {
	e.flag(!t.IsZero())
	if !t.IsZero() {
		e.i(t.Unix())
		e.u(uint64(t.Nanosecond()))
	}
}

func (e *enc) position(p journal.Position) {
	e.u(p.Serial)
	e.u(p.Instance)
	e.i(p.Offset)
}

func (e *enc) slot(s *shard.Slot) {
	e.i(s.Offset)
	e.i(s.Stored)
	e.i(s.In)
	e.i(s.Len)
}

// pieces names a shard only where it differs from the piece before: a file's pieces mostly lie in few shards.
func (e *enc) pieces(list []batch.Piece) {
	e.u(uint64(len(list)))
	for i := range list {
		p := &list[i]
		fresh := i == 0 || p.Shard != list[i-1].Shard
		e.flag(fresh)
		if fresh {
			e.raw(p.Shard[:])
		}
		e.raw(p.Chunk[:])
		e.slot(&p.Slot)
	}
}

func (e *enc) content(c *batch.Content) {
	e.flag(c != nil)
	if c == nil {
		return
	}
	e.i(c.Size)
	e.flag(c.Clean)
	e.pieces(c.Pieces)
	e.pieces(c.Lists)
	e.u(uint64(len(c.Holes)))
	for _, h := range c.Holes {
		e.i(h.Offset)
		e.i(h.Len)
	}
	e.content(c.Before)
}

func (e *enc) attr(a *journal.Attr) {
	e.u(uint64(a.Mode))
	e.u(uint64(a.UID))
	e.u(uint64(a.GID))
	e.u(uint64(a.Nlink))
	e.u(a.Rdev)
	e.i(a.Size)
	e.i(a.Mtime)
	e.i(a.Ctime)
}

func (e *enc) inode(in *Inode) {
	e.raw(identKey(in.Ident)) // first, so that it can be read without the rest
	e.u(uint64(in.Mode))
	e.u(uint64(in.UID))
	e.u(uint64(in.GID))
	e.u(in.Rdev)
	e.i(in.Mtime)
	e.str(in.Target)
	e.u(uint64(len(in.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(in.Xattrs)) {
		e.str(name)
		e.bytes(in.Xattrs[name])
	}
	e.content(in.Content)
	e.i(in.Size)
	e.i(in.Ctime)
	e.u(uint64(in.Seq))
	e.attr(&in.Attr)
}

func (e *enc) meta(m *Meta) {
	e.raw(m.VolumeID[:])
	e.u(uint64(m.Epoch))
	e.u(uint64(m.Head))
	e.raw(m.HeadDigest[:])
	e.u(uint64(m.Base))
	e.time(m.SealedAt)
	e.u(uint64(m.LastWhole))
	e.flag(m.Complete)
	e.position(m.Position)
	e.u(uint64(m.NextFile))
	e.str(m.HeadTemp)
	e.str(m.Excluded)
	e.str(m.BootID)
}

func (e *enc) batch(b *BatchInfo) {
	e.u(uint64(b.Epoch))
	e.time(b.SealedAt)
	e.raw(b.Digest[:])
	e.i(b.Files)
	e.i(b.Bytes)
	e.i(b.Removals)
	e.i(int64(b.Shards))
	e.i(b.Stored)
	e.flag(b.Complete)
}

func (e *enc) pending(p *Pending) {
	e.time(p.Since)
	e.position(p.Position)
	e.str(p.Reason)
	e.i(int64(p.Writers))
	e.i(p.Bytes)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers key and value: a record that ends up under another key is found out as well.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func withChecksum(key string, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, checksum([]byte(key), value))
}

func idKey(id batch.FileID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func seqKey(s batch.Seq) []byte { return binary.BigEndian.AppendUint64(nil, uint64(s)) }

func identKey(i journal.Ident) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, identLen), i.FS)
	b = binary.BigEndian.AppendUint64(b, i.Ino)
	return binary.BigEndian.AppendUint64(b, uint64(i.Birth))
}

func entryKey(parent batch.FileID, name string) []byte { return append(idKey(parent), name...) }

func nameKey(id, parent batch.FileID, name string) []byte {
	return append(append(idKey(id), idKey(parent)...), name...)
}
