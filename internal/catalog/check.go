package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bbolt trusts its pages. A page that leads to itself ends in a stack overflow and a damaged length in an allocation of any
// size, neither of which Go can catch; so the page structure is checked here first: who leads to whom, what
// is free, and that every element lies inside its page. What the elements hold is covered by the records' checksums.
//
// A page of bbolt (numbers in the machine's byte order):
//
//	0  id u64   8  flags u16   10  count u16   12  overflow u32   16  elements
//	branch element  pos u32, key size u32, page u64                         (16 bytes)
//	leaf element    flags u32, pos u32, key size u32, value size u32        (16 bytes)
//	meta page at 16: magic u32, version u32, page size u32, flags u32, root page u64, root sequence u64,
//	                 freelist page u64, high water u64, transaction u64, FNV-1a 64 of the 56 bytes before
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	magic       = 0xED0CDAED
	version     = 2

	flagBranch   = 1
	flagLeaf     = 2
	flagFreelist = 0x10
	leafBucket   = 1

	maxDepth     = 32 // a tree of this depth cannot be filled by any disk
	maxPageBytes = 1 << 30
)

var order = binary.NativeEndian

// pages is a file under check.
type pages struct {
	data     []byte // the file, mapped: whoever reads it is ready for a fault
	workers  *errgroup.Group
	size     uint64
	pageSize uint64
	high     uint64 // pages from here on are not in use
	root     uint64
	freelist uint64
	txid     uint64
	seen     []uint64 // a bit per page; atomic
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func checkPages(f *os.File) error {
	p, err := mapPages(f)
	if err != nil {
		return err
	}
	return errors.Join(p.check(), p.unmap())
}

// mapPages maps a file as far as it reaches now.
func mapPages(f *os.File) (*pages, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, corrupt("not a regular file")
	}
	if st.Size() < pageHeader+metaSize {
		return nil, corrupt("file of %d bytes", st.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map pages: %w", err)
	}
	return &pages{data: data, size: uint64(st.Size())}, nil
}

func (p *pages) unmap() error {
	data := p.data
	p.data = nil
	return unix.Munmap(data)
}

func (p *pages) check() error {
	if err := p.readMeta(); err != nil {
		return err
	}
	p.workers = &errgroup.Group{}
	p.workers.SetLimit(runtime.NumCPU())
	p.seen = make([]uint64, p.high/64+1)
	for _, id := range []uint64{0, 1} {
		if err := p.mark(id, 0); err != nil {
			return err
		}
	}
	err := p.tree(p.root, 0, true)
	if err := errors.Join(err, p.workers.Wait()); err != nil {
		return err
	}
	return p.free()
}

func (p *pages) read(off, n uint64) ([]byte, error) {
	if off > p.size || n > p.size-off {
		return nil, corrupt("file ends before byte %d", off+n)
	}
	return p.data[off : off+n : off+n], nil
}

// readMeta finds the newest of the two header pages, as bbolt will.
func (p *pages) readMeta() error {
	first, err := p.read(0, pageHeader+metaSize)
	if err != nil {
		return err
	}
	ok := p.meta(first[pageHeader:])
	sizes := []uint64{p.pageSize}
	if !ok { // the first is damaged: the second lies at one of the sizes a page may have
		sizes = nil
		for s := uint64(1024); s <= 16<<20; s *= 2 {
			sizes = append(sizes, s)
		}
	}
	for _, s := range sizes {
		b, err := p.read(s, pageHeader+metaSize)
		if err != nil {
			break
		}
		was := *p
		if !p.meta(b[pageHeader:]) || ok && p.txid < was.txid {
			*p = was
			continue
		}
		if p.pageSize != s {
			return corrupt("page sizes differ")
		}
		ok = true
		break
	}
	if !ok {
		return corrupt("no valid header page")
	}
	if p.high < 4 || p.high > p.size/p.pageSize {
		return corrupt("file of %d bytes is cut short: %d pages of %d bytes", p.size, p.high, p.pageSize)
	}
	return nil
}

func (p *pages) meta(b []byte) bool {
	h := fnv.New64a()
	_, _ = h.Write(b[:metaSize-8]) // a hash takes everything
	if order.Uint32(b) != magic || order.Uint32(b[4:]) != version || order.Uint64(b[metaSize-8:]) != h.Sum64() {
		return false
	}
	p.pageSize = uint64(order.Uint32(b[8:]))
	p.root, p.freelist = order.Uint64(b[16:]), order.Uint64(b[32:])
	p.high, p.txid = order.Uint64(b[40:]), order.Uint64(b[48:])
	return p.pageSize >= 1024 && p.pageSize <= 16<<20 && p.pageSize&(p.pageSize-1) == 0
}

// mark notes that a page and those it overflows into are in use, once.
func (p *pages) mark(id, overflow uint64) error {
	if id >= p.high || overflow >= p.high-id {
		return corrupt("page %d is beyond the end", id)
	}
	for i := id; i <= id+overflow; i++ {
		if bit := uint64(1) << (i % 64); atomic.OrUint64(&p.seen[i/64], bit)&bit != 0 {
			return corrupt("page %d is used twice", i)
		}
	}
	return nil
}

// load reads a page with its overflow and checks its header.
func (p *pages) load(id uint64) (b []byte, flags uint16, count int, err error) {
	if id < 2 || id >= p.high {
		return nil, 0, 0, corrupt("page %d is beyond the end", id)
	}
	if b, err = p.read(id*p.pageSize, p.pageSize); err != nil {
		return nil, 0, 0, err
	}
	overflow := uint64(order.Uint32(b[12:]))
	if order.Uint64(b) != id {
		return nil, 0, 0, corrupt("page %d calls itself %d", id, order.Uint64(b))
	}
	if err = p.mark(id, overflow); err != nil {
		return nil, 0, 0, err
	}
	if overflow > 0 {
		if (overflow+1)*p.pageSize > maxPageBytes {
			return nil, 0, 0, corrupt("page %d is too large", id)
		}
		if b, err = p.read(id*p.pageSize, (overflow+1)*p.pageSize); err != nil {
			return nil, 0, 0, err
		}
	}
	return b, order.Uint16(b[8:]), int(order.Uint16(b[10:])), nil
}

// tree checks the pages below id. top: its leaves hold the buckets.
func (p *pages) tree(id uint64, depth int, top bool) error {
	b, flags, count, err := p.load(id)
	if err != nil {
		return err
	}
	switch {
	case depth > maxDepth:
		return corrupt("page %d lies too deep", id)
	case flags == flagLeaf:
		return p.leaf(b, id, count, top)
	case flags != flagBranch || count == 0:
		return corrupt("page %d is neither branch nor leaf", id)
	}
	for i := range count {
		e, err := element(b, id, i)
		if err != nil {
			return err
		}
		if _, err := span(b, id, e, order.Uint32(e), order.Uint32(e[4:]), 0); err != nil {
			return err
		}
		below := func() error { return p.tree(order.Uint64(e[8:]), depth+1, top) }
		if depth > 0 || !p.workers.TryGo(guarded(below)) {
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

func (p *pages) leaf(b []byte, id uint64, count int, top bool) error {
	for i := range count {
		e, err := element(b, id, i)
		if err != nil {
			return err
		}
		key, size := order.Uint32(e[8:]), order.Uint32(e[12:])
		kv, err := span(b, id, e, order.Uint32(e[4:]), key, size)
		if err != nil {
			return err
		}
		switch flags := order.Uint32(e); {
		case !top && flags != 0, top && flags != leafBucket:
			return corrupt("page %d: element %d is of an unknown kind", id, i)
		case top:
			if err := p.bucket(kv[key:], id); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks a bucket's tree, or the small page that stands in its place.
func (p *pages) bucket(v []byte, id uint64) error {
	if len(v) < 16 {
		return corrupt("page %d: bucket of %d bytes", id, len(v))
	}
	if root := order.Uint64(v); root != 0 {
		return p.tree(root, 0, false)
	}
	v = v[16:]
	if len(v) < pageHeader || order.Uint16(v[8:]) != flagLeaf {
		return corrupt("page %d: inline bucket is not a leaf", id)
	}
	return p.leaf(v, id, int(order.Uint16(v[10:])), false)
}

func element(b []byte, id uint64, i int) ([]byte, error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(b) {
		return nil, corrupt("page %d: element %d is beyond its end", id, i)
	}
	return b[at:], nil
}

// span returns the key and value of an element; pos counts from the element.
func span(b []byte, id uint64, e []byte, pos, key, value uint32) ([]byte, error) {
	end := uint64(pos) + uint64(key) + uint64(value)
	if uint64(pos) < elementSize || end > uint64(len(e)) || key == 0 {
		return nil, corrupt("page %d: element at %d is beyond its end", id, len(b)-len(e))
	}
	return e[pos:end], nil
}

// free checks the list of free pages: none of them may be in use, or the next commit writes over it.
func (p *pages) free() error {
	b, flags, count, err := p.load(p.freelist)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return corrupt("page %d is not a free list", p.freelist)
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
		if err := p.mark(order.Uint64(ids[i*8:]), 0); err != nil {
			return fmt.Errorf("free list: %w", err)
		}
	}
	return nil
}
