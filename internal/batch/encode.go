package batch

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// The lines of a body are written here and nowhere else, without encoding/json: every record has exactly one spelling, which
// the decoder insists on, and names that are not UTF-8 cannot turn into U+FFFD on the way.

// numbering gives each object of a part its number.
type numbering func(shard.Digest) uint32

func appendObjects(b []byte, list []shard.Digest) []byte {
	b = append(b, `{"objects":[`...)
	for i, d := range list {
		b = appendComma(b, i)
		b = appendHex(b, d[:])
	}
	return append(b, "]}\n"...)
}

func appendSecret(b []byte, s *chunk.Secret) []byte {
	b = append(b, `{"secret":`...)
	b = appendHex(b, s[:])
	return append(b, "}\n"...)
}

func appendEntry(b []byte, e *Entry) []byte {
	b = append(b, `{"parent":`...)
	b = strconv.AppendUint(b, uint64(e.Parent), 10)
	b = append(b, ',')
	b = appendText(b, "name", e.Name)
	if e.ID == 0 {
		return append(b, ",\"gone\":true}\n"...)
	}
	b = append(b, `,"id":`...)
	b = strconv.AppendUint(b, uint64(e.ID), 10)
	return append(b, "}\n"...)
}

func appendInode(b []byte, i *Inode, number numbering) []byte {
	b = append(b, `{"inode":`...)
	b = strconv.AppendUint(b, uint64(i.ID), 10)
	b = append(b, `,"mode":"`...)
	b = strconv.AppendUint(b, uint64(i.Mode), 8)
	b = append(b, `","uid":`...)
	b = strconv.AppendUint(b, uint64(i.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(i.GID), 10)
	b = appendMtime(b, i.Mtime)
	if i.device() {
		b = append(b, `,"rdev":[`...)
		b = strconv.AppendUint(b, uint64(unix.Major(i.Rdev)), 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, uint64(unix.Minor(i.Rdev)), 10)
		b = append(b, ']')
	}
	if i.symlink() {
		b = append(b, ',')
		b = appendText(b, "target", i.Target)
	}
	b = appendXattrs(b, i.Xattrs)
	if i.regular() {
		b = append(b, `,"content":`...)
		b = appendContent(b, i.Content, number)
	}
	return append(b, "}\n"...)
}

// appendMtime writes seconds and nanoseconds apart: as one number, a reader that keeps numbers as doubles would round it.
func appendMtime(b []byte, ns int64) []byte {
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	b = append(b, `,"mtime":[`...)
	b = strconv.AppendInt(b, sec, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, nsec, 10)
	return append(b, ']')
}

func appendXattrs(b []byte, xattrs map[string][]byte) []byte {
	if len(xattrs) == 0 {
		return b
	}
	b = append(b, `,"xattrs":[`...)
	for i, name := range slices.Sorted(maps.Keys(xattrs)) {
		b = appendComma(b, i)
		b = append(b, '{')
		b = appendText(b, "name", name)
		b = append(b, ',')
		b = appendText(b, "value", string(xattrs[name]))
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendContent(b []byte, c *Content, number numbering) []byte {
	if c == nil {
		return append(b, `"pending"`...)
	}
	b = append(b, `{"size":`...)
	b = strconv.AppendInt(b, c.Size, 10)
	b = appendPieces(b, `,"pieces":[`, c.Pieces, number)
	b = appendPieces(b, `,"lists":[`, c.Lists, number)
	if len(c.Holes) > 0 {
		b = append(b, `,"holes":[`...)
		for i, h := range c.Holes {
			b = appendComma(b, i)
			b = append(b, `{"offset":`...)
			b = strconv.AppendInt(b, h.Offset, 10)
			b = append(b, `,"len":`...)
			b = strconv.AppendInt(b, h.Len, 10)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	b = append(b, `,"clean":`...)
	b = strconv.AppendBool(b, c.Clean)
	if c.Before != nil {
		b = append(b, `,"before":`...)
		b = appendContent(b, c.Before, number)
	}
	return append(b, '}')
}

func appendPieces(b []byte, key string, pieces []Piece, number numbering) []byte {
	if len(pieces) == 0 {
		return b
	}
	b = append(b, key...)
	for i := range pieces {
		b = appendComma(b, i)
		b = append(b, '[')
		b = strconv.AppendUint(b, uint64(number(pieces[i].Shard)), 10)
		b = appendSlot(b, &pieces[i].Slot)
		b = append(b, ']')
	}
	return append(b, ']')
}

// appendSlot writes what stands behind the object in a piece: ,offset,stored,in,len,"chunk id".
func appendSlot(b []byte, s *shard.Slot) []byte {
	for _, n := range [...]int64{s.Offset, s.Stored, s.In, s.Len} {
		b = append(b, ',')
		b = strconv.AppendInt(b, n, 10)
	}
	b = append(b, ',')
	return appendHex(b, s.Chunk[:])
}

// appendText writes bytes that people call text: as a string where they are UTF-8, else under the key with _b64 behind it.
func appendText(b []byte, key, text string) []byte {
	b = append(b, '"')
	b = append(b, key...)
	if !utf8.ValidString(text) {
		b = append(b, `_b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(text))
		return append(b, '"')
	}
	b = append(b, `":"`...)
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func appendHex(b, raw []byte) []byte {
	b = append(b, '"')
	b = hex.AppendEncode(b, raw)
	return append(b, '"')
}

func appendComma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}
