package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A file of records, all numbers big-endian:
//
//	header   magic "slipjrnl" (8) | version (4) | serial (8) | instance (8) | start (8) | CRC32C of these 36 bytes (4)
//	record   length of payload (4) | CRC32C of payload (4) | CRC32C of these 8 bytes (4) | payload
//
// Both checksums of a record begin from one of the magic, the version and the instance's random id: a record of another journal,
// or bytes made to look like a record inside a name or an xattr, are not taken for one. The second makes a record's length
// trustworthy before its payload is there, so an unfinished record is never confused with a damaged one.
const (
	magic      = "slipjrnl"
	version    = 1
	headerSize = 40
	frameSize  = 12
	minPayload = 12
	maxPayload = 128 << 10 // the largest real one holds a 64 KiB xattr, a few names and four sets of attributes
	maxFrame   = frameSize + maxPayload
	rotateSize = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errDamaged = errors.New("damaged record")
	errShort   = errors.New("unfinished record")
)

func encodeHeader(i instance, start int64) []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, i.serial)
	b = binary.BigEndian.AppendUint64(b, i.id)
	b = binary.BigEndian.AppendUint64(b, uint64(start))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkHeader compares a file's header with what its name says. ErrVersion only where the header is whole.
func checkHeader(b []byte, i instance, start int64) error {
	if len(b) < headerSize || string(b[:8]) != magic ||
		crc32.Checksum(b[:headerSize-4], castagnoli) != binary.BigEndian.Uint32(b[headerSize-4:]) {
		return errDamaged
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != version {
		return fmt.Errorf("read journal file, version %d: %w", v, ErrVersion)
	}
	if string(b[:headerSize]) != string(encodeHeader(i, start)) {
		return errDamaged
	}
	return nil
}

// seed is where the checksums of an instance's records begin.
func seed(id uint64) uint32 {
	b := make([]byte, 0, 20)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, id)
	return crc32.Checksum(b, castagnoli)
}

// appendFrame appends one framed record to b, with the time now if it has none; on error b is as it was.
func appendFrame(b []byte, seed uint32, r *Record, now int64) ([]byte, error) {
	at := len(b)
	b = append(b, make([]byte, frameSize)...)
	b, err := appendRecord(b, r, now)
	if err != nil {
		return b[:at], err
	}
	payload := b[at+frameSize:]
	if len(payload) > maxPayload {
		return b[:at], fmt.Errorf("encode journal record: %d bytes are more than a record holds", len(payload))
	}
	head := b[at : at+frameSize]
	binary.BigEndian.PutUint32(head, uint32(len(payload)))
	binary.BigEndian.PutUint32(head[4:], crc32.Update(seed, castagnoli, payload))
	binary.BigEndian.PutUint32(head[8:], crc32.Update(seed, castagnoli, head[:8]))
	return b, nil
}

// frameLength returns how long the framed record at the beginning of b is. errShort: b ends inside its head.
func frameLength(b []byte, seed uint32) (int, error) {
	if len(b) < frameSize {
		return 0, errShort
	}
	n := binary.BigEndian.Uint32(b)
	if crc32.Update(seed, castagnoli, b[:8]) != binary.BigEndian.Uint32(b[8:]) || n < minPayload || n > maxPayload {
		return 0, errDamaged
	}
	return frameSize + int(n), nil
}

// decodeFrame returns the record at the beginning of b and its framed length. errShort: b ends inside it.
func decodeFrame(b []byte, seed uint32) (Record, int, error) {
	n, err := frameLength(b, seed)
	if err != nil {
		return Record{}, 0, err
	}
	if len(b) < n {
		return Record{}, 0, errShort
	}
	payload := b[frameSize:n]
	if crc32.Update(seed, castagnoli, payload) != binary.BigEndian.Uint32(b[4:]) {
		return Record{}, 0, errDamaged
	}
	r, err := decodeRecord(payload)
	return r, n, err
}

// findFrame returns where in b the next whole record begins, -1 if none does.
func findFrame(b []byte, seed uint32) int {
	for i := range b {
		if _, err := frameLength(b[i:], seed); err != nil {
			continue
		}
		if _, _, err := decodeFrame(b[i:], seed); err == nil {
			return i
		}
	}
	return -1
}

// A payload:
//
//	op (1) | flags (1) | time (8) | which fields follow (2) | those fields, in the order of their bits
//
// Ident: fs (8) ino (8) birth (8). Attr: mode uid gid nlink (4 each) rdev size mtime ctime (8 each). Strings: length (2) and the
// bytes. The xattr's value: length (4) and the bytes. A field is there when it is not zero, and only then, so that every
// record has one encoding.
const (
	hasNode = 1 << iota
	hasAttr
	hasParent
	hasParentAttr
	hasName
	hasNewParent
	hasNewParentAttr
	hasNewName
	hasOther
	hasOtherAttr
	hasTarget
	hasXattrName
	hasXattrValue
	hasEnd
)

func appendRecord(b []byte, r *Record, now int64) ([]byte, error) {
	for _, s := range []*string{&r.Name, &r.NewName, &r.Target, &r.XattrName} {
		if len(*s) > math.MaxUint16 {
			return b, fmt.Errorf("encode journal record: a name of %d bytes", len(*s))
		}
	}
	if r.Time != 0 {
		now = r.Time
	}
	b = append(b, byte(r.Op), r.Flags)
	b = binary.BigEndian.AppendUint64(b, uint64(now))
	at, has := len(b), uint16(0)
	e := encoder{b: append(b, 0, 0), has: &has}
	e.ident(hasNode, &r.Node)
	e.attr(hasAttr, &r.Attr)
	e.ident(hasParent, &r.Parent)
	e.attr(hasParentAttr, &r.ParentAttr)
	e.text(hasName, r.Name)
	e.ident(hasNewParent, &r.NewParent)
	e.attr(hasNewParentAttr, &r.NewParentAttr)
	e.text(hasNewName, r.NewName)
	e.ident(hasOther, &r.Other)
	e.attr(hasOtherAttr, &r.OtherAttr)
	e.text(hasTarget, r.Target)
	e.text(hasXattrName, r.XattrName)
	if r.XattrValue != nil {
		has |= hasXattrValue
		e.b = binary.BigEndian.AppendUint32(e.b, uint32(len(r.XattrValue)))
		e.b = append(e.b, r.XattrValue...)
	}
	binary.BigEndian.PutUint16(e.b[at:], has)
	return e.b, nil
}

// encoder appends fields to b and notes which are there.
type encoder struct {
	b   []byte
	has *uint16
}

func (e *encoder) ident(bit uint16, i *Ident) {
	if i.IsZero() {
		return
	}
	*e.has |= bit
	e.b = binary.BigEndian.AppendUint64(e.b, i.FS)
	e.b = binary.BigEndian.AppendUint64(e.b, i.Ino)
	e.b = binary.BigEndian.AppendUint64(e.b, uint64(i.Birth))
}

func (e *encoder) attr(bit uint16, a *Attr) {
	if *a == (Attr{}) {
		return
	}
	*e.has |= bit
	for _, v := range [...]uint32{a.Mode, a.UID, a.GID, a.Nlink} {
		e.b = binary.BigEndian.AppendUint32(e.b, v)
	}
	for _, v := range [...]uint64{a.Rdev, uint64(a.Size), uint64(a.Mtime), uint64(a.Ctime)} {
		e.b = binary.BigEndian.AppendUint64(e.b, v)
	}
}

func (e *encoder) text(bit uint16, s string) {
	if s == "" {
		return
	}
	*e.has |= bit
	e.b = binary.BigEndian.AppendUint16(e.b, uint16(len(s)))
	e.b = append(e.b, s...)
}
