package catalog

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"

	"golang.org/x/sys/unix"
)

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

	bucketHeader = 16 // root page u64 (0: a leaf page follows in its place), sequence u64
	maxPageBytes = 1 << 30
)

var order = binary.NativeEndian

// pages is a catalog's file as its pages, each checked when it is read.
type pages struct {
	data     []byte // the file, mapped: whoever reads it is ready for a fault
	size     uint64
	pageSize uint64
	high     uint64 // pages from here on are not in use
	root     uint64
	freelist uint64
	txid     uint64
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
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

// page reads a page with its overflow and checks its header.
func (p *pages) page(id uint64) (b []byte, flags uint16, count int, err error) {
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
	if overflow >= p.high-id {
		return nil, 0, 0, corrupt("page %d reaches beyond the end", id)
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

// branch returns an element of a branch page: the first key below it, and the page that leads there.
func branch(b []byte, id uint64, i int) (key []byte, child uint64, err error) {
	e, err := element(b, id, i)
	if err != nil {
		return nil, 0, err
	}
	key, err = span(b, id, e, order.Uint32(e), order.Uint32(e[4:]), 0)
	return key, order.Uint64(e[8:]), err
}

// leaf returns an element of a leaf page, which has to be of a kind: 0 or leafBucket.
func leaf(b []byte, id uint64, i int, kind uint32) (key, value []byte, err error) {
	e, err := element(b, id, i)
	if err != nil {
		return nil, nil, err
	}
	if order.Uint32(e) != kind {
		return nil, nil, corrupt("page %d: element %d is of an unknown kind", id, i)
	}
	n := order.Uint32(e[8:])
	kv, err := span(b, id, e, order.Uint32(e[4:]), n, order.Uint32(e[12:]))
	if err != nil {
		return nil, nil, err
	}
	return kv[:n:n], kv[n:], nil
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
