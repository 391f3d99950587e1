package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Sum returns an object's SHA-256 and its size in bytes. A local one is read piece by piece, so that looking at a shard takes no
// shard's memory; one elsewhere is read as by Read, whose bound max is.
func Sum(ctx context.Context, s Store, name string, max int64) (digest [sha256.Size]byte, size int64, err error) {
	if d, ok := s.(described); ok {
		return d.sum(ctx, name, max)
	}
	return readSum(ctx, s, name, max)
}

func readSum(ctx context.Context, s Store, name string, max int64) (digest [sha256.Size]byte, size int64, err error) {
	data, err := s.Read(ctx, name, max)
	return sha256.Sum256(data), int64(len(data)), err
}

func (s *sftpStore) sum(ctx context.Context, name string, max int64) (digest [sha256.Size]byte, size int64, err error) {
	return readSum(ctx, s, name, max)
}

func (b sub) sum(ctx context.Context, name string, max int64) (digest [sha256.Size]byte, size int64, err error) {
	return Sum(ctx, b.s, b.join(name), max)
}

// ReadInto is Read into buf where that is large enough and the store reads by itself: who moves one shard after another needs
// the memory of one.
func ReadInto(ctx context.Context, s Store, name string, max int64, buf []byte) ([]byte, error) {
	if d, ok := s.(described); ok {
		return d.readInto(ctx, name, max, buf)
	}
	return s.Read(ctx, name, max)
}

func (s *sftpStore) readInto(ctx context.Context, name string, max int64, _ []byte) ([]byte, error) {
	return s.Read(ctx, name, max)
}

func (b sub) readInto(ctx context.Context, name string, max int64, buf []byte) ([]byte, error) {
	return ReadInto(ctx, b.s, b.join(name), max, buf)
}

var sumBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (s *localDir) sum(ctx context.Context, name string, max int64) (digest [sha256.Size]byte, size int64, err error) {
	if err := s.begin(ctx, name); err != nil {
		return digest, 0, s.explain("read", name, err)
	}
	f, err := s.open(name, unix.O_RDONLY|unix.O_NONBLOCK) // a fifo must not block
	if err != nil {
		return digest, 0, s.explain("read", name, err)
	}
	size, err = regularSize(f, max)
	h := sha256.New()
	if err == nil {
		buf := sumBuffers.Get().(*[256 << 10]byte)
		defer sumBuffers.Put(buf)
		var n int64
		n, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.LimitReader(f, size)}, buf[:])
		if err == nil && n < size {
			err = fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), size, s.explain("read", name, errors.Join(err, f.Close()))
}
