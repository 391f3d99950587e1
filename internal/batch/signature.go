package batch

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Namespace is the SSHSIG namespace of envelopes: a signature made for anything else is not one of a batch.
const Namespace = "slipway-batch"

const (
	sigBegin   = "-----BEGIN SSH SIGNATURE-----\n"
	sigEnd     = "-----END SSH SIGNATURE-----\n"
	sigColumns = 70      // as ssh-keygen wraps them; encoding/pem would wrap at 64
	maxArmor   = 4 << 10 // an Ed25519 signature takes 306 bytes
)

var errKey = errors.New("not an Ed25519 key in authorized_keys form (ssh-ed25519 AAAA…, no comment)")

// parseKey reads the one spelling of a key that keyLine gives.
func parseKey(line string) (ssh.PublicKey, error) {
	pub, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(rest) > 0 || pub.Type() != ssh.KeyAlgoED25519 || keyLine(pub) != line {
		return nil, fmt.Errorf("%q: %w", line, errKey)
	}
	return pub, nil
}

// keyLine returns a key in authorized_keys form, without comment.
func keyLine(pub ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(pub)), "\n")
}

// sign returns the armored signature over line 2.
func sign(line []byte, signer ssh.Signer) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(line), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		return nil, fmt.Errorf("sign envelope: %w", err)
	}
	return armor(sig), nil
}

// armor writes a signature byte for byte as `ssh-keygen -Y sign` does.
func armor(sig *sshsig.Signature) []byte {
	text := base64.StdEncoding.EncodeToString(sig.Marshal())
	out := []byte(sigBegin)
	for line := range slices.Chunk([]byte(text), sigColumns) {
		out = append(append(out, line...), '\n')
	}
	return append(out, sigEnd...)
}

// unarmor reads a signature and refuses every other spelling of it: what is beside the signed bytes must not be changeable by
// somebody without the key, or a copy with the same content would have another digest and look like a fork.
func unarmor(text []byte) (*sshsig.Signature, error) {
	body := bytes.TrimSuffix(bytes.TrimPrefix(text, []byte(sigBegin)), []byte(sigEnd))
	raw, err := base64.StdEncoding.AppendDecode(nil, bytes.ReplaceAll(body, []byte("\n"), nil))
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	sig, err := sshsig.ParseSignature(raw)
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	if len(sig.Signature.Rest) > 0 || !bytes.Equal(armor(sig), text) {
		return nil, fmt.Errorf("read signature: %w: not in canonical form", errArmor)
	}
	return sig, nil
}

var errArmor = errors.New("armor is not valid")

// Verify checks the signature against the keys given (authorized_keys form); ErrSignature if none of them made it or the
// envelope's owner key is not the signer.
func (b *Batch) Verify(keys []string) error {
	owner, err := parseKey(b.Envelope.OwnerKey)
	if err != nil {
		return fmt.Errorf("verify batch: %w: owner key %w", ErrSignature, err)
	}
	if !b.allowed(owner, keys) {
		return fmt.Errorf("verify batch: %w: owner key %s of node %s is none of the %d trusted ones", ErrSignature,
			ssh.FingerprintSHA256(owner), b.Envelope.Node, len(keys))
	}
	if b.signature.HashAlgorithm != sshsig.HashSHA512 {
		return fmt.Errorf("verify batch: %w: hash %s instead of sha512", ErrSignature, b.signature.HashAlgorithm)
	}
	// Verify compares namespace and signing key before it checks the signature itself.
	if err := sshsig.Verify(bytes.NewReader(b.line), b.signature, owner, sshsig.HashSHA512, Namespace); err != nil {
		return fmt.Errorf("verify batch: %w: %w", ErrSignature, err)
	}
	return nil
}

// allowed compares keys, not spellings: a list may carry comments.
func (b *Batch) allowed(owner ssh.PublicKey, keys []string) bool {
	return slices.ContainsFunc(keys, func(line string) bool {
		pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		return err == nil && bytes.Equal(pub.Marshal(), owner.Marshal())
	})
}
