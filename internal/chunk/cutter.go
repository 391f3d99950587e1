package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"slipway/internal/hugebuf"
)

// maxEmptyReads is how often a reader may return nothing and no error before that is a fault.
const maxEmptyReads = 100

const implementation = "fastcdc-v1.0.0" // the only name of the library whose masks follow the sizes

var (
	errKeys   = errors.New("keys were not derived from a secret")
	errClosed = errors.New("cutter is closed")
)

// Buffers are kept: a cutter per file would otherwise allocate megabytes per file. A file that fits the small one never sees a
// big one. Files above that may come too seldom for a pool that the garbage collector empties.
var (
	smallBuffers = sync.Pool{New: func() any { return new([Min + 1]byte) }}
	bigBuffers   = make(chan []byte, 2)
)

// takeBig returns what the library cuts in: twice its largest chunk spares it moving the rest to the front each time. Of a file
// that is smaller only the beginning is ever touched, and takes memory.
func takeBig() []byte {
	select {
	case b := <-bigBuffers:
		return b
	default:
		return hugebuf.Make(2 * Max)
	}
}

// Cutter cuts a stream into chunks. Not safe for concurrent use.
type Cutter struct {
	src   io.Reader
	key   []byte
	small *[Min + 1]byte
	big   []byte
	cdc   *chunkers.Chunker // nil while the stream may still be one small chunk
	err   error             // what every further Next returns
}

// NewCutter cuts r with the volume's cut points. Buffers come from a pool: Close gives them back.
func (k Keys) NewCutter(r io.Reader) (*Cutter, error) {
	if k.hashers == nil {
		return nil, fmt.Errorf("cut into chunks: %w", errKeys)
	}
	return &Cutter{src: r, key: k.cut[:]}, nil
}

// Next returns the next chunk, valid until the next call or Close; io.EOF behind the last (never together with data). An
// empty stream has no chunk. An error other than io.EOF is the reader's, and what came before it is not all there was.
func (c *Cutter) Next() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	var data []byte
	var err error
	if c.cdc == nil {
		data, err = c.first()
	} else {
		data, err = c.cdc.Next()
	}
	switch {
	case err == nil:
		return data, nil
	case err != io.EOF: //nolint:errorlint // the end is io.EOF itself; a wrapped one is a fault
		c.err = fmt.Errorf("cut into chunks: %w", err)
		return nil, c.err
	}
	// The library returns a last short chunk together with io.EOF: dropping it would drop the end of the file.
	c.err = io.EOF
	if len(data) > 0 {
		return data, nil
	}
	return nil, io.EOF
}

// first reads up to one byte more than a small file has: if that byte is not there, the file is one chunk and done.
func (c *Cutter) first() ([]byte, error) {
	c.small = smallBuffers.Get().(*[Min + 1]byte)
	n, err := readUpTo(c.src, c.small[:])
	if err != nil {
		return nil, err
	}
	if n <= Min {
		return c.small[:n], io.EOF
	}
	c.big = takeBig()
	if c.cdc, err = newChunker(io.MultiReader(bytes.NewReader(c.small[:n]), c.src), c.key, c.big); err != nil {
		return nil, err
	}
	return c.cdc.Next()
}

// readUpTo fills buf or stops at io.EOF. io.ReadFull would not do: a reader's own io.ErrUnexpectedEOF (a file cut short under
// us) would look like the end of the stream, and half a file would be sealed as a whole one.
func readUpTo(r io.Reader, buf []byte) (int, error) {
	n := 0
	for empty := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF { // the end is io.EOF itself; a wrapped one is a fault
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if empty++; m > 0 {
			empty = 0
		}
		if empty == maxEmptyReads {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// newChunker checks what the library does not: it runs unkeyed with a nil key, and with options out of range.
func newChunker(r io.Reader, key, buf []byte) (*chunkers.Chunker, error) {
	if len(key) != 32 {
		return nil, errKeys
	}
	// A value of our own for every chunker: the library writes into its options.
	opts := chunkers.ChunkerOpts{MinSize: Min, NormalSize: Mean, MaxSize: Max, Key: bytes.Clone(key)}
	if err := new(fastcdc.FastCDC).Validate(&opts); err != nil {
		return nil, err
	}
	return chunkers.NewChunkerBuffer(implementation, r, &opts, buf)
}

// Close gives the buffers back; chunks returned before are no longer valid. Closing twice is harmless.
func (c *Cutter) Close() {
	if c.small != nil {
		smallBuffers.Put(c.small)
	}
	if c.big != nil {
		select {
		case bigBuffers <- c.big:
		default:
		}
	}
	*c = Cutter{err: errClosed}
}
