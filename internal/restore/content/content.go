// Package content puts the bytes of files together from the chunks of shards. It keeps the shards read last, bounded in
// memory, so that files asked for in the order in which they were sealed cost each shard once.
//
// It only reads, so a crash leaves nothing behind.
package content

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/restore/chain"
	"slipway/internal/shard"
)

// Memory: shards in the cache and on their way together stay below cacheBytes.
const (
	cacheBytes  = 64 << 20
	loads       = 4 // shards read from stores at once
	chunksAhead = 4 // chunks of one file read at once
)

// Error is why content could not be read from the stores, told apart from why it could not be written.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Reader reads content. Safe for concurrent use.
type Reader struct {
	from *chain.Reader
	keys *chunk.Keys // nil when no batch that was read holds the secret: then the shard's digest alone vouches for its chunks
	turn chan struct{}

	mu     sync.Mutex
	shards map[shard.Digest]*cached
	recent *list.List // of *cached that are loaded, the last used first
	bytes  int64      // of those, and a whole shard for each on its way
}

type cached struct {
	digest shard.Digest
	ready  chan struct{} // closed when the rest is set
	reader *shard.Reader
	size   int64
	err    error
	place  *list.Element
}

// NewReader reads shards from the stores. keys check each chunk; nil when the volume's secret is not known.
func NewReader(from *chain.Reader, keys *chunk.Keys) *Reader {
	return &Reader{
		from: from, keys: keys, turn: make(chan struct{}, loads),
		shards: make(map[shard.Digest]*cached), recent: list.New(),
	}
}

// shard returns an opened shard; whoever asks first reads it, the others wait.
func (r *Reader) shard(ctx context.Context, d shard.Digest) (*shard.Reader, error) {
	for {
		c, mine := r.claim(d)
		if mine {
			r.load(ctx, c)
			return c.reader, c.err
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !errors.Is(c.err, context.Canceled) || ctx.Err() != nil {
			return c.reader, c.err
		}
		// Whoever read it gave up, for a reason of its own.
	}
}

func (r *Reader) claim(d shard.Digest) (c *cached, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.shards[d]; ok {
		if c.place != nil {
			r.recent.MoveToFront(c.place)
		}
		return c, false
	}
	c = &cached{digest: d, ready: make(chan struct{})}
	r.shards[d] = c
	return c, true
}

// load reads a claimed shard. One that could not be read is forgotten: asked for again, it is looked for again.
func (r *Reader) load(ctx context.Context, c *cached) {
	defer close(c.ready)
	select {
	case r.turn <- struct{}{}:
		r.makeRoom()
		c.reader, c.size, c.err = r.from.OpenShard(ctx, c.digest)
		<-r.turn
	case <-ctx.Done():
		c.err = ctx.Err()
		r.mu.Lock()
		delete(r.shards, c.digest)
		r.mu.Unlock()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= shard.MaxSize
	if c.err != nil {
		delete(r.shards, c.digest)
		return
	}
	r.bytes += c.size
	c.place = r.recent.PushFront(c)
}

func (r *Reader) makeRoom() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += shard.MaxSize
	for r.bytes > cacheBytes && r.recent.Len() > 0 {
		last := r.recent.Remove(r.recent.Back()).(*cached)
		delete(r.shards, last.digest)
		r.bytes -= last.size
	}
}

// chunk reads one chunk.
func (r *Reader) chunk(ctx context.Context, p *batch.Piece) ([]byte, error) {
	s, err := r.shard(ctx, p.Shard)
	if err != nil {
		return nil, &Error{err}
	}
	data, err := s.Chunk(p.Slot, r.keys)
	if err != nil {
		return nil, &Error{fmt.Errorf("shard %s: %w", p.Shard, err)}
	}
	return data, nil
}

func wrong(what string) error { return &Error{fmt.Errorf("%w: %s", batch.ErrCorrupt, what)} }

// part is a run of bytes of a chunk and where it goes in the file.
type part struct {
	offset   int64
	from, to int64 // in the chunk
}

// layout places pieces in a file: they fill what its holes leave, in order.
type layout struct {
	holes []batch.Hole
	pos   int64
	size  int64
}

func (l *layout) place(n int64) ([]part, error) {
	var parts []part
	for at := int64(0); at < n; {
		end := l.size
		if len(l.holes) > 0 {
			end = l.holes[0].Offset
			if l.pos == end {
				l.pos += l.holes[0].Len
				l.holes = l.holes[1:]
				continue
			}
		}
		k := min(n-at, end-l.pos)
		if k <= 0 {
			return nil, wrong("its pieces are longer than the file")
		}
		parts = append(parts, part{l.pos, at, at + k})
		at, l.pos = at+k, l.pos+k
	}
	return parts, nil
}

// rest tells whether the pieces were all that the file holds.
func (l *layout) rest() error {
	for len(l.holes) > 0 && l.holes[0].Offset == l.pos {
		l.pos += l.holes[0].Len
		l.holes = l.holes[1:]
	}
	if l.pos != l.size {
		return wrong("its pieces are shorter than the file")
	}
	return nil
}

func newLayout(c *batch.Content) (*layout, error) {
	end := int64(0)
	for _, h := range c.Holes {
		if h.Offset < end || h.Len <= 0 || h.Offset > math.MaxInt64-h.Len {
			return nil, wrong("its holes overlap")
		}
		end = h.Offset + h.Len
	}
	if c.Size < end {
		return nil, wrong("its holes are longer than the file")
	}
	return &layout{holes: c.Holes, size: c.Size}, nil
}

// each calls fn for the pieces of a file in order, with where their bytes go. Lists of pieces are read as they are reached.
func (r *Reader) each(ctx context.Context, c *batch.Content, fn func(p *batch.Piece, parts []part) error) error {
	l, err := newLayout(c)
	if err != nil {
		return err
	}
	place := func(pieces []batch.Piece) error {
		for i := range pieces {
			parts, err := l.place(pieces[i].Len)
			if err != nil {
				return err
			}
			if err := fn(&pieces[i], parts); err != nil {
				return err
			}
		}
		return nil
	}
	if err := place(c.Pieces); err != nil {
		return err
	}
	for i := range c.Lists {
		data, err := r.chunk(ctx, &c.Lists[i])
		if err != nil {
			return err
		}
		pieces, err := batch.DecodeList(data)
		if err != nil {
			return &Error{err}
		}
		if err := place(pieces); err != nil {
			return err
		}
	}
	return l.rest()
}

// Pieces calls fn for every piece of a file in order, those in its lists included.
func (r *Reader) Pieces(ctx context.Context, c *batch.Content, fn func(*batch.Piece) error) error {
	return r.each(ctx, c, func(p *batch.Piece, _ []part) error { return fn(p) })
}

// WriteAt writes a file's content into w, holes left out, several chunks at once. wrote is told of every run of bytes.
func (r *Reader) WriteAt(ctx context.Context, c *batch.Content, w io.WriterAt, wrote func(int64)) error {
	write := func(ctx context.Context, p *batch.Piece, parts []part) error {
		data, err := r.chunk(ctx, p)
		if err != nil {
			return err
		}
		for _, s := range parts {
			if _, err := w.WriteAt(data[s.from:s.to], s.offset); err != nil {
				return err
			}
			wrote(s.to - s.from)
		}
		return nil
	}
	if len(c.Pieces) == 1 && len(c.Lists) == 0 { // most files
		return r.each(ctx, c, func(p *batch.Piece, parts []part) error { return write(ctx, p, parts) })
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(chunksAhead)
	err := r.each(gctx, c, func(p *batch.Piece, parts []part) error {
		if err := gctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { return write(gctx, p, parts) })
		return nil
	})
	if werr := g.Wait(); werr != nil { // the cause, where each only met the end of the context
		return werr
	}
	return err
}
