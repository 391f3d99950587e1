package journal

import "encoding/binary"

// decodeRecord reads a payload: errDamaged unless it is exactly what appendRecord makes of the record returned.
func decodeRecord(b []byte) (Record, error) {
	if len(b) < minPayload {
		return Record{}, errDamaged
	}
	r := Record{Op: Op(b[0]), Flags: b[1], Time: int64(binary.BigEndian.Uint64(b[2:]))}
	d := decoder{has: binary.BigEndian.Uint16(b[10:]), b: b[minPayload:]}
	if r.Op < OpStart || r.Op > OpRemoveXattr || r.Flags&^(FlagExchange|FlagInherited) != 0 || d.has >= hasEnd {
		return Record{}, errDamaged
	}
	d.ident(hasNode, &r.Node)
	d.attr(hasAttr, &r.Attr)
	d.ident(hasParent, &r.Parent)
	d.attr(hasParentAttr, &r.ParentAttr)
	d.text(hasName, &r.Name)
	d.ident(hasNewParent, &r.NewParent)
	d.attr(hasNewParentAttr, &r.NewParentAttr)
	d.text(hasNewName, &r.NewName)
	d.ident(hasOther, &r.Other)
	d.attr(hasOtherAttr, &r.OtherAttr)
	d.text(hasTarget, &r.Target)
	d.text(hasXattrName, &r.XattrName)
	if d.has&hasXattrValue != 0 {
		r.XattrValue = append([]byte{}, d.value()...)
	}
	if d.bad || len(d.b) != 0 {
		return Record{}, errDamaged
	}
	return r, nil
}

// decoder takes fields off b; bad once one was cut short or is there without need.
type decoder struct {
	has uint16
	b   []byte
	bad bool
}

// take returns the next n bytes, nil where there are fewer.
func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) ident(bit uint16, i *Ident) {
	if d.has&bit == 0 {
		return
	}
	b := d.take(24)
	if b == nil {
		return
	}
	*i = Ident{
		FS:    binary.BigEndian.Uint64(b),
		Ino:   binary.BigEndian.Uint64(b[8:]),
		Birth: int64(binary.BigEndian.Uint64(b[16:])),
	}
	d.bad = i.IsZero()
}

func (d *decoder) attr(bit uint16, a *Attr) {
	if d.has&bit == 0 {
		return
	}
	b := d.take(48)
	if b == nil {
		return
	}
	*a = Attr{
		Mode:  binary.BigEndian.Uint32(b),
		UID:   binary.BigEndian.Uint32(b[4:]),
		GID:   binary.BigEndian.Uint32(b[8:]),
		Nlink: binary.BigEndian.Uint32(b[12:]),
		Rdev:  binary.BigEndian.Uint64(b[16:]),
		Size:  int64(binary.BigEndian.Uint64(b[24:])),
		Mtime: int64(binary.BigEndian.Uint64(b[32:])),
		Ctime: int64(binary.BigEndian.Uint64(b[40:])),
	}
	d.bad = *a == Attr{}
}

func (d *decoder) text(bit uint16, s *string) {
	if d.has&bit == 0 {
		return
	}
	head := d.take(2)
	if head == nil {
		return
	}
	*s = string(d.take(int(binary.BigEndian.Uint16(head))))
	if *s == "" {
		d.bad = true
	}
}

func (d *decoder) value() []byte {
	head := d.take(4)
	if head == nil {
		return nil
	}
	n := binary.BigEndian.Uint32(head)
	if n > maxPayload {
		d.bad = true
		return nil
	}
	return d.take(int(n))
}
