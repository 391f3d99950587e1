package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// lookAgain looks for the shards of batches that are there by name but neither acknowledged nor sent by this run, and returns
// the last batch before one that lacks something.
func (p *Pusher) lookAgain(ctx context.Context, from, head batch.Seq) (batch.Seq, error) {
	var objects []batch.Object
	needs := make(map[batch.Object]batch.Seq)
	for seq := max(from, p.looked) + 1; seq <= head; seq++ {
		o, ok, err := readSealed(ctx, p.t.Own, p.t.Log, seq)
		if err != nil {
			return 0, err
		}
		if !ok {
			return seq - 1, nil
		}
		for _, s := range o.objects {
			objects = append(objects, s)
			needs[s] = seq
		}
	}
	missing, err := p.missing(ctx, objects)
	if err != nil {
		return 0, err
	}
	for _, s := range missing {
		head = min(head, needs[s]-1)
	}
	p.looked = max(p.looked, head)
	return head, nil
}

// missing returns those shards that the destination does not have in their full size: few are looked up one by one, many by
// listing the directories they lie in.
func (p *Pusher) missing(ctx context.Context, objects []batch.Object) ([]batch.Object, error) {
	var mu sync.Mutex
	var out []batch.Object
	lacks := func(o batch.Object) {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, o)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFlight)
	if len(objects) <= lookOneByOne {
		for _, o := range objects {
			g.Go(func() error {
				has, err := Holds(gctx, p.t.Dest, o)
				if err == nil && !has {
					lacks(o)
				}
				return err
			})
		}
	} else {
		byDir := make(map[string][]batch.Object)
		for _, o := range objects {
			dir := path.Dir(o.Digest.Path())
			byDir[dir] = append(byDir[dir], o)
		}
		for dir, want := range byDir {
			g.Go(func() error { return lacking(gctx, p.t.Dest, dir, want, lacks) })
		}
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("look for shards: %w", err)
	}
	slices.SortFunc(out, func(a, b batch.Object) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return out, nil
}

func lacking(ctx context.Context, s store.Store, dir string, want []batch.Object, lacks func(batch.Object)) error {
	list, err := s.List(ctx, dir)
	if err != nil {
		return err
	}
	sizes := make(map[string]int64, len(list))
	for _, i := range list {
		sizes[i.Name] = i.Size
	}
	for _, o := range want {
		if size, ok := sizes[path.Base(o.Digest.Path())]; !ok || size != o.Size {
			lacks(o)
		}
	}
	return nil
}

// Holds tells whether a store has a shard in its full size.
func Holds(ctx context.Context, s store.Store, o batch.Object) (bool, error) {
	i, err := s.Stat(ctx, o.Digest.Path())
	if errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	return err == nil && i.Size == o.Size, err
}
