package catalog

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// check is of a whole file, before bbolt opens it. bbolt trusts its pages. A page that leads to itself ends in a stack overflow
// and a damaged length in an allocation of any size, neither of which Go can catch; so the page structure is checked first: who
// leads to whom, what is free, and that every element lies inside its page. What the elements hold is covered by the records'
// checksums.
type check struct {
	*pages
	workers *errgroup.Group
	seen    []uint64 // a bit per page; atomic
}

const maxDepth = 32 // a tree of this depth cannot be filled by any disk

func checkPages(f *os.File) error {
	p, err := mapPages(f)
	if err != nil {
		return err
	}
	return errors.Join(checkAll(p), p.unmap())
}

func checkAll(p *pages) error {
	if err := p.readMeta(); err != nil {
		return err
	}
	c := &check{pages: p, workers: &errgroup.Group{}, seen: make([]uint64, p.high/64+1)}
	c.workers.SetLimit(runtime.NumCPU())
	for _, id := range []uint64{0, 1} {
		if err := c.mark(id, 0); err != nil {
			return err
		}
	}
	err := c.tree(p.root, 0, true)
	if err := errors.Join(err, c.workers.Wait()); err != nil {
		return err
	}
	return c.free()
}

// mark notes that a page and those it overflows into are in use, once.
func (c *check) mark(id, overflow uint64) error {
	if id >= c.high || overflow >= c.high-id {
		return corrupt("page %d is beyond the end", id)
	}
	for i := id; i <= id+overflow; i++ {
		if bit := uint64(1) << (i % 64); atomic.OrUint64(&c.seen[i/64], bit)&bit != 0 {
			return corrupt("page %d is used twice", i)
		}
	}
	return nil
}

// load reads a page that nothing else may lead to.
func (c *check) load(id uint64) (b []byte, flags uint16, count int, err error) {
	if b, flags, count, err = c.page(id); err != nil {
		return nil, 0, 0, err
	}
	return b, flags, count, c.mark(id, uint64(order.Uint32(b[12:])))
}

// tree checks the pages below id. top: its leaves hold the buckets.
func (c *check) tree(id uint64, depth int, top bool) error {
	b, flags, count, err := c.load(id)
	if err != nil {
		return err
	}
	switch {
	case depth > maxDepth:
		return corrupt("page %d lies too deep", id)
	case flags == flagLeaf:
		return c.leaf(b, id, count, top)
	case flags != flagBranch || count == 0:
		return corrupt("page %d is neither branch nor leaf", id)
	}
	for i := range count {
		_, child, err := branch(b, id, i)
		if err != nil {
			return err
		}
		below := func() error { return c.tree(child, depth+1, top) }
		if depth > 0 || !c.workers.TryGo(guarded(below)) {
			if err := below(); err != nil {
				return err
			}
		}
	}
	return nil
}

// guarded makes an error of a fault: each worker has to be ready for one by itself.
func guarded(fn func() error) func() error {
	return func() (err error) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if p := recover(); p != nil {
				err = corrupt("%v", p)
			}
		}()
		return fn()
	}
}

func (c *check) leaf(b []byte, id uint64, count int, top bool) error {
	kind := uint32(0)
	if top {
		kind = leafBucket
	}
	for i := range count {
		_, value, err := leaf(b, id, i, kind)
		if err == nil && top {
			err = c.bucket(value, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket's tree, or the small page that stands in its place.
func (c *check) bucket(v []byte, id uint64) error {
	if len(v) < bucketHeader {
		return corrupt("page %d: bucket of %d bytes", id, len(v))
	}
	if root := order.Uint64(v); root != 0 {
		return c.tree(root, 0, false)
	}
	v = v[bucketHeader:]
	if len(v) < pageHeader || order.Uint16(v[8:]) != flagLeaf {
		return corrupt("page %d: inline bucket is not a leaf", id)
	}
	return c.leaf(v, id, int(order.Uint16(v[10:])), false)
}

// free checks the list of free pages: none of them may be in use, or the next commit writes over it.
func (c *check) free() error {
	b, flags, count, err := c.load(c.freelist)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return corrupt("page %d is not a free list", c.freelist)
	}
	ids := b[pageHeader:]
	n := uint64(count)
	if count == 0xFFFF { // the number did not fit: it is the first element
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return corrupt("free list is cut short")
	}
	for i := range n {
		if err := c.mark(order.Uint64(ids[i*8:]), 0); err != nil {
			return fmt.Errorf("free list: %w", err)
		}
	}
	return nil
}
