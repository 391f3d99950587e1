// Package nodekey tells nodes each other's public keys: a replica peer writes its own into its store, keys/<node>.pub in each
// volume's directory, and the volume's owner reads it there over the pinned SSH connection, to name it in its envelopes as one that
// may own the volume next.
//
// What is read there is another's word: bounded, checked, and believed once. The first key met is recorded below the state
// directory, and another one later is a matter for the operator. After a crash a key is recorded whole or not at all.
package nodekey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/store"
)

// maxFile bounds a public key's file.
const maxFile = 4 << 10

// ErrOther means: the node's key is not the one recorded at first contact.
var ErrOther = errors.New("another key than the one recorded at first contact")

// Path returns "keys/<node>.pub", the place in a volume's directory.
func Path(node string) string { return "keys/" + node + ".pub" }

// Publish writes a node's public key into a volume's directory, in place of what may lie there: only the owner of the store says
// whose it is.
func Publish(ctx context.Context, s store.Store, node, line string) error {
	text := []byte(line + " " + node + "\n")
	there, err := s.Read(ctx, Path(node), maxFile)
	if err == nil && string(there) == string(text) {
		return nil
	}
	if err := s.Replace(ctx, Path(node), text); err != nil {
		return fmt.Errorf("publish the key of node %s: %w", node, err)
	}
	return nil
}

// Read reads a node's public key from its store; store.ErrNotExist while it has written none.
func Read(ctx context.Context, s store.Store, node string) (string, error) {
	if !batch.ValidName(node) {
		return "", fmt.Errorf("read the key of node %.60q: %w", node, store.ErrName)
	}
	data, err := s.Read(ctx, Path(node), maxFile)
	if err != nil {
		return "", fmt.Errorf("read the key of node %s: %w", node, err)
	}
	line, err := keys.ParsePublic(data)
	if err != nil {
		return "", fmt.Errorf("read the key of node %s: %w", node, err)
	}
	return line, nil
}

// Known is a directory of the keys recorded at first contact, <node>.pub.
type Known string

func (k Known) path(node string) string { return filepath.Join(string(k), node+".pub") }

// Get returns the recorded key; "" if there is none. A damaged record is an error, not "none".
func (k Known) Get(node string) (string, error) {
	data, err := os.ReadFile(k.path(node))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the recorded key of node %s: %w", node, err)
	}
	line, err := keys.ParsePublic(data)
	if err != nil {
		return "", fmt.Errorf("read the recorded key of node %s: %s is damaged, remove it to record the next key seen: %w", node, k.path(node), err)
	}
	return line, nil
}

// Meet records a key at first contact. ErrOther: another one is recorded, and stays.
func (k Known) Meet(node, line string) error {
	known, err := k.Get(node)
	if err != nil {
		return err
	}
	if known == line {
		return nil
	}
	if known != "" {
		return fmt.Errorf("meet node %s: it shows %s, recorded in %s is %s: %w", node, line, k.path(node), known, ErrOther)
	}
	if err := durable.MkdirAll(string(k), 0o700); err != nil {
		return fmt.Errorf("record the key of node %s: %w", node, err)
	}
	if err := durable.CreateExclusive(k.path(node), []byte(line+" "+node+"\n"), 0o644); err != nil {
		return fmt.Errorf("record the key of node %s: %w", node, err)
	}
	return nil
}
