package catalog

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// records is a bucket as it is read: through bbolt, or page by page without it.
type records interface {
	// get returns the value of a key as it lies in the file; nil: there is none.
	get(key []byte) ([]byte, error)
	// from calls fn for each record from a key on, in order, until it says that it wants no more. What it is given lies in the file.
	from(key []byte, fn func(k, v []byte) (more bool, err error)) error
}

func missing(bucket int) error {
	return fmt.Errorf("%w: bucket %s is not there", ErrCorrupt, bucketNames[bucket])
}

type boltBucket struct{ *bolt.Bucket }

// boltRecords opens buckets through bbolt, which trusts the pages.
func boltRecords(tx *bolt.Tx) func(bucket int) (records, error) {
	return func(bucket int) (records, error) {
		if b := tx.Bucket([]byte(bucketNames[bucket])); b != nil {
			return boltBucket{b}, nil
		}
		return nil, missing(bucket)
	}
}

func (b boltBucket) get(key []byte) ([]byte, error) { return b.Get(key), nil }

func (b boltBucket) from(key []byte, fn func(k, v []byte) (bool, error)) error {
	c := b.Cursor()
	for k, v := c.Seek(key); k != nil; k, v = c.Next() {
		if more, err := fn(k, v); !more || err != nil {
			return err
		}
	}
	return nil
}

// pageBucket is a bucket that is read page by page; only the pages that lead to a record are looked at, and each is checked.
type pageBucket struct {
	*pages
	root   uint64
	inline []byte // the small page that stands in the root's place
	kind   uint32 // of its elements
}

func (p *pages) records(bucket int) (records, error) {
	name := []byte(bucketNames[bucket])
	v, err := pageBucket{pages: p, root: p.root, kind: leafBucket}.get(name)
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		return nil, missing(bucket)
	case len(v) < bucketHeader:
		return nil, corrupt("bucket %s of %d bytes", name, len(v))
	}
	return pageBucket{pages: p, root: order.Uint64(v), inline: v[bucketHeader:]}, nil
}

func (b pageBucket) get(key []byte) (value []byte, err error) {
	err = b.from(key, func(k, v []byte) (bool, error) {
		if bytes.Equal(k, key) {
			value = v
		}
		return false, nil
	})
	return value, err
}

func (b pageBucket) from(key []byte, fn func(k, v []byte) (bool, error)) error {
	s := search{b, key, fn}
	if b.root != 0 {
		_, err := s.below(b.root, 0, bounds{})
		return err
	}
	if len(b.inline) < pageHeader || order.Uint16(b.inline[8:]) != flagLeaf {
		return corrupt("an inline bucket is not a leaf")
	}
	_, err := s.leaf(b.inline, 0, int(order.Uint16(b.inline[10:])), bounds{})
	return err
}

// search is one pass over the records of a tree.
type search struct {
	pageBucket
	start []byte
	fn    func(k, v []byte) (more bool, err error)
}

// bounds is which keys may lie below a page: from low on, below high; nil: any.
type bounds struct{ low, high []byte }

// check takes the keys of a page one after the other.
func (b *bounds) check(key []byte, id uint64) error {
	if bytes.Compare(key, b.low) < 0 || b.high != nil && bytes.Compare(key, b.high) >= 0 {
		return corrupt("page %d: key %x is out of order", id, key)
	}
	b.low = key
	return nil
}

// below passes over what lies below a page.
func (s *search) below(id uint64, depth int, keys bounds) (more bool, err error) {
	b, flags, count, err := s.page(id)
	switch {
	case err != nil:
		return false, err
	case depth > maxDepth:
		return false, corrupt("page %d lies too deep", id)
	case flags == flagLeaf:
		return s.leaf(b, id, count, keys)
	case flags != flagBranch || count == 0:
		return false, corrupt("page %d is neither branch nor leaf", id)
	}
	for i := range count {
		key, child, err := branch(b, id, i)
		if err != nil {
			return false, err
		}
		if err := keys.check(key, id); err != nil {
			return false, err
		}
		within := bounds{key, keys.high}
		if i+1 < count {
			if within.high, _, err = branch(b, id, i+1); err != nil {
				return false, err
			}
			if bytes.Compare(within.high, s.start) <= 0 {
				continue // all of it lies before
			}
		}
		if more, err := s.below(child, depth+1, within); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// leaf passes over the records of a leaf page.
func (s *search) leaf(b []byte, id uint64, count int, keys bounds) (more bool, err error) {
	for i := range count {
		key, value, err := leaf(b, id, i, s.kind)
		if err != nil {
			return false, err
		}
		if err := keys.check(key, id); err != nil {
			return false, err
		}
		if bytes.Compare(key, s.start) < 0 {
			continue
		}
		if more, err := s.fn(key, value); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}
