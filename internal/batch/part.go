package batch

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"slipway/internal/shard"
)

const (
	frameSize = 1 << 20 // raw bytes of JSON lines at which a zstd frame ends
	// maxPlain is how many compressed bytes a part may hold: with age's header (100 bytes a recipient, 1.6 KiB for a
	// post-quantum one) and a tag for every 64 KiB it has to stay within a shard.
	maxPlain = shard.MaxSize - 128<<10
	perTable = 67 // bytes of an object's digest in the table
)

// window of the frames, and the most that a reader reserves for one.
const (
	window    = 1 << 20
	maxWindow = 8 << 20
)

var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		panic(err) // only for options out of range
	}
	return e
}}

// partWriter packs lines into parts: zstd frames inside an age file of at most shard.MaxSize, each readable alone.
//
//	part:   │ frame │ frame │ …                            compressed, then encrypted as one
//	frame:  │ {"objects":[…]} │ line │ line │ …            about 1 MiB; the table lists what the lines name for the first time
type partWriter struct {
	recipients []age.Recipient
	parts      [][]byte // sealed

	numbers map[shard.Digest]uint32 // of the open part
	plain   []byte                  // its finished frames
	raw     int                     // their raw bytes

	fresh []shard.Digest // objects first named in the open frame
	lines []byte         // its lines
	line  []byte         // reused, as is
	frame []byte
}

var errLineSize = errors.New("record is too large")

func newPartWriter(recipients []age.Recipient) *partWriter {
	return &partWriter{recipients: recipients, numbers: make(map[shard.Digest]uint32)}
}

// number returns an object's number in the open part, a new one if it has none.
func (w *partWriter) number(d shard.Digest) uint32 {
	n, known := w.numbers[d]
	if !known {
		n = uint32(len(w.numbers))
		w.numbers[d] = n
		w.fresh = append(w.fresh, d)
	}
	return n
}

// add appends one record. Its text depends on the part's numbers, so that at the end of a part it is written once more.
func (w *partWriter) add(encode func([]byte) []byte) error {
	before := len(w.fresh)
	w.line = encode(w.line[:0])
	if len(w.line) > MaxLine {
		return fmt.Errorf("%w: %d bytes, at most %d", errLineSize, len(w.line), MaxLine)
	}
	if !w.fits() {
		w.fresh = w.fresh[:before] // what only this line names is no object of the part that ends
		if err := w.closePart(); err != nil {
			return err
		}
		w.line = encode(w.line[:0])
	}
	w.lines = append(w.lines, w.line...)
	if w.open() >= frameSize {
		w.closeFrame()
	}
	return nil
}

// open is the raw size of the open frame, with its table.
func (w *partWriter) open() int { return len(w.lines) + len(w.fresh)*perTable + 16 }

// fits tells whether the line can join the part, whatever the open frame compresses to.
func (w *partWriter) fits() bool {
	raw := w.open() + len(w.line)
	return len(w.plain)+raw+raw/1024+64 <= maxPlain && w.raw+raw <= MaxPart
}

func (w *partWriter) closeFrame() {
	first := len(w.plain) == 0
	if len(w.lines) == 0 && !first {
		return
	}
	frame := w.lines
	if first || len(w.fresh) > 0 {
		w.frame = append(appendObjects(w.frame[:0], w.fresh), w.lines...)
		frame = w.frame
	}
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	w.plain = e.EncodeAll(frame, w.plain)
	w.raw += len(frame)
	w.fresh, w.lines = w.fresh[:0], w.lines[:0]
}

func (w *partWriter) closePart() error {
	w.closeFrame()
	var out bytes.Buffer
	out.Grow(len(w.plain) + 4<<10)
	enc, err := age.Encrypt(&out, w.recipients...)
	if err != nil {
		return err
	}
	if _, err := enc.Write(w.plain); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	if out.Len() > shard.MaxSize {
		return fmt.Errorf("%w: part of %d bytes for %d recipients", errLineSize, out.Len(), len(w.recipients))
	}
	w.parts = append(w.parts, out.Bytes())
	clear(w.numbers)
	w.plain, w.raw = w.plain[:0], 0
	return nil
}

// write encodes a whole body into parts: one at least.
func (w *partWriter) write(body *Body) ([][]byte, error) {
	if body.Secret != nil {
		if err := w.add(func(b []byte) []byte { return appendSecret(b, body.Secret) }); err != nil {
			return nil, err
		}
	}
	for i := range body.Inodes {
		inode := &body.Inodes[i]
		if err := inode.check(); err != nil {
			return nil, err
		}
		if err := w.add(func(b []byte) []byte { return appendInode(b, inode, w.number) }); err != nil {
			return nil, fmt.Errorf("inode %d: %w", inode.ID, err)
		}
	}
	for i := range body.Entries {
		entry := &body.Entries[i]
		if err := entry.check(); err != nil {
			return nil, err
		}
		if err := w.add(func(b []byte) []byte { return appendEntry(b, entry) }); err != nil {
			return nil, err
		}
	}
	if len(w.parts) == 0 || len(w.lines) > 0 || len(w.plain) > 0 {
		if err := w.closePart(); err != nil {
			return nil, err
		}
	}
	return w.parts, nil
}
