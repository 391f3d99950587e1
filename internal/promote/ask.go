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

// silence is how long an owner that lives may be silent: two of the signs that it gives when it is idle may be lost.
const silence = 2*progress.IdleEvery + time.Second

// alive looks for signs of the owner's life. This node's own store tells at once, since its files carry this node's time: a progress file or
// a batch that came lately. Another store's time may be wrong, so where that knows more than the own one, what it holds has to stay as it
// is for as long as an owner may be silent.
func (r *run) alive(ctx context.Context, v *view) error {
	owner, slot := v.head.Envelope.Node, v.line.Slots[len(v.line.Slots)-1]
	for _, name := range []string{slot.Path(), progress.Path(owner)} {
		info, err := r.own.Stat(ctx, name)
		if age := r.now().Sub(info.ModTime); err == nil && age >= 0 && age < silence {
			return fmt.Errorf("%w: %s came from %s %v ago", ErrAlive, name, owner, age.Round(time.Millisecond))
		}
	}
	before := r.signs(ctx, owner)
	if !before.beyond(r.opt.Config.Name) {
		return nil
	}
	r.say("wait for %v whether a sign of %s comes", silence, owner)
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-time.After(progress.IdleEvery / 10):
		}
		if at := r.signs(ctx, owner).since(before); at != "" {
			return fmt.Errorf("%w: %s", ErrAlive, at)
		}
	}
}

// signs is what the owner moves while it lives, by store.
type signs map[string]sign

type sign struct {
	newest   batch.Seq
	progress progress.Progress // zero: none
}

func (r *run) signs(ctx context.Context, owner string) signs {
	all := signs{}
	for _, st := range r.stores {
		var s sign
		if slots, _, err := chain.List(ctx, st.Store); err == nil && len(slots) > 0 {
			s.newest = slots[len(slots)-1].Last
		}
		if p, err := progress.Read(ctx, st.Store, owner); err == nil {
			s.progress = p
		}
		all[st.Name] = s
	}
	return all
}

// lost says which batches the owner told of that no store which was asked holds; "": none.
func (r *run) lost(ctx context.Context, v *view) string {
	e := &v.head.Envelope
	had := e.Last
	for _, s := range r.signs(ctx, e.Node) {
		if s.progress.Epoch == e.Epoch && s.progress.VolumeID == e.VolumeID {
			had = max(had, s.progress.Head)
		}
	}
	if had == e.Last {
		return ""
	}
	return fmt.Sprintf("%s has sealed batches %d to %d, which no store that was asked holds: they do not become part of the volume, and stay a side branch in its own store",
		e.Node, e.Last+1, had)
}

// told tells whether s carries a progress file that was is not.
func (s sign) told(was sign) bool {
	return s.progress.Number != 0 && (s.progress.Run != was.progress.Run || s.progress.Number != was.progress.Number)
}

// beyond tells whether another store knows more of the owner than the own one.
func (all signs) beyond(own string) bool {
	mine := all[own]
	for _, s := range all {
		if s.newest > mine.newest || s.told(mine) {
			return true
		}
	}
	return false
}

// since says what has moved since before; "" for nothing.
func (all signs) since(before signs) string {
	for name, s := range all {
		switch was := before[name]; {
		case s.newest > was.newest:
			return fmt.Sprintf("batch %d has come to %s just now", s.newest, name)
		case s.told(was):
			return fmt.Sprintf("its progress at %s moves", name)
		}
	}
	return ""
}

// closeAll frees the connections.
func closeAll(stores []store.Store) {
	for _, s := range stores {
		_ = s.Close() // nothing is under way any more
	}
}
