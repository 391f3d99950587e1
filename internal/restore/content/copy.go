package content

import (
	"context"
	"io"

	"slipway/internal/batch"
)

// Copy writes content in order, holes as zeros.
func (r *Reader) Copy(ctx context.Context, c *batch.Content, w io.Writer) error {
	pos := int64(0)
	err := r.each(ctx, c, func(p *batch.Piece, parts []part) error {
		data, err := r.chunk(ctx, p)
		if err != nil {
			return err
		}
		for _, s := range parts {
			if err := zeros(ctx, w, s.offset-pos); err != nil {
				return err
			}
			if _, err := w.Write(data[s.from:s.to]); err != nil {
				return err
			}
			pos = s.offset + s.to - s.from
		}
		return nil
	})
	if err != nil {
		return err
	}
	return zeros(ctx, w, c.Size-pos)
}

func zeros(ctx context.Context, w io.Writer, n int64) error {
	var block [64 << 10]byte
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := w.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}
