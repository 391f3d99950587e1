package catalog

import (
	"encoding/binary"
	"fmt"

	"slipway/internal/batch"
	"slipway/internal/chunk"
	"slipway/internal/shard"
)

// Chunk returns where a chunk lies.
func (t *Tx) Chunk(id chunk.ID) (Location, bool, error) {
	v, ok, err := t.get(inChunks, id[:])
	if err != nil || !ok {
		return Location{}, false, err
	}
	d := dec{b: v}
	l := d.location()
	l.Slot.Chunk = id
	if err := d.done(); err != nil {
		return Location{}, false, fmt.Errorf("read chunk %x: %w", id[:], err)
	}
	return l, true, nil
}

// PutChunks writes where chunks lie, by the Chunk of their slots.
func (t *Tx) PutChunks(locs []Location) error {
	for i := range locs {
		var e enc
		e.raw(locs[i].Shard[:])
		e.slot(&locs[i].Slot)
		if err := t.put(inChunks, locs[i].Slot.Chunk[:], e.b); err != nil {
			return err
		}
	}
	return nil
}

// DeleteChunksOf forgets every chunk that lies in one of the (lost) shards, and says how many. It reads the whole index.
func (t *Tx) DeleteChunksOf(shards map[shard.Digest]bool) (int, error) {
	n := 0
	err := t.each(inChunks, nil, nil, func(k, v []byte) error {
		d := dec{b: v}
		l := d.location()
		if err := d.done(); err != nil {
			return fmt.Errorf("read chunk %x: %w", k, err)
		}
		if !shards[l.Shard] {
			return nil
		}
		n++
		return t.delete(inChunks, k)
	})
	return n, err
}

// Shard returns what is known of a shard.
func (t *Tx) Shard(d shard.Digest) (ShardInfo, bool, error) {
	v, ok, err := t.get(inShards, d[:])
	if err != nil || !ok {
		return ShardInfo{}, false, err
	}
	r := dec{b: v}
	i := r.shardInfo()
	if err := r.done(); err != nil {
		return ShardInfo{}, false, fmt.Errorf("read shard %x: %w", d[:], err)
	}
	return i, true, nil
}

// PutShard writes what is known of a shard.
func (t *Tx) PutShard(d shard.Digest, i ShardInfo) error {
	var e enc
	e.i(i.Size)
	e.u(uint64(i.Seq))
	e.flag(i.Evicted)
	return t.put(inShards, d[:], e.b)
}

// DeleteShard forgets a shard.
func (t *Tx) DeleteShard(d shard.Digest) error { return t.delete(inShards, d[:]) }

// Shards calls fn for each shard in order of digests.
func (t *Tx) Shards(fn func(shard.Digest, ShardInfo) error) error {
	return t.each(inShards, nil, nil, func(k, v []byte) error {
		var d shard.Digest
		if copy(d[:], k) != len(k) || len(k) != len(d) {
			return fmt.Errorf("%w: a shard's key of %d bytes", ErrCorrupt, len(k))
		}
		r := dec{b: v}
		i := r.shardInfo()
		if err := r.done(); err != nil {
			return fmt.Errorf("read shard %x: %w", k, err)
		}
		return fn(d, i)
	})
}

// PutBatch notes a sealed batch.
func (t *Tx) PutBatch(b BatchInfo) error {
	var e enc
	e.batch(&b)
	return t.put(inBatches, seqKey(b.Seq), e.b)
}

// Batch returns a sealed batch.
func (t *Tx) Batch(seq batch.Seq) (BatchInfo, bool, error) {
	v, ok, err := t.get(inBatches, seqKey(seq))
	if err != nil || !ok {
		return BatchInfo{}, false, err
	}
	d := dec{b: v}
	b := d.batch(seq)
	return b, true, d.done()
}

// Batches calls fn for each sealed batch from a sequence number on, in order.
func (t *Tx) Batches(from batch.Seq, fn func(BatchInfo) error) error {
	return t.each(inBatches, nil, seqKey(from), func(k, v []byte) error {
		if len(k) != 8 {
			return fmt.Errorf("%w: a batch's key of %d bytes", ErrCorrupt, len(k))
		}
		seq := batch.Seq(binary.BigEndian.Uint64(k))
		d := dec{b: v}
		b := d.batch(seq)
		if err := d.done(); err != nil {
			return fmt.Errorf("read batch %d: %w", seq, err)
		}
		return fn(b)
	})
}

// PutPending notes why a file's content is not sealed.
func (t *Tx) PutPending(id batch.FileID, p Pending) error {
	var e enc
	e.pending(&p)
	return t.put(inPending, idKey(id), e.b)
}

// Pending returns why a file's content is not sealed.
func (t *Tx) Pending(id batch.FileID) (Pending, bool, error) {
	v, ok, err := t.get(inPending, idKey(id))
	if err != nil || !ok {
		return Pending{}, false, err
	}
	d := dec{b: v}
	p := d.pending()
	return p, true, d.done()
}

// DeletePending notes that the file's content is sealed, or the file is gone.
func (t *Tx) DeletePending(id batch.FileID) error { return t.delete(inPending, idKey(id)) }

// EachPending calls fn for each pending file in order of ids.
func (t *Tx) EachPending(fn func(batch.FileID, Pending) error) error {
	return t.each(inPending, nil, nil, func(k, v []byte) error {
		id, err := asID(k)
		if err != nil {
			return err
		}
		d := dec{b: v}
		p := d.pending()
		if err := d.done(); err != nil {
			return fmt.Errorf("read pending file %d: %w", id, err)
		}
		return fn(id, p)
	})
}

// PutUnchecked notes a directory that is not yet compared with the source since the last gap.
func (t *Tx) PutUnchecked(id batch.FileID) error { return t.put(inUnchecked, idKey(id), nil) }

// DeleteUnchecked notes that the directory is compared, or gone.
func (t *Tx) DeleteUnchecked(id batch.FileID) error { return t.delete(inUnchecked, idKey(id)) }

// EachUnchecked calls fn for each directory not yet compared, in order of ids.
func (t *Tx) EachUnchecked(fn func(batch.FileID) error) error {
	return t.each(inUnchecked, nil, nil, func(k, _ []byte) error {
		id, err := asID(k)
		if err != nil {
			return err
		}
		return fn(id)
	})
}
