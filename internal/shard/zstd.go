package shard

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"slipway/internal/chunk"
)

// Coders are pooled, and each works alone: sealing runs on as many goroutines as the caller has, and none of zstd's own.
// The window is a frame long, a bigger one would only cost memory. Single segment: every frame says how long its content is.
var (
	encoders = sync.Pool{New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(FrameSize), zstd.WithSingleSegment(true))
		if err != nil {
			panic(err) // only for options out of range
		}
		return e
	}}
	decoders = sync.Pool{New: func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(chunk.Max),
			zstd.WithDecoderMaxWindow(FrameSize), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return d
	}}
)

// compress appends one frame to dst.
func compress(dst, raw []byte) []byte {
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	return e.EncodeAll(raw, dst)
}

// decompress reads frames whose content is exactly size bytes, into buf where that is large enough. It never allocates or
// writes more than size bytes, whatever the frames say of themselves.
func decompress(frames []byte, size int, buf []byte) ([]byte, error) {
	if cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	d := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(d)
	out, err := d.DecodeAll(frames, buf[:0:size])
	if err != nil {
		return nil, fmt.Errorf("decompress: %w: %w", ErrCorrupt, err)
	}
	if len(out) != size {
		return nil, fmt.Errorf("decompress: %d bytes instead of %d: %w", len(out), size, ErrCorrupt)
	}
	return out, nil
}

// contentSize returns what a frame says its content's length is.
func contentSize(frame []byte) (int64, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return 0, fmt.Errorf("read frame header: %w: %w", ErrCorrupt, err)
	}
	if h.Skippable || !h.HasFCS || h.FrameContentSize == 0 || h.FrameContentSize > FrameSize {
		return 0, fmt.Errorf("frame of %d bytes: %w", h.FrameContentSize, ErrCorrupt)
	}
	return int64(h.FrameContentSize), nil
}

// frameOverhead is more than a frame of up to FrameSize can add to what it holds: 18 bytes of header and checksum, and 3 for
// each block of 64 KiB.
const frameOverhead = 128

// maxStored bounds what raw bytes become as frames.
func maxStored(raw int64) int64 {
	frames := (raw + FrameSize - 1) / FrameSize
	return raw + frames*frameOverhead
}
