package batch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"slipway/internal/chunk"
	"slipway/internal/shard"
)

var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
	if err != nil {
		panic(err) // only for options out of range
	}
	return d
}}

// Fetch reads a body shard; Size and digest are checked by who calls it.
type Fetch func(shard.Digest) (io.ReaderAt, int64, error)

// Open decrypts the body and returns its records. fetch reads a body shard (nil when there are none). Call Verify first:
// anybody who knows the recipients can make a body.
func (b *Batch) Open(ids []age.Identity, fetch func(shard.Digest) (io.ReaderAt, int64, error)) (*Body, error) {
	body := &Body{}
	secret, err := b.Records(ids, fetch,
		func(i *Inode) error { body.Inodes = append(body.Inodes, *i); return nil },
		func(e *Entry) error { body.Entries = append(body.Entries, *e); return nil })
	if err != nil {
		return nil, err
	}
	body.Secret = secret
	return body, nil
}

// Records is Open for trees that are better not held in memory: it hands each record to its function as it is read, and
// returns the volume's secret if the body has it. What was handed out before an error counts for nothing.
func (b *Batch) Records(ids []age.Identity, fetch Fetch, inode func(*Inode) error, entry func(*Entry) error) (*chunk.Secret, error) {
	var secret *chunk.Secret
	to := sink{inode: inode, entry: entry, secret: func(s chunk.Secret) error {
		if secret != nil {
			return wrong("a second secret")
		}
		secret = &s
		return nil
	}}
	if len(b.Envelope.BodyShards) == 0 {
		if err := readPart(bytes.NewReader(b.body), ids, to); err != nil {
			return nil, fmt.Errorf("open batch %d: %w", b.Envelope.First, err)
		}
		return secret, nil
	}
	for _, o := range b.Envelope.BodyShards {
		data, err := fetchPart(o, fetch)
		if err == nil {
			err = readPart(bytes.NewReader(data), ids, to)
		}
		if err != nil {
			return nil, fmt.Errorf("open batch %d: body shard %s: %w", b.Envelope.First, o.Digest, err)
		}
	}
	return secret, nil
}

var errNoFetch = errors.New("no way given to read body shards")

func fetchPart(o Object, fetch Fetch) ([]byte, error) {
	if fetch == nil {
		return nil, errNoFetch
	}
	r, size, err := fetch(o.Digest)
	if err != nil {
		return nil, err
	}
	if size != o.Size {
		return nil, fmt.Errorf("%d bytes, envelope says %d: %w", size, o.Size, ErrCorrupt)
	}
	data := make([]byte, size) // at most shard.MaxSize, as Parse has checked
	if n, err := r.ReadAt(data, 0); n < len(data) {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%d of %d bytes: %w", n, size, ErrCorrupt)
		}
		return nil, err
	}
	if shard.Sum(data) != o.Digest {
		return nil, fmt.Errorf("other content than its digest: %w", ErrCorrupt)
	}
	return data, nil
}

// readPart decrypts, decompresses and decodes one part, line by line. Its memory is bounded by MaxLine and the table.
func readPart(sealed io.Reader, ids []age.Identity, to sink) error {
	plain, err := age.Decrypt(sealed, ids...)
	var match *age.NoIdentityMatchError
	if errors.As(err, &match) || len(ids) == 0 {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	d := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(d)
	defer func() { _ = d.Reset(nil) }() // lets go of the reader
	if err := d.Reset(plain); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return readLines(d, to)
}

var (
	errLongLine = errors.New("line is too long")
	errLongPart = errors.New("body is too long")
	errNoLine   = errors.New("body has no lines")
	errCutLine  = errors.New("last line has no end")
)

// taken is an error of whoever takes the records, which says nothing about the batch.
type taken struct{ error }

func (t taken) Unwrap() error { return t.error }

func readLines(r io.Reader, to sink) error {
	p := &part{sink: to.marked(), numbers: make(map[shard.Digest]uint32)}
	br := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for total := 0; ; {
		var err error
		if line, err = readLine(br, line[:0]); errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err == nil {
			if total += len(line); total > MaxPart {
				err = errLongPart
			} else {
				err = p.line(line)
			}
		}
		var mine taken
		if errors.As(err, &mine) {
			return mine.error
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if !p.started {
		return fmt.Errorf("%w: %w", ErrCorrupt, errNoLine)
	}
	return nil
}

// readLine appends a line with its newline. io.EOF with nothing is the end; with something, the line was cut off.
func readLine(br *bufio.Reader, line []byte) ([]byte, error) {
	for {
		some, err := br.ReadSlice('\n')
		line = append(line, some...)
		switch {
		case len(line) > MaxLine:
			return line, errLongLine
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, errCutLine
		default:
			return line, err
		}
	}
}

// marked lets the taker's errors through unchanged.
func (s sink) marked() sink {
	inode, entry := s.inode, s.entry
	s.inode = func(i *Inode) error { return mark(inode(i)) }
	s.entry = func(e *Entry) error { return mark(entry(e)) }
	return s
}

func mark(err error) error {
	if err == nil {
		return nil
	}
	return taken{err}
}
