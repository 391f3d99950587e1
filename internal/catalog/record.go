package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The buckets and their keys (numbers big-endian, so that their order is bbolt's order). Every value ends with the CRC-32C
// of key and value before it, 4 bytes little-endian, because bbolt itself checks nothing but its two header pages.
//
//	meta       "format"                    uint32 big-endian
//	           "meta"                      Meta
//	           "files"                     number of inodes
//	inodes     file id 8                   Inode
//	entries    parent 8, name              file id 8
//	names      file id 8, parent 8, name   nothing
//	idents     fs 8, inode 8, birth 8      file id 8
//	chunks     chunk id 32                 shard 32, slot
//	shards     digest 32                   ShardInfo
//	batches    sequence 8                  BatchInfo
//	pending    file id 8                   Pending
//	unchecked  file id 8                   nothing
const (
	inMeta = iota
	inInodes
	inEntries
	inNames
	inIdents
	inChunks
	inShards
	inBatches
	inPending
	inUnchecked
	buckets
)

var bucketNames = [buckets]string{"meta", "inodes", "entries", "names", "idents", "chunks", "shards", "batches", "pending", "unchecked"}

const (
	identLen    = 24
	checksumLen = 4
)

var (
	formatKey = []byte("format")
	metaKey   = []byte("meta")
	filesKey  = []byte("files")
)

// writeEmpty fills a new file.
func writeEmpty(tx *bolt.Tx) error {
	for i, name := range bucketNames {
		b, err := tx.CreateBucket([]byte(name))
		if err != nil {
			return err
		}
		if i == inMeta {
			format := binary.BigEndian.AppendUint32(nil, Format)
			if err := b.Put(formatKey, withChecksum(string(formatKey), format)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkFormat(t *Tx) error {
	v, ok, err := t.get(inMeta, formatKey)
	switch {
	case err != nil:
		return err
	case !ok || len(v) != 4:
		return fmt.Errorf("%w: no format number", ErrCorrupt)
	case binary.BigEndian.Uint32(v) > Format:
		return fmt.Errorf("%w: %d, this slipway reads %d", ErrNewer, binary.BigEndian.Uint32(v), Format)
	case binary.BigEndian.Uint32(v) != Format:
		return fmt.Errorf("%w: format number %d", ErrCorrupt, binary.BigEndian.Uint32(v))
	}
	return nil
}

// Tx is a transaction. Getters return false for absent; values are copies. Functions handed to it may call it again and may
// change what they iterate over.
type Tx struct {
	path    string
	damaged func(error) error // notes damage and returns it
	tx      *bolt.Tx          // nil: read without bbolt
	open    func(bucket int) (records, error)
	opened  [buckets]records // nil: not asked for yet

	// Writes wait here and reach bbolt sorted, when a bucket is iterated and at the commit: unsorted inserts into one big
	// leaf cost its whole length each, and 15,000 of them seconds.
	dirty [buckets]map[string][]byte // nil value: deleted
}

// in opens a bucket; under guard.
func (t *Tx) in(bucket int) (records, error) {
	if t.opened[bucket] != nil {
		return t.opened[bucket], nil
	}
	r, err := t.open(bucket)
	if err != nil {
		return nil, t.damaged(fmt.Errorf("catalog %s: %w", t.path, err))
	}
	t.opened[bucket] = r
	return r, nil
}

// guard turns a fault while the file is read into ErrCorrupt.
func (t *Tx) guard(what string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.damaged(fmt.Errorf("catalog %s: %s: %w: %v", t.path, what, ErrCorrupt, p))
		}
	}()
	return fn()
}

// get returns a copy of a value without its checksum.
func (t *Tx) get(bucket int, key []byte) (value []byte, ok bool, err error) {
	if v, is := t.dirty[bucket][string(key)]; is {
		return v, v != nil, nil
	}
	err = t.guard(bucketNames[bucket], func() error {
		b, err := t.in(bucket)
		if err != nil {
			return err
		}
		v, err := b.get(key)
		if err != nil || v == nil {
			return err
		}
		ok = true
		value, err = checked(key, bytes.Clone(v))
		return err
	})
	return value, ok && err == nil, err
}

func checked(key, v []byte) ([]byte, error) {
	n := len(v) - checksumLen
	if n < 0 || binary.LittleEndian.Uint32(v[n:]) != checksum(key, v[:n]) {
		return nil, fmt.Errorf("%w: record %x does not match its checksum", ErrCorrupt, key)
	}
	return v[:n:n], nil
}

func (t *Tx) put(bucket int, key, value []byte) error {
	if err := t.writable(bucket); err != nil {
		return err
	}
	if value == nil {
		value = []byte{}
	}
	t.dirty[bucket][string(key)] = value
	return nil
}

func (t *Tx) delete(bucket int, key []byte) error {
	if err := t.writable(bucket); err != nil {
		return err
	}
	t.dirty[bucket][string(key)] = nil
	return nil
}

func (t *Tx) writable(bucket int) error {
	if t.tx == nil || !t.tx.Writable() {
		return fmt.Errorf("write catalog %s: %w", t.path, berrors.ErrTxNotWritable)
	}
	if t.dirty[bucket] == nil {
		t.dirty[bucket] = make(map[string][]byte)
	}
	return nil
}

// flush hands all waiting writes to bbolt.
func (t *Tx) flush() error {
	for i := range t.dirty {
		if err := t.flushBucket(i); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) flushBucket(bucket int) error {
	dirty := t.dirty[bucket]
	if len(dirty) == 0 {
		return nil
	}
	keys := make([]string, 0, len(dirty))
	for k := range dirty {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	err := t.guard(bucketNames[bucket], func() error {
		b := t.tx.Bucket([]byte(bucketNames[bucket]))
		b.FillPercent = 0.9 // most keys only ever grow at the end
		for _, k := range keys {
			if err := write(b, k, dirty[k]); err != nil {
				return fmt.Errorf("write catalog %s: %s: %w", t.path, bucketNames[bucket], err)
			}
		}
		return nil
	})
	t.dirty[bucket] = nil
	return err
}

func write(b *bolt.Bucket, key string, value []byte) error {
	if value == nil {
		return b.Delete([]byte(key))
	}
	return b.Put([]byte(key), withChecksum(key, value))
}

// step is how many records each copies out before it calls the function.
const step = 512

type record struct{ key, value []byte }

// each calls fn for every record whose key begins with prefix, from the key `from` on, in order. Records are copied out in
// steps and looked for again by key, so fn may write into the same bucket.
func (t *Tx) each(bucket int, prefix, from []byte, fn func(key, value []byte) error) error {
	next := from
	if bytes.Compare(next, prefix) < 0 {
		next = prefix
	}
	for {
		if err := t.flushBucket(bucket); err != nil {
			return err
		}
		list, err := t.some(bucket, prefix, next)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := fn(r.key, r.value); err != nil {
				return err
			}
		}
		if len(list) < step {
			return nil
		}
		next = append(bytes.Clone(list[len(list)-1].key), 0)
	}
}

func (t *Tx) some(bucket int, prefix, from []byte) (list []record, err error) {
	err = t.guard(bucketNames[bucket], func() error {
		b, err := t.in(bucket)
		if err != nil {
			return err
		}
		last := from
		return b.from(from, func(k, v []byte) (more bool, err error) {
			switch {
			case !bytes.HasPrefix(k, prefix):
				return false, nil
			case bytes.Compare(k, last) < 0: // each would never end
				return false, fmt.Errorf("%w: record %x is out of order", ErrCorrupt, k)
			}
			r := record{key: bytes.Clone(k)}
			last = append(bytes.Clone(k), 0)
			r.value, err = checked(r.key, bytes.Clone(v))
			list = append(list, r)
			return len(list) < step, err
		})
	})
	return list, err
}
