package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/store"
)

const maxKeeping = 16 << 20

var errNewerState = errors.New("state was written by a newer slipway")

func (k *Keeper) statePath() string { return filepath.Join(k.State, k.Name+".json") }

// recall reads, once after a start, what is remembered, and looks whether the store still holds it: names and sizes of all that was
// not dropped. Digests are not computed again.
func (k *Keeper) recall(ctx context.Context, id batch.VolumeID) error {
	k.mu.Lock()
	known := k.known
	k.mu.Unlock()
	if known {
		return nil
	}
	was, err := k.read()
	if err != nil {
		return err
	}
	k.ID = id
	if was != nil {
		k.ID = was.VolumeID
		k.mu.Lock()
		k.keeping = *was
		k.mu.Unlock()
		if err := k.recheck(ctx); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := &k.Acks
	a.VolumeID, a.Store, a.Kind, a.URL = k.ID, k.StoreName, k.Kind, k.URL
	k.VolumeID, k.known, k.dirty = k.ID, true, true
	return nil
}

// read returns what was remembered, or nil. A damaged file is like none: everything is checked again.
func (k *Keeper) read() (*keeping, error) {
	data, err := os.ReadFile(k.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of volume %s: %w", k.Name, err)
	}
	was, err := decodeKeeping(data)
	if errors.Is(err, errNewerState) {
		return nil, fmt.Errorf("read state of volume %s: %s: %w", k.Name, k.statePath(), err)
	}
	if err != nil {
		k.Log.Error("read state: everything will be checked again", "volume", k.Name, "file", k.statePath(), "error", err)
		return nil, nil
	}
	return was, nil
}

// decodeKeeping looks at the version first: what a newer slipway has written may have other types, and is not damaged.
func decodeKeeping(data []byte) (*keeping, error) {
	var version struct {
		Format int `json:"format"`
	}
	if len(data) > maxKeeping {
		return nil, fmt.Errorf("it has %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, err
	}
	if version.Format > 1 {
		return nil, fmt.Errorf("format %d: %w", version.Format, errNewerState)
	}
	var was keeping
	if err := json.Unmarshal(data, &was); err != nil {
		return nil, err
	}
	if was.Format != 1 || was.Chain.Head < was.Acks.Head {
		return nil, fmt.Errorf("format %d, head %d of %d checked batches", was.Format, was.Acks.Head, was.Chain.Head)
	}
	return &was, nil
}

// flush writes acks and what is remembered, when they have changed.
func (k *Keeper) flush(ctx context.Context) error {
	full := k.Full != nil && k.Full()
	k.mu.Lock()
	if full != k.Acks.Full {
		k.Acks.Full, k.dirty = full, true
	}
	if !k.dirty || !k.known {
		k.mu.Unlock()
		return nil
	}
	k.Acks.At, k.Format = k.Now(), 1
	data, err := json.Marshal(k.keeping)
	acks := k.Acks
	k.dirty = false
	k.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode state of volume %s: %w", k.Name, err)
	}
	if err := k.write(ctx, data, acks); err != nil {
		k.mu.Lock()
		k.dirty = true
		k.mu.Unlock()
		return err
	}
	return nil
}

func (k *Keeper) write(ctx context.Context, data []byte, acks ack.Acks) error {
	if err := durable.MkdirAll(k.State, 0o700); err != nil {
		return fmt.Errorf("write state of volume %s: %w", k.Name, err)
	}
	if err := durable.Overwrite(k.statePath(), data, 0o600); err != nil {
		return fmt.Errorf("write state of volume %s: %w", k.Name, err)
	}
	return ack.Write(ctx, k.Store, acks)
}

// recheck walks over what is remembered as checked. Where the store turns out to lack something, the chain ends before it.
func (k *Keeper) recheck(ctx context.Context) error {
	c := k.Chain()
	k.mu.Lock()
	dropped := k.Dropped
	k.mu.Unlock()
	for seq := c.Low; seq <= c.Head && c.Head > 0; seq++ {
		b, _, err := k.Load(ctx, &c, seq)
		if err == nil && seq > dropped {
			err = k.Recheck(ctx, b)
		}
		if err != nil && !Gone(err) {
			return err
		}
		if err != nil {
			k.Log.Error("the store has lost something while nobody looked: the head goes back, and the owner is to fill it again",
				"volume", k.Name, "batch", seq, "cause", err)
			return k.cutBefore(ctx, &c, seq)
		}
	}
	return nil
}

// Lost takes the chain back to before a batch that the store does not hold any more, in whole or in part: the acks' head goes back,
// which is the owner's sign to fill it again. Dying before the acks are written leaves a head that a restart takes back.
func (k *Keeper) Lost(ctx context.Context, seq batch.Seq, cause error) error {
	k.passMu.Lock()
	defer k.passMu.Unlock()
	return k.lost(ctx, seq, cause)
}

// lost is Lost during a pass.
func (k *Keeper) lost(ctx context.Context, seq batch.Seq, cause error) error {
	c := k.Chain()
	if seq > c.Head {
		return nil // somebody else has seen it
	}
	k.Log.Error("a batch in the store is damaged or incomplete: the head goes back, and the owner is to fill it again",
		"volume", k.Name, "batch", seq, "cause", cause)
	var r *Refusal
	if errors.As(cause, &r) {
		if err := k.pass().Refuse(r); err != nil {
			return err
		}
	}
	if err := k.cutBefore(ctx, &c, seq); err != nil {
		return err
	}
	return k.flush(ctx)
}

// cutBefore ends the chain before batch seq, or before an earlier one if that is gone too.
func (k *Keeper) cutBefore(ctx context.Context, c *Chain, seq batch.Seq) error {
	digest, err := k.CutBefore(ctx, c, seq)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keeping.Chain = *c
	k.Dropped, k.swept = min(k.Dropped, c.Head), min(k.swept, c.Head)
	k.Acks.Rewind(c.Present().Epoch, c.Head, digest)
	k.dirty = true
	return nil
}

// Drop removes the shards of batches up to a number, which others hold for good. Batch files stay. Dying in between, or an error,
// leaves the rest to the next call.
func (k *Keeper) Drop(ctx context.Context, through batch.Seq) error {
	k.passMu.Lock()
	defer k.passMu.Unlock()
	c := k.Chain()
	through = min(through, c.Head)
	k.mu.Lock()
	if through > k.Dropped {
		k.Dropped, k.dirty = through, true
	}
	k.mu.Unlock()
	if err := k.flush(ctx); err != nil { // noted before anything goes: a restart must not take it for lost
		return err
	}
	// What an earlier run has noted it may not have finished: the first call of a run goes over it again.
	for seq := max(k.swept+1, c.Low); seq <= through && seq > 0; seq++ {
		err := k.sweep(ctx, &c, seq)
		if Gone(err) { // the owner fills it again, and then this goes on
			return k.lost(ctx, seq, err)
		}
		if err != nil {
			return err
		}
		k.swept = seq
	}
	return nil
}

func (k *Keeper) sweep(ctx context.Context, c *Chain, seq batch.Seq) error {
	b, _, err := k.Load(ctx, c, seq)
	if err != nil {
		return err
	}
	for _, o := range b.Envelope.Introduces {
		if err := k.Store.Remove(ctx, o.Digest.Path()); err != nil {
			return fmt.Errorf("drop shard %s: %w", o.Digest, err)
		}
	}
	return nil
}

// Gone tells what is missing or damaged for good from what could not be read now.
func Gone(err error) bool {
	var r *Refusal
	return errors.As(err, &r) || errors.Is(err, store.ErrNotExist)
}
