// Package keys makes and reads the files that hold secrets: age identities, the node's signing key, the volume's secret.
//
// None of them is ever overwritten, and each is read only while nobody else can read it. The age identity is the one that
// must be kept away from the node: whoever has it can read every batch, and without it nobody can.
//
// After a crash each file is whole or absent (internal/durable). A node key can be there without its .pub beside it, which
// nothing but people reads.
package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"slipway/internal/chunk"
	"slipway/internal/durable"
)

var (
	errKeyType = errors.New("not an unencrypted Ed25519 key in OpenSSH format")
	errSecret  = errors.New("not a volume secret of a known version")
)

// NewNodeKey makes the node's Ed25519 key at path (OpenSSH format, 0600, never over an existing file; path.pub beside it).
func NewNodeKey(path, node string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make node key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, node)
	if err != nil {
		return fmt.Errorf("make node key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return fmt.Errorf("make node key: %w", err)
	}
	public := path + ".pub"
	if _, err := os.Lstat(public); err == nil {
		return fmt.Errorf("make node key %s: %w", public, fs.ErrExist) // of a key that may still be wanted
	}
	if err := durable.CreateExclusive(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("make node key: %w", err)
	}
	if err := durable.CreateExclusive(public, []byte(PublicLine(signer)+" "+node+"\n"), 0o644); err != nil {
		return fmt.Errorf("write public node key: %w", err)
	}
	return nil
}

// CopyNodeKey puts the node's key at another place, with its .pub: the node is known by it in another role. ErrDiffers of durable when
// another key is there.
func CopyNodeKey(from, to, node string) error {
	signer, err := LoadNodeKey(from)
	if err != nil {
		return err
	}
	data, err := ReadSecretFile(from)
	if err != nil {
		return err
	}
	if err := durable.CreateIdempotent(to, data, 0o600); err != nil {
		return fmt.Errorf("copy node key: %w", err)
	}
	if err := durable.CreateIdempotent(to+".pub", []byte(PublicLine(signer)+" "+node+"\n"), 0o644); err != nil {
		return fmt.Errorf("copy public node key: %w", err)
	}
	return nil
}

// EnsureNodeKey reads the node's key, which it makes if there is none. Never over an existing file: a key that cannot be read is an
// error, and so is the .pub of a key that is gone. Of two processes that make it at once both get the one that is there then.
func EnsureNodeKey(path, node string) (ssh.Signer, error) {
	signer, err := LoadNodeKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return signer, err
	}
	made := NewNodeKey(path, node)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	if signer, err = LoadNodeKey(path); errors.Is(err, fs.ErrNotExist) {
		return nil, made
	}
	return signer, err
}

// LoadNodeKey reads it.
func LoadNodeKey(path string) (ssh.Signer, error) {
	data, err := ReadSecretFile(path)
	if err != nil {
		return nil, fmt.Errorf("load node key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("load node key %s: %w: %w", path, errKeyType, err)
	}
	if signer.PublicKey().Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("load node key %s: %w: it is %s", path, errKeyType, signer.PublicKey().Type())
	}
	return signer, nil
}

// PublicLine returns a signer's public key in authorized_keys form without comment: "ssh-ed25519 AAAA…".
func PublicLine(s ssh.Signer) string { return keyLine(s.PublicKey()) }

// ParsePublic reads one Ed25519 public key in authorized_keys form, as another node wrote it, and returns it without its comment.
func ParsePublic(text []byte) (string, error) {
	pub, _, _, rest, err := ssh.ParseAuthorizedKey(text)
	if err != nil || pub.Type() != ssh.KeyAlgoED25519 || len(bytes.TrimSpace(rest)) > 0 {
		return "", fmt.Errorf("read public key: %w", errOwnerKey)
	}
	return keyLine(pub), nil
}

func keyLine(pub ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(pub)), "\n")
}

// secretHead is the first line of a secret's file; the second is the secret in hex.
const secretHead = "slipway-secret 1\n"

// SaveSecret writes a secret that the volume has already, as a new owner learns it from a batch. Present and equal is success.
func SaveSecret(path string, s chunk.Secret) error {
	if err := durable.CreateIdempotent(path, secretText(s), 0o600); err != nil {
		return fmt.Errorf("save volume secret: %w", err)
	}
	return nil
}

func secretText(s chunk.Secret) []byte { return []byte(secretHead + hex.EncodeToString(s[:]) + "\n") }

// NewSecret makes the volume's secret at path (0600, never over an existing file). LoadSecret reads it.
func NewSecret(path string) (chunk.Secret, error) {
	var s chunk.Secret
	_, _ = rand.Read(s[:]) // never fails: the program ends where there is no randomness
	if err := durable.CreateExclusive(path, secretText(s), 0o600); err != nil {
		return chunk.Secret{}, fmt.Errorf("make volume secret: %w", err)
	}
	return s, nil
}

// LoadSecret reads the volume's secret.
func LoadSecret(path string) (chunk.Secret, error) {
	data, err := ReadSecretFile(path)
	if err != nil {
		return chunk.Secret{}, fmt.Errorf("load volume secret: %w", err)
	}
	var s chunk.Secret
	text, ok := bytes.CutPrefix(data, []byte(secretHead))
	if !ok || len(text) != hex.EncodedLen(len(s))+1 || text[len(text)-1] != '\n' {
		return chunk.Secret{}, fmt.Errorf("load volume secret %s: %w", path, errSecret)
	}
	if _, err := hex.Decode(s[:], text[:len(text)-1]); err != nil {
		return chunk.Secret{}, fmt.Errorf("load volume secret %s: %w", path, errSecret)
	}
	return s, nil
}
