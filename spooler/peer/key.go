package peer

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/nodekey"
	"slipway/internal/state"
	"slipway/internal/store"
)

// ensureKey makes this node's key at first start: what an owner names in its envelopes, and what signs when this node is promoted.
func (p *Peer) ensureKey() error {
	signer, err := keys.EnsureNodeKey(state.Dir(p.cfg.State).NodeKey(), p.cfg.Node)
	if err != nil {
		return fmt.Errorf("make this node's key: %w", err)
	}
	p.public = keys.PublicLine(signer)
	return nil
}

// tellKey writes this node's public key into the volume's directory, once in each run, as soon as there is a volume.
func (v *volume) tellKey(ctx context.Context) error {
	v.mu.Lock()
	told := v.told
	v.mu.Unlock()
	if told || v.p.public == "" {
		return nil
	}
	if _, err := intake.ReadVolumeFile(ctx, v.keep.Store); err != nil {
		if errors.Is(err, store.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := nodekey.Publish(ctx, v.keep.Store, v.p.cfg.Node, v.p.public); err != nil {
		return err
	}
	v.mu.Lock()
	v.told = true
	v.mu.Unlock()
	return nil
}
