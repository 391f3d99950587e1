package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"

	"slipway/internal/chunk"
	"slipway/internal/hugebuf"
)

// age's payload: pieces of 64 KiB, each with an authentication tag.
const (
	agePiece    = 64 << 10
	ageOverhead = 16
)

// Builder collects chunks for one shard. Not safe for concurrent use.
type Builder struct {
	recipients []age.Recipient
	keys       chunk.Keys
	header     int64 // bytes of an age file before its payload, nonce included

	open    []byte  // raw bytes of the frame of small chunks that is being filled
	members []*Slot // chunks in open
	frames  []frame // what plain holds, in order
	plain   []byte  // compressed frames
	chunks  int     // added
	check   []byte  // reused by the self-check
	sealed  []byte  // reused by Seal
}

// frame is compressed content that lies in Builder.plain, with the chunks it is made of.
type frame struct {
	from, to int
	raw      int
	slots    []*Slot
}

var (
	errNoRecipients = errors.New("no recipients")
	errNotFit       = errors.New("chunk does not fit any more")
	errEmptyShard   = errors.New("no chunks")
)

// NewBuilder makes an empty builder that seals to the recipients. Keys are for the self-check: every frame is decompressed
// and its chunk ids are computed again before it is encrypted (a flipped bit in memory must not be sealed).
func NewBuilder(recipients []age.Recipient, keys chunk.Keys) (*Builder, error) {
	if len(recipients) == 0 {
		return nil, fmt.Errorf("prepare shard: %w", errNoRecipients)
	}
	// The header's length depends on nothing but the recipients: measure it once.
	var n counter
	w, err := age.Encrypt(&n, recipients...)
	if err != nil {
		return nil, fmt.Errorf("prepare shard: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("prepare shard: %w", err)
	}
	return &Builder{recipients: slices.Clone(recipients), keys: keys, header: int64(n) - ageOverhead}, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// sealedSize is the length of the age file over plain bytes.
func (b *Builder) sealedSize(plain int64) int64 {
	pieces := max(1, (plain+agePiece-1)/agePiece)
	return b.header + plain + pieces*ageOverhead
}

// Fits tells whether a chunk of n bytes can be added so that the sealed shard stays within MaxSize whatever it compresses to.
func (b *Builder) Fits(n int) bool {
	if n < 1 || n > chunk.Max || b.chunks >= MaxChunks {
		return false
	}
	return b.sealedSize(b.boundWith(n)) <= MaxSize
}

// boundWith is the most that plain can become with one more chunk of n bytes.
func (b *Builder) boundWith(n int) int64 {
	done := int64(len(b.plain))
	if len(b.open)+n > FrameSize {
		return done + maxStored(int64(len(b.open))) + maxStored(int64(n))
	}
	return done + maxStored(int64(len(b.open)+n))
}

// Len returns the number of chunks added.
func (b *Builder) Len() int { return b.chunks }

// Size estimates the sealed size so far: what is compressed, and what is not compressed yet as it is.
func (b *Builder) Size() int64 { return b.sealedSize(int64(len(b.plain) + len(b.open))) }

// Add takes a chunk (data is copied or compressed before it returns). The slot is filled in by Seal at the latest.
func (b *Builder) Add(id chunk.ID, data []byte) (*Slot, error) {
	if !b.Fits(len(data)) {
		return nil, fmt.Errorf("add chunk %s of %d bytes to shard: %w", id, len(data), errNotFit)
	}
	slot := &Slot{Chunk: id, Len: int64(len(data))}
	b.chunks++
	if len(data) > FrameSize {
		b.addBig(slot, data)
		return slot, nil
	}
	if len(b.open)+len(data) > FrameSize {
		b.flush()
	}
	slot.In = int64(len(b.open))
	b.open = append(grown(b.open, len(data), FrameSize), data...)
	b.members = append(b.members, slot)
	return slot, nil
}

// addBig writes a chunk's own frames. The open frame of small chunks stays open, so that they still compress together.
func (b *Builder) addBig(slot *Slot, data []byte) {
	from := len(b.plain)
	b.plain = grown(b.plain, int(maxStored(int64(len(data)))), MaxSize)
	for part := range slices.Chunk(data, FrameSize) {
		b.plain = compress(b.plain, part)
	}
	b.close(from, len(data), []*Slot{slot})
}

// flush compresses the open frame.
func (b *Builder) flush() {
	if len(b.open) == 0 {
		return
	}
	from := len(b.plain)
	b.plain = grown(b.plain, int(maxStored(int64(len(b.open)))), MaxSize)
	b.plain = compress(b.plain, b.open)
	b.close(from, len(b.open), b.members)
	b.open, b.members = b.open[:0], nil
}

// close notes the frames from plain[from:] on and tells their slots where they lie.
func (b *Builder) close(from, raw int, slots []*Slot) {
	for _, s := range slots {
		s.Offset, s.Stored = int64(from), int64(len(b.plain)-from)
	}
	b.frames = append(b.frames, frame{from: from, to: len(b.plain), raw: raw, slots: slots})
}

// grown makes room for n more bytes in steps of four: a batch of one small file costs little, a full shard few copies.
func grown(buf []byte, n, most int) []byte {
	if cap(buf)-len(buf) >= n {
		return buf
	}
	return append(hugebuf.Make(max(len(buf)+n, min(4*cap(buf), most)))[:0], buf...)
}

// Seal ends the shard: self-check, encryption, digest. The builder is empty afterwards and can be used for the next shard,
// also when it returns an error: the chunks then have to be added again from their source. The bytes are valid until the next
// Seal.
func (b *Builder) Seal() (Digest, []byte, error) {
	defer b.Reset()
	if b.chunks == 0 {
		return Digest{}, nil, fmt.Errorf("seal shard: %w", errEmptyShard)
	}
	b.flush()
	b.sealed = grown(b.sealed[:0], int(b.sealedSize(int64(len(b.plain)))), MaxSize)
	out := bytes.NewBuffer(b.sealed)
	w, err := age.Encrypt(out, b.recipients...)
	if err != nil {
		return Digest{}, nil, fmt.Errorf("seal shard: %w", err)
	}
	// Frame by frame: what was checked is encrypted next, while it is still in the processor's cache.
	for i := range b.frames {
		if err := b.verify(&b.frames[i]); err != nil {
			return Digest{}, nil, fmt.Errorf("seal shard: self-check: %w", err)
		}
		if _, err := w.Write(b.plain[b.frames[i].from:b.frames[i].to]); err != nil {
			return Digest{}, nil, fmt.Errorf("seal shard: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return Digest{}, nil, fmt.Errorf("seal shard: %w", err)
	}
	if out.Len() > MaxSize {
		return Digest{}, nil, fmt.Errorf("seal shard: %d bytes: %w", out.Len(), io.ErrShortBuffer)
	}
	return Sum(out.Bytes()), out.Bytes(), nil
}

// verify is the self-check: the frame holds the chunks that its slots name.
func (b *Builder) verify(f *frame) error {
	b.check = grown(b.check[:0], f.raw, chunk.Max)
	raw, err := decompress(b.plain[f.from:f.to], f.raw, b.check)
	if err != nil {
		return err
	}
	for _, s := range f.slots {
		if b.keys.ID(raw[s.In:s.In+s.Len]) != s.Chunk {
			return fmt.Errorf("chunk %s has other content: %w", s.Chunk, ErrCorrupt)
		}
	}
	return nil
}

// Reset empties the builder and keeps its buffers.
func (b *Builder) Reset() {
	clear(b.frames) // the slots belong to the caller now
	b.open, b.members, b.frames, b.plain, b.chunks = b.open[:0], nil, b.frames[:0], b.plain[:0], 0
}
