package batch

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/hiddeco/sshsig"

	"slipway/internal/shard"
)

const (
	magic   = "slipway-batch "
	version = magic + "1\n"
)

// Batch is a batch file in memory.
type Batch struct {
	Envelope Envelope
	Digest   Digest // of the whole file

	line      []byte // line 2 with its newline: the signed bytes
	armor     []byte // line 3
	signature *sshsig.Signature
	body      []byte
}

// Parse reads a batch file's frame: version line, envelope, signature, body; it checks the body's size and digest against the
// envelope, and bounds everything. The signature is not checked yet, the body not decrypted. The batch refers to file.
func Parse(file []byte) (*Batch, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("parse batch: %d bytes, at most %d: %w", len(file), MaxFile, ErrCorrupt)
	}
	b, err := parseHead(file)
	if err != nil {
		return nil, fmt.Errorf("parse batch: %w", err)
	}
	b.Digest = sha256.Sum256(file)
	if int64(len(b.body)) != b.Envelope.BodySize {
		return nil, fmt.Errorf("parse batch: body of %d bytes, envelope says %d: %w", len(b.body), b.Envelope.BodySize, ErrCorrupt)
	}
	if sum := Digest(sha256.Sum256(b.body)); sum != b.Envelope.BodyDigest {
		return nil, fmt.Errorf("parse batch: body has digest %s, envelope says %s: %w", sum, b.Envelope.BodyDigest, ErrCorrupt)
	}
	return b, nil
}

// ParseSigned reads a signed envelope, lines 1 to 3 of a batch file without its body (what NamedBy embeds). Verify works on
// what it returns, Open does not.
func ParseSigned(text string) (*Batch, error) {
	if len(text) > MaxEnvelope+maxArmor+len(version) {
		return nil, fmt.Errorf("parse signed envelope of %d bytes: %w", len(text), ErrCorrupt)
	}
	b, err := parseHead([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("parse signed envelope: %w", err)
	}
	if len(b.body) > 0 {
		return nil, fmt.Errorf("parse signed envelope: %d bytes behind it: %w", len(b.body), ErrCorrupt)
	}
	return b, nil
}

// parseHead reads lines 1 to 3; the rest is the body.
func parseHead(file []byte) (*Batch, error) {
	if err := checkVersion(file); err != nil {
		return nil, err
	}
	rest := file[len(version):]
	end := bytes.IndexByte(rest[:min(len(rest), MaxEnvelope)], '\n') + 1
	if end == 0 {
		return nil, fmt.Errorf("no envelope line within %d bytes: %w", MaxEnvelope, ErrCorrupt)
	}
	b := &Batch{line: rest[:end:end]}
	rest = rest[end:]
	stop := bytes.Index(rest[:min(len(rest), maxArmor)], []byte(sigEnd)) + len(sigEnd)
	if !bytes.HasPrefix(rest, []byte(sigBegin)) || stop < len(sigBegin)+len(sigEnd) {
		return nil, fmt.Errorf("no signature behind the envelope: %w", ErrCorrupt)
	}
	b.armor, b.body = rest[:stop:stop], rest[stop:]
	var err error
	if b.signature, err = unarmor(b.armor); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if b.Envelope, err = decodeEnvelope(b.line); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return b, nil
}

func checkVersion(file []byte) error {
	if bytes.HasPrefix(file, []byte(version)) {
		return nil
	}
	first, _, whole := strings.Cut(string(file[:min(len(file), 64)]), "\n")
	if number, ok := strings.CutPrefix(first, magic); ok && whole {
		return fmt.Errorf("%w: newer format %q, this slipway reads 1", ErrFormat, number)
	}
	return fmt.Errorf("%w: it does not begin with %q", ErrFormat, strings.TrimSuffix(version, "\n"))
}

// SignedEnvelope returns lines 1 to 3, what NamedBy of a next epoch embeds.
func (b *Batch) SignedEnvelope() string {
	return version + string(b.line) + string(b.armor)
}

// Path returns the batch's name in a store.
func (b *Batch) Path() string { return Path(b.Envelope.Epoch, b.Envelope.First, b.Envelope.Last) }

// File returns the bytes that were parsed.
func (b *Batch) File() []byte { return append([]byte(b.SignedEnvelope()), b.body...) }

// Introduced returns the digests of the shards that have to be there for the batch to count.
func (b *Batch) Introduced() []shard.Digest {
	list := make([]shard.Digest, len(b.Envelope.Introduces))
	for i, o := range b.Envelope.Introduces {
		list[i] = o.Digest
	}
	return list
}
