package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/ack"
	"slipway/internal/intake"
	"slipway/internal/store"
)

const (
	tellEvery = time.Second     // at most so often
	tellAgain = 5 * time.Second // after a fault
	tellPause = 30 * time.Second
)

// errNotOurs means: what lies on the cache under this volume's or this store's name is somebody else's.
var errNotOurs = errors.New("it is not this node's to write")

// teller writes this store's acks into the cache's copy of the volume, where the cache host compares them with its own. Owned by the
// loop that calls TellOnce.
type teller struct {
	cache store.Store // the volume there
	told  ack.Acks    // as last written
	at    time.Time
	ours  bool // the volume there is ours, and no other store has our name

	agreed   headOf    // up to which the cache's batches are known to be this node's
	compared time.Time // last
	shown    string    // the evidence that was laid beside the cache's batch last
}

// TellOnce writes the acks to the cache if they have changed, and returns how soon to come again (0: when something happens).
func (v *volume) TellOnce(ctx context.Context) time.Duration {
	t, a, now := &v.tell, v.keep.Standing().Acks, v.p.now()
	if a.Head == 0 && t.told.Head == 0 || a.Epoch == t.told.Epoch && a.Head == t.told.Head && a.HeadDigest == t.told.HeadDigest {
		return 0
	}
	if since := now.Sub(t.at); since >= 0 && since < tellEvery {
		return tellEvery - since
	}
	if err := v.tellCache(ctx, a); err != nil {
		// It is told again; the cache that is away is said elsewhere.
		v.p.log.Debug("tell the cache where this store stands", "volume", v.name, "error", err)
		return tellAgain
	}
	t.told, t.at = a, now
	return 0
}

func (v *volume) tellCache(ctx context.Context, a ack.Acks) error {
	t := &v.tell
	if !t.ours {
		if err := v.mayTell(ctx); err != nil {
			return err
		}
		t.ours = true
	}
	a.At, a.URL = v.p.now(), ""
	return ack.Write(ctx, t.cache, a)
}

// mayTell looks whose directory it is, and whether another kind of store has this one's name.
func (v *volume) mayTell(ctx context.Context) error {
	file, err := intake.ReadVolumeFile(ctx, v.tell.cache)
	if err != nil {
		return err
	}
	old, err := ack.Read(ctx, v.tell.cache, v.p.cfg.Name)
	if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, ack.ErrFormat) {
		return err
	}
	if id := v.keep.Standing().Acks.VolumeID; file.ID != id || err == nil && old.Kind != "replica" {
		return fmt.Errorf("write acks of %s: %w", v.p.cfg.Name, errNotOurs)
	}
	return nil
}
