package capture

import (
	"errors"
	"fmt"
	"sync"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// errUnflushed: a chunk's shard is still open; flush the packers before asking for its piece.
var errUnflushed = errors.New("shard of the chunk is not sealed yet")

// placed is a chunk that has its place: in a shard sealed long ago, or reserved in one that a packer is filling now.
type placed struct {
	id   chunk.ID
	in   *openShard  // nil: at is the answer
	slot *shard.Slot // set by the packer before in is published
	at   batch.Piece
}

// piece says where the chunk lies. It is an error while the shard is open, and for good when the shard could not be
// published: whoever refers to it has to be captured again.
func (p *placed) piece() (batch.Piece, error) {
	if p.in == nil {
		return p.at, nil
	}
	d, _, err := p.in.outcome()
	if err != nil {
		return batch.Piece{}, fmt.Errorf("place chunk %s: %w", p.id, err)
	}
	return batch.Piece{Shard: d, Slot: *p.slot}, nil
}

// serial is the publish number of the chunk's shard, 0 where a committed batch introduced it.
func (p *placed) serial() uint64 {
	if p.in == nil {
		return 0
	}
	_, serial, _ := p.in.outcome()
	return serial
}

// openShard is what the chunks of one builder share: what became of it.
type openShard struct {
	chunks []*placed // owned by the packer

	mu     sync.Mutex // guards what follows
	ended  bool
	digest shard.Digest
	serial uint64
	err    error
}

func (o *openShard) outcome() (shard.Digest, uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		return shard.Digest{}, 0, errUnflushed
	}
	return o.digest, o.serial, o.err
}

func (o *openShard) end(d shard.Digest, serial uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended, o.digest, o.serial, o.err = true, d, serial, err
}

// chunkIndex finds chunks: those placed since the last commit in memory, in front of those the catalog knows. A reservation
// counts from the moment it is made, so that two workers that meet the same content store it once.
type chunkIndex struct {
	lookup func(chunk.ID) (catalog.Location, bool, error)

	mu       sync.Mutex // guards reserved
	reserved map[chunk.ID]*placed
}

func newChunkIndex(lookup func(chunk.ID) (catalog.Location, bool, error)) *chunkIndex {
	return &chunkIndex{lookup: lookup, reserved: make(map[chunk.ID]*placed)}
}

// find returns the chunk's place, or nil.
func (x *chunkIndex) find(id chunk.ID) (*placed, error) {
	x.mu.Lock()
	p := x.reserved[id]
	x.mu.Unlock()
	if p != nil {
		return p, nil
	}
	// A commit between the two looks can only move the chunk into the catalog, where this look finds it; the reverse order
	// would miss it. A reservation made meanwhile is seen by reserve.
	loc, ok, err := x.lookup(id)
	if err != nil {
		return nil, fmt.Errorf("look up chunk %s: %w", id, err)
	}
	if !ok {
		return nil, nil
	}
	at := batch.Piece{Shard: loc.Shard, Slot: loc.Slot}
	at.Chunk = id
	return &placed{id: id, at: at}, nil
}

// reserve makes p the chunk's place, or returns the one that another packer reserved first.
func (x *chunkIndex) reserve(p *placed) *placed {
	x.mu.Lock()
	defer x.mu.Unlock()
	if first := x.reserved[p.id]; first != nil {
		return first
	}
	x.reserved[p.id] = p
	return p
}

// withdraw drops the reservations of a shard that could not be published.
func (x *chunkIndex) withdraw(ps []*placed) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range ps {
		if x.reserved[p.id] == p {
			delete(x.reserved, p.id)
		}
	}
}

// committed drops the reservations of shards that the catalog knows now. Before that moment they have to stay: in between
// the chunk would be found nowhere and stored again.
func (x *chunkIndex) committed(shards []Published) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range shards {
		for i := range s.Chunks {
			id := s.Chunks[i].Slot.Chunk
			if p := x.reserved[id]; p != nil && p.serial() == s.Serial {
				delete(x.reserved, id)
			}
		}
	}
}

// size is the number of reservations.
func (x *chunkIndex) size() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.reserved)
}
