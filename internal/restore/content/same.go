package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"slipway/internal/batch"
)

// zeroStep is how much of what should be a hole is compared at once.
const zeroStep = 1 << 20

var errDiffers = errors.New("content differs")

// Same tells whether a file holds the content, by the ids of its chunks: the stores are asked for lists of pieces only. Without the
// volume's secret nothing is the same.
func (r *Reader) Same(ctx context.Context, c *batch.Content, f *os.File) (bool, error) {
	if r.keys == nil {
		return false, nil
	}
	var buf []byte
	err := r.each(ctx, c, func(p *batch.Piece, parts []part) error {
		if err := errors.Join(ctx.Err(), p.Check()); err != nil {
			return err
		}
		if int64(cap(buf)) < p.Len {
			buf = make([]byte, p.Len)
		}
		data := buf[:p.Len]
		for _, s := range parts {
			if err := readFull(f, data[s.from:s.to], s.offset); err != nil {
				return err
			}
		}
		if r.keys.ID(data) != p.Chunk {
			return errDiffers
		}
		return nil
	})
	for i := 0; i < len(c.Holes) && err == nil; i++ {
		err = empty(ctx, f, c.Holes[i])
	}
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil, err
}

// readFull reads exactly so much; errDiffers where the file ends before.
func readFull(f *os.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errDiffers
	}
	return err
}

// empty compares what lies where the content has a hole: nothing, or zeros.
func empty(ctx context.Context, f *os.File, h batch.Hole) error {
	fd, end := int(f.Fd()), h.Offset+h.Len
	zero := make([]byte, 0)
	for at := h.Offset; at < end; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && from >= end {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find data behind %d: %w", at, err)
		}
		if len(zero) == 0 {
			zero = make([]byte, 2*zeroStep)
		}
		n := min(end-from, zeroStep)
		data := zero[zeroStep : zeroStep+n]
		if err := errors.Join(ctx.Err(), readFull(f, data, from)); err != nil {
			return err
		}
		if !bytes.Equal(data, zero[:n]) {
			return errDiffers
		}
		at = from + n
	}
	return nil
}
