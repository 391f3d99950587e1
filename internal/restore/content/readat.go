package content

import (
	"context"
	"errors"
	"io"

	"slipway/internal/batch"
)

// errEnough ends a walk over pieces.
var errEnough = errors.New("what was asked for has been read")

// ReadAt reads a part of a file's content, holes as zeros, as io.ReaderAt does.
func (r *Reader) ReadAt(ctx context.Context, c *batch.Content, p []byte, off int64) (n int, err error) {
	if off >= c.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.Size-off)]
	clear(p)
	end := off + int64(len(p))
	err = r.each(ctx, c, func(piece *batch.Piece, parts []part) error {
		var data []byte
		for _, s := range parts {
			from, to := max(s.offset, off), min(s.offset+s.to-s.from, end)
			if from >= to {
				continue
			}
			if data == nil {
				var err error
				if data, err = r.chunk(ctx, piece); err != nil {
					return err
				}
			}
			copy(p[from-off:to-off], data[s.from+from-s.offset:])
		}
		if len(parts) > 0 && parts[len(parts)-1].offset >= end {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	return len(p), nil
}
