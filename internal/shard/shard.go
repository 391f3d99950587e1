// Package shard seals chunks into containers of at most 8 MiB, and reads them back.
//
// A shard is a standard age file over zstd frames, one after another:
//
//	┌───────────────────────────── age file (its SHA-256 is its name) ──────────────────────────────┐
//	│ header: one stanza a recipient │ nonce │ encrypted in pieces of 64 KiB:                        │
//	│                                        │ frame │ frame │ frame │ …                             │
//	└───────────────────────────────────────────────────────────────────────────────────────────────┘
//	frame: several small chunks, together up to 1 MiB      or one part, up to 1 MiB, of a chunk above 1 MiB
//
// There is no index inside: batches say where chunks lie (Slot). docs/format.md has the bytes. The writer holds only
// recipients and cannot read back what it sealed, so it checks every frame against the chunk ids before it encrypts.
//
// The package keeps nothing on disk. A shard is sealed once and its bytes are kept until they are delivered: age is
// randomised, so that after a crash the same chunks sealed again are another shard with another name, and harmless.
package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"slipway/internal/chunk"
)

// Limits in bytes.
const (
	MaxSize   = 8 << 20 // a sealed shard
	FrameSize = 1 << 20 // raw content of one zstd frame
)

// MaxChunks is how many chunks one shard holds at most, so that very small files cost a bounded amount of memory.
const MaxChunks = 16384

// ErrCorrupt tells that a shard's bytes are not what their digest or chunk id says.
var ErrCorrupt = errors.New("shard is corrupt")

// Digest is the SHA-256 of a sealed shard, and its name.
type Digest [32]byte

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the digest in hex.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads 64 lower-case hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

const (
	pathPrefix = "shards/"
	pathSuffix = ".shard"
)

// Path returns "shards/3f/3fa9….shard".
func (d Digest) Path() string {
	name := d.String()
	return pathPrefix + name[:2] + "/" + name + pathSuffix
}

var (
	errDigest = errors.New("digest is not 64 lower-case hex digits")
	errPath   = errors.New("not the name of a shard")
)

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return Digest{}, fmt.Errorf("parse shard digest of %d bytes: %w", len(s), errDigest)
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil || d.String() != s {
		return Digest{}, fmt.Errorf("parse shard digest %q: %w", s, errDigest)
	}
	return d, nil
}

// ParsePath is the reverse of Digest.Path; it refuses every other spelling.
func ParsePath(p string) (Digest, error) {
	if len(p) > 128 {
		return Digest{}, fmt.Errorf("parse shard path of %d bytes: %w", len(p), errPath)
	}
	name := strings.TrimSuffix(p[strings.LastIndexByte(p, '/')+1:], pathSuffix)
	d, err := ParseDigest(name)
	if err != nil || d.Path() != p {
		return Digest{}, fmt.Errorf("parse shard path %q: %w", p, errPath)
	}
	return d, nil
}

// Sum returns the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// Slot says where a chunk lies: Stored bytes at Offset of the decrypted stream are one or more whole zstd frames; the chunk
// is Len bytes at In of what they decompress to. A chunk above FrameSize fills frames of its own, one after another.
// A slot's Offset, Stored and In are set once its frame is flushed, at the latest by Seal.
type Slot struct {
	Chunk  chunk.ID
	Offset int64
	Stored int64
	In     int64
	Len    int64
}

// Check tells whether the slot can be one of a shard at all; ErrCorrupt if not. It bounds what reading it allocates.
func (s Slot) Check() error {
	big := s.Len > FrameSize
	raw := int64(FrameSize)
	if big {
		raw = s.Len
	}
	switch {
	case s.Len < 1 || s.Len > chunk.Max:
		return fmt.Errorf("chunk %s has length %d: %w", s.Chunk, s.Len, ErrCorrupt)
	case s.In < 0 || s.In > raw-s.Len:
		return fmt.Errorf("chunk %s lies at %d of its frame: %w", s.Chunk, s.In, ErrCorrupt)
	case s.Stored < 1 || s.Stored > maxStored(raw):
		return fmt.Errorf("chunk %s has %d stored bytes: %w", s.Chunk, s.Stored, ErrCorrupt)
	case s.Offset < 0 || s.Offset > MaxSize-s.Stored:
		return fmt.Errorf("chunk %s lies at %d of its shard: %w", s.Chunk, s.Offset, ErrCorrupt)
	}
	return nil
}
