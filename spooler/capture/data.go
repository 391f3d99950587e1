package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"slipway/internal/batch"
	"slipway/internal/chunk"
)

// errUnlisted: the capture has too many pieces for one content and its list was not packed.
var errUnlisted = errors.New("list of pieces is not packed yet")

// smallBuffers hold a file below chunk.Min: one chunk, read at once.
var smallBuffers = sync.Pool{New: func() any { return new([chunk.Min]byte) }}

// pack cuts the data and places every chunk. A file of thousands is most often small: that way needs no cutter.
func (c *Capturer) pack(ctx context.Context, r *dataReader, p *Packer) ([]*placed, error) {
	if r.total < chunk.Min {
		return packSmall(ctx, r, p)
	}
	cutter, err := c.keys.NewCutter(r)
	if err != nil {
		return nil, err
	}
	defer cutter.Close()
	pieces := make([]*placed, 0, r.total/chunk.Mean+1)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := cutter.Next()
		if errors.Is(err, io.EOF) {
			return pieces, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := p.add(ctx, data)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, at)
	}
}

func packSmall(ctx context.Context, r *dataReader, p *Packer) ([]*placed, error) {
	if r.total == 0 {
		return nil, nil
	}
	buf := smallBuffers.Get().(*[chunk.Min]byte)
	defer smallBuffers.Put(buf)
	n, err := io.ReadFull(r, buf[:r.total])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	at, err := p.add(ctx, buf[:n])
	if err != nil {
		return nil, err
	}
	return []*placed{at}, nil
}

// span is a range of a file that holds data.
type span struct{ from, to int64 }

// dataReader reads a file's data from first to last span, holes left out.
type dataReader struct {
	f     *os.File
	spans []span
	holes []batch.Hole
	size  int64 // as it was when reading began
	total int64 // bytes in spans
	bytes int64 // read
	short bool  // the file ended before its last span; spans then begins with the place where
}

func newDataReader(f *os.File, size int64, holes [][2]int64) *dataReader {
	holes = largestHoles(holes)
	r := &dataReader{f: f, size: size}
	at := int64(0)
	for _, h := range holes {
		from, to := h[0], min(h[0]+h[1], size)
		if from >= to || from < at {
			continue
		}
		if from > at {
			r.spans = append(r.spans, span{at, from})
			r.total += from - at
		}
		r.holes = append(r.holes, batch.Hole{Offset: from, Len: to - from})
		at = to
	}
	if at < size {
		r.spans = append(r.spans, span{at, size})
		r.total += size - at
	}
	return r
}

// Read implements io.Reader over the spans.
func (r *dataReader) Read(b []byte) (int, error) {
	if len(r.spans) == 0 || r.short {
		return 0, io.EOF
	}
	s := &r.spans[0]
	b = b[:min(int64(len(b)), s.to-s.from)]
	n, err := r.f.ReadAt(b, s.from)
	s.from += int64(n)
	r.bytes += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		r.short = true
	case err != nil:
		return n, fmt.Errorf("read at %d: %w", s.from, err)
	case s.from == s.to:
		r.spans = r.spans[1:]
	}
	return n, nil
}

// largestHoles keeps as many holes as a record may name; the smallest beyond that are read as the zeros they stand for.
func largestHoles(holes [][2]int64) [][2]int64 {
	if len(holes) <= batch.MaxHoles {
		return holes
	}
	kept := slices.Clone(holes)
	slices.SortStableFunc(kept, func(a, b [2]int64) int { return cmp.Compare(b[1], a[1]) })
	kept = kept[:batch.MaxHoles]
	slices.SortFunc(kept, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	return kept
}

// extent returns the size and the holes that fit what was read: those of a truncated file end where its data did.
func (r *dataReader) extent() (int64, []batch.Hole) {
	if !r.short {
		return r.size, r.holes
	}
	end := r.spans[0].from
	n := 0
	for n < len(r.holes) && r.holes[n].Offset < end {
		n++
	}
	return end, r.holes[:n]
}

// NeedsLists tells that the capture has so many pieces that PackLists has to come before content.
func (c *Captured) NeedsLists() bool {
	return c.Err == nil && len(c.pieces) > batch.MaxPieces && c.lists == nil
}

// PackLists cuts the list of a huge file's pieces by content and packs the parts as chunks of their own. Every piece must be
// published; FlushAll has to follow.
func (c *Captured) PackLists(ctx context.Context, p *Packer) error {
	pieces, err := resolvePieces(c.pieces)
	if err != nil {
		return err
	}
	var lists []*placed
	for _, data := range batch.CutLists(pieces) {
		at, err := p.add(ctx, data)
		if err != nil {
			return fmt.Errorf("pack list of pieces: %w", err)
		}
		lists = append(lists, at)
	}
	c.lists = lists
	return nil
}

// Content is what the batch says of the file. An error means that a shard it refers to could not be published.
func (c *Captured) Content() (*batch.Content, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	if c.NeedsLists() {
		return nil, errUnlisted
	}
	out := &batch.Content{Size: c.Size, Holes: c.holes, Clean: c.Clean}
	pieces, err := resolvePieces(c.pieces)
	if err != nil {
		return nil, err
	}
	if c.lists == nil {
		out.Pieces = pieces
		return out, nil
	}
	out.Lists, err = resolvePieces(c.lists)
	return out, err
}

// Through is the Serial of the youngest shard that the capture needs, 0 for none: a batch that introduces shards up to there
// may name it.
func (c *Captured) Through() uint64 {
	last := uint64(0)
	for _, p := range c.pieces {
		last = max(last, p.serial())
	}
	for _, p := range c.lists {
		last = max(last, p.serial())
	}
	return last
}

func resolvePieces(ps []*placed) ([]batch.Piece, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	out := make([]batch.Piece, len(ps))
	for i, p := range ps {
		var err error
		if out[i], err = p.piece(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
