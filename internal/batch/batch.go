// Package batch reads and writes batches: what changed in a volume between two journal positions, signed by the owner and
// chained to the batch before.
//
//	slipway-batch 1                     line 1: format and version
//	{"volume_id":"…","volume":…}        line 2: the envelope, all that may be known without an identity
//	-----BEGIN SSH SIGNATURE-----       the owner's signature over line 2 and its newline
//	…
//	-----END SSH SIGNATURE-----
//	age(zstd(JSON lines))               the body, every byte to the end; empty when it lies in shards of its own
//
// Reading goes from the outside in, and each step trusts only what the one before has proved: Parse bounds and checks the
// frame (the envelope names the body's size and digest), Verify checks who signed, Open decrypts. docs/format.md has every
// key with examples.
//
// The package keeps nothing on disk. A batch is the commit point in a store: it counts there when its file is there and all
// that it introduces is. Like a shard it is sealed once, and the same bytes are sent until they are delivered: sealing a
// sequence number twice would be a fork.
package batch

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Epoch counts beginnings of ownership, from 1. Term counts takeovers inside an epoch. They must never mix.
type Epoch uint32

// Term counts takeovers of sending.
type Term uint32

// Seq is a batch's sequence number; it goes on over epochs, from 1.
type Seq uint64

// FileID is slipway's own number of a file, never reused in the volume. Root is 1.
type FileID uint64

// Root is the volume's root directory.
const Root FileID = 1

// Limits of the format. What is above is refused by writer and reader alike.
const (
	MaxEpoch Epoch  = 99_999_999      // eight digits in a path
	MaxSeq   Seq    = 999_999_999_999 // twelve
	MaxID    FileID = 1<<53 - 1       // what every JSON reader keeps exactly

	MaxEnvelope = 1 << 20  // bytes of line 2
	MaxFile     = 10 << 20 // bytes of a batch file: envelope, signature, a body of at most shard.MaxSize
	MaxLine     = 4 << 20  // bytes of one line of a body
	MaxPart     = 64 << 20 // bytes of one body, or one body shard, decompressed

	MaxShards     = 1024 // shards of content that a batch introduces
	MaxBodyShards = 1024 // shards that its body lies in
	MaxAbandoned  = 4096 // shards that it abandons
)

// Classes of errors.
var (
	ErrFormat    = errors.New("not a batch of a known version")
	ErrSignature = errors.New("batch signature does not verify")
	ErrCorrupt   = errors.New("batch is corrupt")
)

// VolumeID is 16 random bytes made by init, in JSON and text as hex.
type VolumeID [16]byte

// NewVolumeID makes the id of a new volume.
func NewVolumeID() VolumeID {
	var id VolumeID
	_, _ = rand.Read(id[:]) // never fails: the program ends where there is no randomness
	return id
}

// ParseVolumeID reads 32 lower-case hex digits.
func ParseVolumeID(s string) (VolumeID, error) {
	var id VolumeID
	return id, parseHex(id[:], s, "volume id")
}

// String returns the id in hex.
func (id VolumeID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the id in hex.
func (id VolumeID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads 32 lower-case hex digits.
func (id *VolumeID) UnmarshalText(text []byte) error {
	return parseHex(id[:], string(text), "volume id")
}

// Digest is the SHA-256 of a whole batch file, in JSON and text as hex.
type Digest [32]byte

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	return d, parseHex(d[:], s, "batch digest")
}

// String returns the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the digest in hex.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads 64 lower-case hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	return parseHex(d[:], string(text), "batch digest")
}

var errHex = errors.New("not lower-case hex digits of the right number")

// parseHex fills dst from one spelling only, so that equal ids are equal texts.
func parseHex(dst []byte, s, what string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("parse %s of %d characters: %w", what, len(s), errHex)
	}
	raw, err := hex.DecodeString(s)
	if err != nil || strings.ToLower(s) != s {
		return fmt.Errorf("parse %s %q: %w", what, s, errHex)
	}
	copy(dst, raw)
	return nil
}

const seqPerDir = 10000

// Path returns "batches/<epoch>/<first/10000>/<first>-<last>.batch".
func Path(e Epoch, first, last Seq) string {
	return fmt.Sprintf("batches/%08d/%08d/%012d-%012d.batch", e, first/seqPerDir, first, last)
}

var errPath = errors.New("not the name of a batch")

// ParsePath is the reverse of Path; it refuses every other spelling.
func ParsePath(p string) (e Epoch, first, last Seq, err error) {
	const length = len("batches/00000001/00000000/000000000042-000000000042.batch")
	if len(p) != length {
		return 0, 0, 0, fmt.Errorf("parse batch path of %d bytes: %w", len(p), errPath)
	}
	epoch, err1 := strconv.ParseUint(p[8:16], 10, 32)
	from, err2 := strconv.ParseUint(p[26:38], 10, 64)
	to, err3 := strconv.ParseUint(p[39:51], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return 0, 0, 0, fmt.Errorf("parse batch path %q: %w", p, errPath)
	}
	e, first, last = Epoch(epoch), Seq(from), Seq(to)
	if e < 1 || first < 1 || last < first || Path(e, first, last) != p {
		return 0, 0, 0, fmt.Errorf("parse batch path %q: %w", p, errPath)
	}
	return e, first, last, nil
}
