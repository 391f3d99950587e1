package capture

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/shard"
	"slipway/internal/store"
)

// ErrNoRoom says that the node's own store has reached its cap. The capture is given up and its file stays pending.
var ErrNoRoom = errors.New("own store has no room for another chunk")

// Published is a shard in the node's own store that no batch has introduced yet.
type Published struct {
	Digest shard.Digest
	Size   int64
	Serial uint64 // counts published shards of this run, from 1, in the order they became durable
	Chunks []catalog.Location
}

// Packing is the way from chunks to shards: one index, and one packer for each capture worker.
//
// Every shard it publishes is handed out by TakePublished and must be introduced by a sealed batch, referred to or not. A
// batch may name pieces only of shards introduced up to it: a capture goes into it when Through is at most the Serial of
// the last shard taken.
type Packing struct {
	keys       chunk.Keys
	recipients []age.Recipient
	own        store.Store
	index      *chunkIndex
	packers    []*Packer

	// Set before the first add, or left alone.
	Room        func() bool     // false: no new chunk is taken
	OnPublished func(Published) // told of each shard as it becomes durable: accounting, pushing ahead

	mu        sync.Mutex // guards what follows
	serial    uint64
	published []Published // in order of Serial
}

// NewPacking makes the packers of so many workers. lookup asks the catalog.
func NewPacking(keys chunk.Keys, recipients []age.Recipient, own store.Store,
	lookup func(chunk.ID) (catalog.Location, bool, error), workers int) *Packing {
	pk := &Packing{
		keys: keys, recipients: recipients, own: own,
		index: newChunkIndex(lookup),
		Room:  func() bool { return true },
	}
	for range workers {
		pk.packers = append(pk.packers, &Packer{of: pk})
	}
	return pk
}

// Packer returns the packer of one worker, counted from 0; workers beyond their number share.
func (pk *Packing) Packer(i int) *Packer { return pk.packers[i%len(pk.packers)] }

// FlushAll seals and publishes every open shard. The captures that refer to a shard that failed learn it from Content.
func (pk *Packing) FlushAll(ctx context.Context) error {
	errs := make([]error, len(pk.packers))
	var g errgroup.Group // one packer's failure is no reason to leave another's shard open
	for i, p := range pk.packers {
		g.Go(func() error {
			errs[i] = p.flush(ctx)
			return nil
		})
	}
	_ = g.Wait() // the functions return nil; the errors are in errs
	return errors.Join(errs...)
}

// TakePublished hands out the shards published since the last call, oldest first: at most max of them and at most maxBytes
// in all (0: any number), but one at least when there is one. The rest waits for the next batch. What was taken goes to
// Committed once the catalog has it.
func (pk *Packing) TakePublished(max int, maxBytes int64) []Published {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	n, bytes := 0, int64(0)
	for n < len(pk.published) && n < max {
		bytes += pk.published[n].Size
		if n > 0 && maxBytes > 0 && bytes > maxBytes {
			break
		}
		n++
	}
	taken := pk.published[:n:n]
	pk.published = pk.published[n:]
	return taken
}

// Committed tells that the catalog has these shards and their chunks.
func (pk *Packing) Committed(shards []Published) { pk.index.committed(shards) }

// Waiting is the number of published shards that no batch has taken yet.
func (pk *Packing) Waiting() int {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	return len(pk.published)
}

// record gives a durable shard its number, and ends o with it. Both under one lock: whoever sees a serial in a placed chunk
// finds that shard in published or taken already.
func (pk *Packing) record(o *openShard, s Published) Published {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	pk.serial++
	s.Serial = pk.serial
	pk.published = append(pk.published, s)
	o.end(s.Digest, s.Serial, nil)
	return s
}

// Packer fills one shard after another for one worker.
type Packer struct {
	of *Packing

	mu      sync.Mutex // guards what follows
	builder *shard.Builder
	open    *openShard
}

// add places a chunk: where its content lies already, in this packer's or another's open shard as well, or in this
// packer's shard. data is not kept. An error says nothing about chunks added before: their pieces tell.
func (p *Packer) add(ctx context.Context, data []byte) (*placed, error) {
	id := p.of.keys.ID(data)
	if at, err := p.of.index.find(id); at != nil || err != nil {
		return at, err
	}
	if !p.of.Room() {
		return nil, ErrNoRoom
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.makeRoomLocked(ctx, len(data)); err != nil {
		return nil, err
	}
	mine := &placed{id: id, in: p.open}
	if first := p.of.index.reserve(mine); first != mine {
		return first, nil
	}
	p.open.chunks = append(p.open.chunks, mine)
	slot, err := p.builder.Add(id, data)
	if err != nil {
		// The builder is in doubt, and another packer may refer to the reservation already: the whole shard fails.
		return nil, p.failLocked(fmt.Errorf("add chunk %s to a shard: %w", id, err))
	}
	mine.slot = slot
	return mine, nil
}

// makeRoomLocked leaves an open builder that takes n more bytes.
func (p *Packer) makeRoomLocked(ctx context.Context, n int) error {
	if p.builder != nil && !p.builder.Fits(n) {
		if err := p.flushLocked(ctx); err != nil {
			return err
		}
	}
	if p.builder == nil {
		b, err := shard.NewBuilder(p.of.recipients, p.of.keys)
		if err != nil {
			return fmt.Errorf("begin shard: %w", err)
		}
		p.builder = b
	}
	if p.open == nil {
		p.open = &openShard{}
	}
	return nil
}

// flush seals the open shard, if it holds anything, and publishes it in the node's own store.
func (p *Packer) flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flushLocked(ctx)
}

func (p *Packer) flushLocked(ctx context.Context) error {
	if p.open == nil || len(p.open.chunks) == 0 {
		return nil
	}
	digest, sealed, err := p.builder.Seal()
	if err != nil {
		return p.failLocked(fmt.Errorf("seal shard: %w", err))
	}
	if err := p.of.publish(ctx, digest, sealed); err != nil {
		return p.failLocked(err)
	}
	// Dying here: the shard is durable and no batch names it. The next start finds it, removes it and lists it as abandoned.
	s := Published{Digest: digest, Size: int64(len(sealed)), Chunks: make([]catalog.Location, len(p.open.chunks))}
	for i, c := range p.open.chunks {
		s.Chunks[i] = catalog.Location{Shard: digest, Slot: *c.slot}
	}
	s = p.of.record(p.open, s)
	p.open = nil
	if p.of.OnPublished != nil {
		p.of.OnPublished(s)
	}
	return nil
}

// failLocked gives the open shard up: its chunks are nowhere, and a later add of the same content stores it anew. Nothing is
// retried with the same bytes, as after a failed fsync nobody can say what is on the disk.
func (p *Packer) failLocked(err error) error {
	p.open.end(shard.Digest{}, 0, err)
	p.of.index.withdraw(p.open.chunks)
	p.open, p.builder = nil, nil
	return err
}

// publish puts a sealed shard into the own store and reads it back: this node cannot decrypt it, so its digest is all that
// tells that what lies there is what was sealed.
func (pk *Packing) publish(ctx context.Context, d shard.Digest, sealed []byte) error {
	err := pk.own.Publish(ctx, d.Path(), sealed)
	if err == nil {
		err = pk.readBack(ctx, d)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("publish shard %s: %w", d, err)
	// It may lie there all the same. Nobody names it, so it would only take room until the next start.
	if rerr := pk.own.Remove(context.WithoutCancel(ctx), d.Path()); rerr != nil {
		err = errors.Join(err, fmt.Errorf("remove shard %s: %w", d, rerr))
	}
	return err
}

func (pk *Packing) readBack(ctx context.Context, d shard.Digest) error {
	back, _, err := store.Sum(ctx, pk.own, d.Path(), shard.MaxSize)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if back != d {
		return fmt.Errorf("read back: %w", shard.ErrCorrupt)
	}
	return nil
}
