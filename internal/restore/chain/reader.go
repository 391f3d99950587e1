package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/cenkalti/backoff/v5"

	"slipway/internal/batch"
	"slipway/internal/shard"
	"slipway/internal/store"
)

const (
	inFlight  = 24          // batches read at once: they are small, and a distant store answers late
	maxFaults = 1000        // kept; a store full of rubbish must not fill memory
	asideFor  = time.Minute // a store that did not answer is asked last for so long
	tries     = 5           // of all stores together, when none answers
)

// Fault is an object that could not be used as one store has it. Another store may have given it.
type Fault struct {
	Store  string
	Object string
	Err    error
}

// Reader reads objects from the nearest store that has a sound copy. Safe for concurrent use.
type Reader struct {
	stores []NamedStore
	ids    []age.Identity

	mu     sync.Mutex
	faults []Fault
	known  map[[2]string]bool // store and object of faults
	absent map[string]int     // store → objects that it did not have
	aside  []time.Time        // per store: asked last until then
}

func newReader(src Source) *Reader {
	return &Reader{
		stores: src.Stores, ids: src.IDs, faults: slices.Clone(src.Silent), known: make(map[[2]string]bool),
		absent: make(map[string]int), aside: make([]time.Time, len(src.Stores)),
	}
}

// Faults returns the damage and the failures met so far, each once.
func (r *Reader) Faults() []Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.faults)
}

// Absent returns how many objects each store was asked for and did not have. A store may have evicted what others hold.
func (r *Reader) Absent() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := make(map[string]int, len(r.absent))
	for k, v := range r.absent {
		m[k] = v
	}
	return m
}

func (r *Reader) fault(i int, object string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := [2]string{r.stores[i].Name, object}
	if !r.known[k] && len(r.faults) < maxFaults {
		r.known[k] = true
		r.faults = append(r.faults, Fault{r.stores[i].Name, object, err})
	}
}

// order returns the stores of a list, those that did not answer lately behind the others.
func (r *Reader) order(list []int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	late := func(i int) int {
		if r.aside[i].After(now) {
			return 1
		}
		return 0
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b int) int { return late(a) - late(b) })
	return list
}

// read reads an object that passes check from the first store of the list that has it.
func (r *Reader) read(ctx context.Context, object string, limit int64, list []int, check func([]byte) error) error {
	return retry(ctx, func() error {
		var temporary error
		var faults []error
		for _, i := range r.order(list) {
			data, err := r.stores[i].Store.Read(ctx, object, limit)
			if err == nil {
				if err = check(data); err == nil {
					return nil
				}
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, ErrIdentity): // the same in every store
				return err
			case errors.Is(err, store.ErrNotExist):
				r.mu.Lock()
				r.absent[r.stores[i].Name]++
				r.mu.Unlock()
				continue
			case errors.Is(err, store.ErrTemporary):
				temporary = err
				r.mu.Lock()
				r.aside[i] = time.Now().Add(asideFor)
				r.mu.Unlock()
			}
			r.fault(i, object, err)
			faults = append(faults, fmt.Errorf("%s: %w", r.stores[i].Name, err))
		}
		if temporary != nil {
			return fmt.Errorf("read %s: %w", object, temporary)
		}
		return fmt.Errorf("read %s: %w", object, errors.Join(append([]error{ErrMissing}, faults...)...))
	})
}

// retry repeats fn while the stores do not answer.
func retry(ctx context.Context, fn func() error) error {
	b := backoff.NewExponentialBackOff()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := fn()
		if err != nil && !errors.Is(err, store.ErrTemporary) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxTries(tries))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		return permanent.Unwrap()
	}
	return err
}

// Shard reads a sealed shard whose bytes have the digest.
func (r *Reader) Shard(ctx context.Context, d shard.Digest) ([]byte, error) {
	var data []byte
	all := make([]int, len(r.stores))
	for i := range all {
		all[i] = i
	}
	err := r.read(ctx, d.Path(), shard.MaxSize, all, func(b []byte) error {
		if got := shard.Sum(b); got != d {
			return fmt.Errorf("%w: its digest is %s", shard.ErrCorrupt, got)
		}
		data = b
		return nil
	})
	return data, err
}

// OpenShard reads a shard and decrypts its header.
func (r *Reader) OpenShard(ctx context.Context, d shard.Digest) (*shard.Reader, int64, error) {
	data, err := r.Shard(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	s, err := shard.Open(bytes.NewReader(data), int64(len(data)), r.ids)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", d.Path(), identityError(err))
	}
	return s, int64(len(data)), nil
}

// Batch reads the batch of a slot, signed by the key of its epoch.
func (l *Line) Batch(ctx context.Context, s *Slot) (*batch.Batch, error) {
	key := l.keys[s.Epoch]
	if key == "" {
		return nil, fmt.Errorf("read %s: %w", s.Path(), ErrOwner)
	}
	return l.batch(ctx, s, []string{key}, nil)
}

// batch reads a batch signed by one of the keys; want, if given, is the digest that its successor names.
func (l *Line) batch(ctx context.Context, s *Slot, keys []string, want *batch.Digest) (b *batch.Batch, err error) {
	err = l.read(ctx, s.Path(), batch.MaxFile, s.stores, func(data []byte) error {
		p, err := Check(data, s)
		if err != nil {
			return err
		}
		if l.VolumeID != (batch.VolumeID{}) && p.Envelope.VolumeID != l.VolumeID {
			return fmt.Errorf("%w: it belongs to volume %s, not %s", batch.ErrCorrupt, p.Envelope.VolumeID, l.VolumeID)
		}
		if err := p.Verify(keys); err != nil {
			return err
		}
		if want != nil && !links(p, want) {
			return fmt.Errorf("%w: it is not the batch that the next one is chained to", batch.ErrCorrupt)
		}
		b = p
		return nil
	})
	return b, err
}

// BatchOf reads the batch of a slot from one store, and checks that the key of its epoch signed it.
func (l *Line) BatchOf(ctx context.Context, s store.Store, slot *Slot) (*batch.Batch, error) {
	key := l.keys[slot.Epoch]
	if key == "" {
		return nil, fmt.Errorf("%w: its epoch %d was not begun by one", ErrOwner, slot.Epoch)
	}
	data, err := ReadRetry(ctx, s, slot.Path(), batch.MaxFile)
	if err != nil {
		return nil, err
	}
	b, err := Check(data, slot)
	if err != nil {
		return nil, err
	}
	if b.Envelope.VolumeID != l.VolumeID {
		return nil, fmt.Errorf("%w: it belongs to volume %s, not %s", batch.ErrCorrupt, b.Envelope.VolumeID, l.VolumeID)
	}
	return b, b.Verify([]string{key})
}

// ReadRetry reads one object from one store, and again while the store does not answer.
func ReadRetry(ctx context.Context, s store.Store, name string, limit int64) (data []byte, err error) {
	err = retry(ctx, func() error {
		data, err = s.Read(ctx, name, limit)
		return err
	})
	return data, err
}

// Check reads a batch file's frame and compares its envelope with the place where it was found.
func Check(data []byte, s *Slot) (*batch.Batch, error) {
	b, err := batch.Parse(data)
	if err != nil {
		return nil, err
	}
	if e := &b.Envelope; e.Epoch != s.Epoch || e.First != s.First || e.Last != s.Last {
		return nil, fmt.Errorf("%w: it is %s", batch.ErrCorrupt, batch.Path(e.Epoch, e.First, e.Last))
	}
	return b, nil
}

// links tells whether the batch is, or stands for, the one with this digest.
func links(b *batch.Batch, prev *batch.Digest) bool {
	return b.Digest == *prev || b.Envelope.StandsFor != nil && *b.Envelope.StandsFor == *prev
}

// Body decrypts a batch's body; parts of a large one are read as shards.
func (r *Reader) Body(ctx context.Context, b *batch.Batch) (*batch.Body, error) {
	if len(r.ids) == 0 {
		return nil, fmt.Errorf("open %s: %w: none was given", b.Path(), ErrIdentity)
	}
	body, err := b.Open(r.ids, func(d shard.Digest) (io.ReaderAt, int64, error) {
		data, err := r.Shard(ctx, d)
		return bytes.NewReader(data), int64(len(data)), err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", b.Path(), identityError(err))
	}
	return body, nil
}

func identityError(err error) error {
	var no *age.NoIdentityMatchError
	if errors.As(err, &no) {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return err
}
