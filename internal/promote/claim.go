package promote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/claim"
	"slipway/internal/durable"
)

func (r *run) claimFile() string { return filepath.Join(string(r.home), "claim.json") }

// kept returns the claim that an earlier call made or was about to make; nil: none.
func (r *run) kept() (*claim.Claim, error) {
	data, err := os.ReadFile(r.claimFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read this node's claim: %w", err)
	}
	c, err := claim.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("read this node's claim %s: %w", r.claimFile(), err)
	}
	return &c, nil
}

// claim makes the next epoch this node's: the commit point of a promotion. Of two nodes that try, one gets it. The claim is kept in the state
// directory first, so that a call after a lost reply or a crash knows its own by the nonce.
func (r *run) claim(ctx context.Context, v *view, mine *claim.Claim) error {
	e := &v.head.Envelope
	if mine == nil || mine.Epoch != e.Epoch+1 || mine.VolumeID != e.VolumeID {
		node := r.opt.Config.Node
		c := claim.New(e.VolumeID, e.Epoch+1, 0, node, node, fmt.Sprintf("promoted in place of %s", e.Node), r.now())
		data, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("encode claim: %w", err)
		}
		if err := durable.Overwrite(r.claimFile(), data, 0o600); err != nil {
			return fmt.Errorf("keep claim: %w", err)
		}
		mine = &c
	}
	r.say("claim epoch %d", mine.Epoch)
	err := claim.Create(ctx, r.cache, *mine)
	if !errors.Is(err, claim.ErrTaken) {
		return err
	}
	if there, rerr := claim.Read(ctx, r.cache, mine.Epoch, 0); rerr == nil {
		err = fmt.Errorf("epoch %d belongs to %s since %s: %w", mine.Epoch, there.Node, there.At.Format("2006-01-02 15:04:05Z07:00"), err)
	}
	return errors.Join(err, durable.Remove(r.claimFile()))
}
