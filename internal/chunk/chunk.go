// Package chunk cuts file content into chunks and names them.
//
// Cut points depend on content and on the volume's secret (FastCDC with a keyed gear table), so that an insertion moves only the
// cuts around it and sizes tell nothing to somebody without the secret and without the content. A chunk's id is BLAKE3 of its
// content, keyed with another key derived from the same secret. docs/format.md has the derivation contexts and the algorithm.
//
// The package writes nothing: a crash leaves nothing behind. What has to stay true over every restart and version is that the
// same secret and the same bytes give the same cuts and ids; the golden tests pin both.
package chunk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// Sizes of chunks in bytes (min 256 KiB, mean about 1 MiB, max 4 MiB; a file that is not above the minimum is one chunk).
const (
	Min  = 256 << 10
	Mean = 1 << 20
	Max  = 4 << 20
)

// Contexts of BLAKE3's key derivation. They are part of the format: another text is another volume.
const (
	cutContext = "slipway 1 chunk cut points"
	idContext  = "slipway 1 chunk ids"
)

// ID names a chunk: BLAKE3 of its content, keyed with the volume's secret.
type ID [32]byte

// String returns the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the id in hex.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads 64 lower-case hex digits.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

var errID = errors.New("chunk id is not 64 lower-case hex digits")

// ParseID reads 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("parse chunk id of %d bytes: %w", len(s), errID)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("parse chunk id %q: %w", s, errID)
	}
	return id, nil
}

// Secret is the volume's secret, 32 random bytes made by init.
type Secret [32]byte

// String hides the secret from logs and messages.
func (Secret) String() string { return "[secret]" }

// GoString hides it from %#v.
func (Secret) GoString() string { return "chunk.Secret{…}" }

// Keys are the sub-keys derived from a Secret (BLAKE3 DeriveKey, distinct contexts): one for cut points, one for ids.
// A copy names and cuts as the original does. Safe for concurrent use.
type Keys struct {
	cut     [32]byte
	hashers *sync.Pool // of *blake3.Hasher keyed for ids; one is about 10 KiB, too much to make per small file
}

// DeriveKeys derives the volume's keys.
func DeriveKeys(s Secret) Keys {
	var k Keys
	var id [32]byte
	blake3.DeriveKey(cutContext, s[:], k.cut[:])
	blake3.DeriveKey(idContext, s[:], id[:])
	k.hashers = &sync.Pool{New: func() any {
		h, err := blake3.NewKeyed(id[:])
		if err != nil {
			panic(err) // only for a key that is not 32 bytes
		}
		return h
	}}
	return k
}

// String hides the keys from logs and messages.
func (Keys) String() string { return "[keys]" }

// GoString hides them from %#v.
func (Keys) GoString() string { return "chunk.Keys{…}" }

// ID returns the id of a chunk with this content. Keys that were not derived have no id to give: that is a bug, and panics.
func (k Keys) ID(data []byte) ID {
	h := k.hashers.Get().(*blake3.Hasher)
	defer k.hashers.Put(h)
	h.Reset()
	_, _ = h.Write(data) // a hash does not fail
	var id ID
	h.Sum(id[:0])
	return id
}
