package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/progress"
	"slipway/internal/restore/chain"
	"slipway/internal/store"
)

// Classes of errors.
var (
	// ErrSilent: a configured store could not be asked; what it alone holds would be lost from the history.
	ErrSilent = errors.New("a configured store does not answer")
	// ErrAlive: the volume's owner works.
	ErrAlive = errors.New("the volume's owner is alive")
	// ErrNotNamed: no batch of the present epoch names this node's key.
	ErrNotNamed = errors.New("no batch of the owner names this node's key")
	// ErrOwner: this node owns the volume already.
	ErrOwner = errors.New("this node owns the volume already")
)

// view is what the stores hold together.
type view struct {
	line   *chain.Line
	head   *batch.Batch // the newest batch of the valid chain
	silent []string     // stores that could not be asked, and why
}

// ask lists every store, and follows the chain through those that answer.
func (r *run) ask(ctx context.Context) (*view, error) {
	v := &view{}
	src := chain.Source{IDs: r.id.Identities, Owners: r.owners}
	for _, s := range r.stores {
		if _, _, err := chain.List(ctx, s.Store); err != nil {
			v.silent = append(v.silent, fmt.Sprintf("%s: %v", s.Name, err))
			continue
		}
		src.Stores = append(src.Stores, s)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(v.silent) > 0 && !r.opt.Force {
		return nil, fmt.Errorf("%w: %s; try again later, or give --force and lose what it alone holds", ErrSilent, strings.Join(v.silent, "; "))
	}
	var err error
	if v.line, err = chain.Open(ctx, src); err != nil {
		return nil, err
	}
	newest := len(v.line.Slots) - 1
	if v.head, err = v.line.Batch(ctx, &v.line.Slots[newest]); err != nil {
		return nil, fmt.Errorf("read the newest batch: %w", err)
	}
	return v, nil
}

// named checks that the present epoch's owner has named this node's key: nobody would accept its epoch otherwise.
func (r *run) named(ctx context.Context, v *view) error {
	epoch := v.head.Envelope.Epoch
	if v.head.Envelope.OwnerKey == r.key {
		return fmt.Errorf("epoch %d: %w", epoch, ErrOwner)
	}
	for i := len(v.line.Slots) - 1; i >= 0 && v.line.Slots[i].Epoch == epoch; i-- {
		b, err := v.line.Batch(ctx, &v.line.Slots[i])
		if err != nil {
			return err
		}
		if slices.Contains(b.Envelope.NextKeys, r.key) {
			return nil
		}
	}
	return fmt.Errorf("epoch %d, key %s: %w; its batches do once it has met this peer, or its configuration gives the key", epoch, r.key, ErrNotNamed)
}

// sign is what the owner moves while it lives.
type sign struct {
	newest   batch.Seq
	progress map[string]progress.Progress // by store
}

func (r *run) signs(ctx context.Context, owner string) sign {
	s := sign{progress: map[string]progress.Progress{}}
	for _, st := range r.stores {
		if slots, _, err := chain.List(ctx, st.Store); err == nil && len(slots) > 0 {
			s.newest = max(s.newest, slots[len(slots)-1].Last)
		}
		if p, err := progress.Read(ctx, st.Store, owner); err == nil {
			s.progress[st.Name] = p
		}
	}
	return s
}

// alive looks for signs of the owner's life: a batch that arrived just now, or one that arrives, or progress that moves within
// stale_after. That nothing moves proves nothing: an owner without anything to do is silent. The operator knows.
func (r *run) alive(ctx context.Context, v *view) error {
	owner, slot := v.head.Envelope.Node, v.line.Slots[len(v.line.Slots)-1]
	for _, s := range r.stores {
		info, err := s.Store.Stat(ctx, slot.Path())
		if age := r.now().Sub(info.ModTime); err == nil && age >= 0 && age < r.opt.Config.StaleAfter {
			return fmt.Errorf("%w: batch %d of %s arrived at %s %v ago", ErrAlive, slot.Last, owner, s.Name, age.Round(time.Millisecond))
		}
	}
	before := r.signs(ctx, owner)
	timer := time.NewTimer(r.opt.Config.StaleAfter)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	after := r.signs(ctx, owner)
	if after.newest > before.newest {
		return fmt.Errorf("%w: %s has sealed batch %d just now", ErrAlive, owner, after.newest)
	}
	for name, p := range after.progress {
		if was, had := before.progress[name]; !had || p.Run != was.Run || p.Number != was.Number {
			return fmt.Errorf("%w: its progress at %s moves", ErrAlive, name)
		}
	}
	return nil
}

// closeAll frees the connections.
func closeAll(stores []store.Store) {
	for _, s := range stores {
		_ = s.Close() // nothing is under way any more
	}
}
