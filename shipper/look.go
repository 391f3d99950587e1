package shipper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/state"
	"slipway/internal/store"
)

var errFork = errors.New("the host holds another batch under this number")

// looking asks the host where it stands and believes that, not what is remembered.
func (c *cursor) looking(ctx context.Context) State {
	c.v.mu.Lock()
	known, fault := c.v.known && c.v.agreement.compared, c.v.fault
	if !known || fault != "" {
		c.contact = c.s.now() // nobody was asked, and nobody need be until something arrives
	}
	c.v.mu.Unlock()
	if !known || fault != "" {
		return Idle
	}
	if err := c.look(ctx); err != nil {
		return c.failed(ctx, fmt.Errorf("look at %s: %w", c.h.name, err))
	}
	c.fresh = true
	c.v.mu.Lock()
	c.looked = true
	c.weak = store.Weak(c.h.store)
	c.v.mu.Unlock()
	c.answered()
	c.flush(ctx)
	next := c.decide(ctx)
	if next != Sending {
		c.backoff.Reset() // otherwise the sending decides whether all is well
	}
	wakeUp(c.again)
	return next
}

// look finds the host's head. It need not be the one remembered: another shipper may have been here, the host may have been
// reset, or a disk carried there.
func (c *cursor) look(ctx context.Context) error {
	if err := c.sameVolume(ctx); err != nil {
		return err
	}
	c.v.mu.Lock()
	head, digest, low := c.acks.Head, c.acks.HeadDigest, c.v.chain.Low
	top := c.v.acks.Head
	c.v.mu.Unlock()
	if head >= low && head > 0 {
		there, err := c.holds(ctx, head, digest)
		if err != nil {
			return err
		}
		if !there {
			return c.rewind(ctx, head)
		}
	}
	if top == 0 || head >= top {
		return nil
	}
	return c.advance(ctx, max(head+1, low))
}

// sameVolume reads the host's volume.json, or makes it: exclusively, so that two shippers with two volumes of one name do not
// both succeed.
func (c *cursor) sameVolume(ctx context.Context) error {
	ours := state.Volume{Format: 1, Name: c.v.name, ID: c.v.in.ID}
	theirs, err := intake.ReadVolumeFile(ctx, c.store)
	if errors.Is(err, store.ErrNotExist) {
		data, err := json.Marshal(ours)
		if err != nil {
			return fmt.Errorf("encode %s: %w", intake.VolumeFile, err)
		}
		err = c.store.CreateExclusive(ctx, intake.VolumeFile, append(data, '\n'))
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrExist) {
			return fmt.Errorf("make %s: %w", intake.VolumeFile, err)
		}
		theirs, err = intake.ReadVolumeFile(ctx, c.store)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if theirs.ID != ours.ID {
		return fmt.Errorf("%s/%s names the volume with id %s, this one is %s: give one of them another name or place: %w",
			c.v.name, intake.VolumeFile, theirs.ID, ours.ID, intake.ErrOtherVolume)
	}
	return nil
}

// holds tells whether the host holds the batch that is its head.
func (c *cursor) holds(ctx context.Context, seq batch.Seq, digest batch.Digest) (bool, error) {
	name := c.path(seq)
	data, err := c.store.Read(ctx, name, batch.MaxFile)
	if errors.Is(err, store.ErrNotExist) {
		// A server's "no such file" also stands for other faults: once more before a host is believed to have lost something.
		data, err = c.store.Read(ctx, name, batch.MaxFile)
	}
	if errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if sum(data) != digest {
		return false, fmt.Errorf("batch %d: %w", seq, errFork)
	}
	return true, nil
}

// path names a batch of the chain.
func (c *cursor) path(seq batch.Seq) string {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return c.v.chain.Path(seq)
}

// wentBack is when a host was found to have lost what it had, and where it had stood.
type wentBack struct {
	at  time.Time
	was batch.Seq
}

// backShown is how long status tells of it: what was lost is soon sent again, and would be missed by nobody.
const backShown = 24 * time.Hour

// warning says it, to an operator who may have put in the wrong disk, or none.
func (b wentBack) warning(host string, now time.Time) string {
	if b.at.IsZero() || now.Sub(b.at) > backShown {
		return ""
	}
	return fmt.Sprintf("%s, which had batch %d, was found without it at %s: it was reset, or another disk is there; what it lacks is sent again",
		host, b.was, b.at.Local().Format("2006-01-02 15:04"))
}

// rewind takes the cursor back to the newest batch that the host still holds without a gap below it. What it is said to
// verify is forgotten: everything is read back again.
func (c *cursor) rewind(ctx context.Context, was batch.Seq) error {
	c.v.mu.Lock()
	low := c.v.chain.Low
	epoch := c.v.chain.At(low).Epoch
	c.v.mu.Unlock()
	c.s.log.Error("a backup host has gone back: it was reset, or its disk put back to an older state; what it lacks is sent again",
		"volume", c.v.name, "host", c.h.name, "head_was", was)
	err := c.s.rehold(ctx, c.v, low, func() {
		c.acks.Rewind(epoch, low-1, batch.Digest{})
		c.acks.Verified = 0
		c.marks, c.begun, c.acksDirty = nil, nil, true
		c.back = wentBack{c.s.now(), was}
	})
	if err != nil {
		return err
	}
	return c.advance(ctx, low)
}

// advance moves the cursor over the batches that the host turns out to hold already, from seq on. A batch file is published
// after its shards, so that it stands for them.
func (c *cursor) advance(ctx context.Context, seq batch.Seq) error {
	last, err := c.contiguous(ctx, seq)
	if err != nil || last < seq {
		return err
	}
	p := c.v.copyChain()
	b, _, err := c.v.in.Load(ctx, &p, last)
	if err != nil {
		return err
	}
	there, err := c.holds(ctx, last, b.Digest)
	if err != nil || !there {
		return err
	}
	c.reached(b)
	return nil
}

// contiguous returns the last of the batches from seq on that the host holds without a gap, by name and size.
func (c *cursor) contiguous(ctx context.Context, seq batch.Seq) (last batch.Seq, err error) {
	last = seq - 1
	if !c.arrived(seq) {
		return last, nil
	}
	// Mostly the host holds nothing new: one question instead of a listing.
	if _, err := c.store.Stat(ctx, c.path(seq)); errors.Is(err, store.ErrNotExist) {
		return last, nil
	} else if err != nil {
		return last, err
	}
	var dir string
	var sizes map[string]int64
	for ; c.arrived(seq); seq++ {
		name := c.path(seq)
		if path.Dir(name) != dir {
			dir = path.Dir(name)
			if sizes, err = c.sizes(ctx, dir); err != nil {
				return last, err
			}
		}
		size, there := sizes[path.Base(name)]
		if !there {
			break
		}
		ours, err := c.v.in.Store.Stat(ctx, name)
		if err != nil {
			return last, err
		}
		if ours.Size != size {
			return last, fmt.Errorf("batch %d: %w", seq, errFork)
		}
		last = seq
	}
	return last, nil
}

func (c *cursor) sizes(ctx context.Context, dir string) (map[string]int64, error) {
	infos, err := c.store.List(ctx, dir)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(infos))
	for _, info := range infos {
		sizes[info.Name] = info.Size
	}
	return sizes, nil
}

// arrived tells whether a batch counts at the cache.
func (c *cursor) arrived(seq batch.Seq) bool {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return seq <= c.v.acks.Head
}

// reached notes that the host holds everything up to a batch. It is durable there.
func (c *cursor) reached(b *batch.Batch) {
	now := c.s.now()
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	c.acks.Advance(b.Envelope.Epoch, b.Envelope.Last, b.Digest, now)
	c.contact = now
	c.acksDirty = true
	c.markLocked(b.Envelope.Last, now)
	c.v.trimLocked()
}
