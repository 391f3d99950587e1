package batch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"slipway/internal/shard"
)

// Sealed is what Seal made: the batch file, and the shards its body lies in when it is above 8 MiB.
type Sealed struct {
	Digest     Digest
	Envelope   Envelope
	File       []byte
	BodyShards map[shard.Digest][]byte
}

var errSeal = errors.New("not what a batch can hold")

// Seal encodes, encrypts and signs. It fills in the envelope's body fields and owner key. BodyShards are introduced by it too.
// Sealing the same things again gives other bytes (age is randomised): keep what it returned until it is delivered.
func Seal(env Envelope, body *Body, recipients []age.Recipient, signer ssh.Signer) (*Sealed, error) {
	s, err := seal(env, body, recipients, signer)
	if err != nil {
		return nil, fmt.Errorf("seal batch %d: %w", env.First, err)
	}
	return s, nil
}

func seal(env Envelope, body *Body, recipients []age.Recipient, signer ssh.Signer) (*Sealed, error) {
	if len(env.Introduces) > MaxShards {
		return nil, fmt.Errorf("%w: %d shards introduced, at most %d", errSeal, len(env.Introduces), MaxShards)
	}
	parts, err := newPartWriter(recipients).write(body)
	if err != nil {
		return nil, err
	}
	return finish(env, parts, signer)
}

// finish puts the sealed parts of a body where they belong, and signs.
func finish(env Envelope, parts [][]byte, signer ssh.Signer) (*Sealed, error) {
	s := &Sealed{}
	var inline []byte
	var err error
	if len(parts) == 1 {
		inline = parts[0]
	} else if s.BodyShards, err = place(&env, parts); err != nil {
		return nil, err
	}
	env.BodySize, env.BodyDigest = int64(len(inline)), sha256.Sum256(inline)
	env.OwnerKey = keyLine(signer.PublicKey())
	env.SealedAt = env.SealedAt.UTC().Round(0) // one spelling, and no monotonic clock
	line, err := env.encode()
	if err != nil {
		return nil, err
	}
	if err := env.check(); err != nil {
		return nil, err
	}
	signature, err := sign(line, signer)
	if err != nil {
		return nil, err
	}
	s.Envelope = env
	s.File = slices.Concat([]byte(version), line, signature, inline)
	s.Digest = sha256.Sum256(s.File)
	return s, nil
}

// place makes the parts shards of their own.
func place(env *Envelope, parts [][]byte) (map[shard.Digest][]byte, error) {
	if len(parts) > MaxBodyShards {
		return nil, fmt.Errorf("%w: body in %d shards, at most %d", errSeal, len(parts), MaxBodyShards)
	}
	env.Introduces = slices.Clone(env.Introduces) // the caller's stays as it is
	env.BodyShards = nil
	placed := make(map[shard.Digest][]byte, len(parts))
	for _, p := range parts {
		o := Object{Digest: shard.Sum(p), Size: int64(len(p))}
		env.BodyShards = append(env.BodyShards, o)
		env.Introduces = append(env.Introduces, o)
		placed[o.Digest] = p
	}
	return placed, nil
}
