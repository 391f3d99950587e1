package shard

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"filippo.io/age"

	"slipway/internal/chunk"
)

// Reader reads chunks out of a sealed shard. Safe for concurrent use.
type Reader struct {
	plain io.ReaderAt
	size  int64
	// The frames of small chunks read last: files are restored in the order they were sealed, many from one frame. Two, so
	// that a second goroutine at another place does not undo the first one's.
	recent [2]atomic.Pointer[rawFrame]
	turn   atomic.Uint32
}

// source marks the errors of reading itself, so that a lost connection is not taken for a rotten shard.
type source struct{ io.ReaderAt }

type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func (s source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = sourceError{err}
	}
	return n, err
}

// classify tells what age's error means: the source could not be read, no identity fits, or the bytes are wrong.
func classify(err error) error {
	var read sourceError
	if errors.As(err, &read) {
		return read.error
	}
	var match *age.NoIdentityMatchError
	if errors.As(err, &match) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// rawFrame is a decompressed frame; it is never changed.
type rawFrame struct {
	offset, stored int64
	raw            []byte
}

// Open decrypts the header of a sealed shard. The caller has checked the digest.
func Open(sealed io.ReaderAt, size int64, ids []age.Identity) (*Reader, error) {
	if size < 1 || size > MaxSize {
		return nil, fmt.Errorf("open shard of %d bytes: %w", size, ErrCorrupt)
	}
	plain, n, err := age.DecryptReaderAt(source{sealed}, size, ids...)
	if err != nil {
		return nil, fmt.Errorf("open shard: %w", classify(err))
	}
	return &Reader{plain: plain, size: n}, nil
}

// Chunk returns a chunk's bytes; memory is bounded by the slot's Len and Stored, which are checked against the limits first.
// keys may be nil (verify without the secret): then only lengths are checked. ErrCorrupt otherwise.
func (r *Reader) Chunk(s Slot, keys *chunk.Keys) ([]byte, error) {
	data, err := r.chunk(s)
	if err != nil {
		return nil, fmt.Errorf("read chunk %s: %w", s.Chunk, err)
	}
	if keys != nil && keys.ID(data) != s.Chunk {
		return nil, fmt.Errorf("read chunk %s: other content: %w", s.Chunk, ErrCorrupt)
	}
	return data, nil
}

func (r *Reader) chunk(s Slot) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if s.Offset > r.size-s.Stored {
		return nil, fmt.Errorf("%d bytes at %d of %d: %w", s.Stored, s.Offset, r.size, ErrCorrupt)
	}
	if s.Len > FrameSize {
		frames, err := r.stored(s)
		if err != nil {
			return nil, err
		}
		return decompress(frames, int(s.Len), nil)
	}
	raw, err := r.frame(s)
	if err != nil {
		return nil, err
	}
	if s.In > int64(len(raw))-s.Len {
		return nil, fmt.Errorf("%d bytes at %d of a frame of %d: %w", s.Len, s.In, len(raw), ErrCorrupt)
	}
	// A copy: a small file's bytes must not keep a whole frame in memory.
	return append(make([]byte, 0, s.Len), raw[s.In:s.In+s.Len]...), nil
}

// frame returns the content of the frame that a small chunk lies in.
func (r *Reader) frame(s Slot) ([]byte, error) {
	for i := range r.recent {
		if f := r.recent[i].Load(); f != nil && f.offset == s.Offset && f.stored == s.Stored {
			return f.raw, nil
		}
	}
	stored, err := r.stored(s)
	if err != nil {
		return nil, err
	}
	size, err := contentSize(stored)
	if err != nil {
		return nil, err
	}
	raw, err := decompress(stored, int(size), nil)
	if err != nil {
		return nil, err
	}
	next := r.turn.Add(1) % uint32(len(r.recent))
	r.recent[next].Store(&rawFrame{offset: s.Offset, stored: s.Stored, raw: raw})
	return raw, nil
}

// stored decrypts a slot's frames. age authenticates each piece of 64 KiB, so that changed bytes end here.
func (r *Reader) stored(s Slot) ([]byte, error) {
	buf := make([]byte, s.Stored)
	n, err := r.plain.ReadAt(buf, s.Offset)
	if n == len(buf) {
		return buf, nil
	}
	return nil, fmt.Errorf("decrypt %d bytes at %d: %w", s.Stored, s.Offset, classify(err))
}
