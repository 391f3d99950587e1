package catalog

import (
	"encoding/binary"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/journal"
)

// Meta returns the volume's state; zero before the first SetMeta.
func (t *Tx) Meta() (Meta, error) {
	v, ok, err := t.get(inMeta, metaKey)
	if err != nil || !ok {
		return Meta{}, err
	}
	d := dec{b: v}
	m := d.meta()
	return m, d.done()
}

// SetMeta writes it.
func (t *Tx) SetMeta(m Meta) error {
	var e enc
	e.meta(&m)
	return t.put(inMeta, metaKey, e.b)
}

// Files returns the number of inodes.
func (t *Tx) Files() (int64, error) {
	v, ok, err := t.get(inMeta, filesKey)
	if err != nil || !ok {
		return 0, err
	}
	d := dec{b: v}
	n := d.i()
	return n, d.done()
}

func (t *Tx) addFiles(n int64) error {
	have, err := t.Files()
	if err != nil {
		return err
	}
	var e enc
	e.i(have + n)
	return t.put(inMeta, filesKey, e.b)
}

// Inode returns the file with this id.
func (t *Tx) Inode(id batch.FileID) (Inode, bool, error) {
	v, ok, err := t.get(inInodes, idKey(id))
	if err != nil || !ok {
		return Inode{}, false, err
	}
	d := dec{b: v}
	in := d.inode(id)
	if err := d.done(); err != nil {
		return Inode{}, false, fmt.Errorf("read inode %d: %w", id, err)
	}
	return in, true, nil
}

// Inodes calls fn for each inode in order of ids.
func (t *Tx) Inodes(fn func(*Inode) error) error {
	return t.each(inInodes, nil, nil, func(k, v []byte) error {
		id, err := asID(k)
		if err != nil {
			return err
		}
		d := dec{b: v}
		in := d.inode(id)
		if err := d.done(); err != nil {
			return fmt.Errorf("read inode %d: %w", id, err)
		}
		return fn(&in)
	})
}

// PutInode writes a file's state and makes its Ident lead to it; the Ident it had before leads to it no longer.
func (t *Tx) PutInode(in *Inode) error {
	key := idKey(in.ID)
	old, had, err := t.get(inInodes, key)
	if err != nil {
		return err
	}
	if had {
		d := dec{b: old}
		if was := d.ident(); was != in.Ident {
			if err := t.dropIdent(was, in.ID); err != nil {
				return err
			}
		}
	} else if err := t.addFiles(1); err != nil {
		return err
	}
	var e enc
	e.inode(in)
	if err := t.put(inInodes, key, e.b); err != nil {
		return err
	}
	if in.Ident.IsZero() {
		return nil
	}
	return t.put(inIdents, identKey(in.Ident), idKey(in.ID))
}

// DeleteInode removes a file and the mapping of its Ident, if that still leads to it.
func (t *Tx) DeleteInode(id batch.FileID) error {
	key := idKey(id)
	old, had, err := t.get(inInodes, key)
	if err != nil || !had {
		return err
	}
	d := dec{b: old}
	if err := t.dropIdent(d.ident(), id); err != nil {
		return err
	}
	if err := t.addFiles(-1); err != nil {
		return err
	}
	return t.delete(inInodes, key)
}

func (t *Tx) dropIdent(i journal.Ident, id batch.FileID) error {
	now, ok, err := t.ByIdent(i)
	if err != nil || !ok || now != id {
		return err
	}
	return t.delete(inIdents, identKey(i))
}

// ByIdent returns the file that an object of the source is.
func (t *Tx) ByIdent(i journal.Ident) (batch.FileID, bool, error) { return t.id(inIdents, identKey(i)) }

// Lookup returns the file that an entry leads to.
func (t *Tx) Lookup(parent batch.FileID, name string) (batch.FileID, bool, error) {
	return t.id(inEntries, entryKey(parent, name))
}

func (t *Tx) id(bucket int, key []byte) (batch.FileID, bool, error) {
	v, ok, err := t.get(bucket, key)
	if err != nil || !ok {
		return 0, false, err
	}
	id, err := asID(v)
	return id, err == nil, err
}

func asID(v []byte) (batch.FileID, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: a file id of %d bytes", ErrCorrupt, len(v))
	}
	return batch.FileID(binary.BigEndian.Uint64(v)), nil
}

// PutEntry makes an entry lead to a file, whatever it led to before.
func (t *Tx) PutEntry(parent batch.FileID, name string, id batch.FileID) error {
	if err := t.DeleteEntry(parent, name); err != nil {
		return err
	}
	if err := t.put(inEntries, entryKey(parent, name), idKey(id)); err != nil {
		return err
	}
	return t.put(inNames, nameKey(id, parent, name), nil)
}

// DeleteEntry removes an entry, if it is there.
func (t *Tx) DeleteEntry(parent batch.FileID, name string) error {
	was, ok, err := t.Lookup(parent, name)
	if err != nil || !ok {
		return err
	}
	if err := t.delete(inNames, nameKey(was, parent, name)); err != nil {
		return err
	}
	return t.delete(inEntries, entryKey(parent, name))
}

// Entries calls fn for each entry of a directory in byte order of names.
func (t *Tx) Entries(parent batch.FileID, fn func(name string, id batch.FileID) error) error {
	return t.each(inEntries, idKey(parent), nil, func(k, v []byte) error {
		id, err := asID(v)
		if err != nil {
			return err
		}
		return fn(string(k[8:]), id)
	})
}

// Names calls fn for each entry that leads to id.
func (t *Tx) Names(id batch.FileID, fn func(parent batch.FileID, name string) error) error {
	return t.each(inNames, idKey(id), nil, func(k, _ []byte) error {
		if len(k) < 16 {
			return fmt.Errorf("%w: a name's key of %d bytes", ErrCorrupt, len(k))
		}
		return fn(batch.FileID(binary.BigEndian.Uint64(k[8:])), string(k[16:]))
	})
}
