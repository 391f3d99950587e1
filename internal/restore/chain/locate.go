package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/batch"
	"slipway/internal/store"
)

// volumeFile lies at the root of a volume in a store.
const volumeFile = "volume.json"

// Volumes returns the names of the volumes in a store's root. A store that is itself the directory of one volume returns "".
func Volumes(ctx context.Context, root store.Store) (names []string, err error) {
	err = retry(ctx, func() error {
		names = nil
		list, err := root.List(ctx, "")
		if err != nil {
			return err
		}
		for _, i := range list {
			if i.Name == volumeFile || i.Name == "batches" && i.Dir {
				names = []string{""}
				return nil
			}
		}
		for _, i := range list {
			if !i.Dir {
				continue
			}
			is, err := isVolume(ctx, root, i.Name)
			if err != nil {
				return err
			}
			if is {
				names = append(names, i.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for volumes: %w", err)
	}
	return names, nil
}

func isVolume(ctx context.Context, root store.Store, name string) (bool, error) {
	for _, part := range []string{volumeFile, "batches"} {
		_, err := root.Stat(ctx, name+"/"+part)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, store.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Located is one volume as several stores have it.
type Located struct {
	Volume string
	Stores []NamedStore // those that have it, rooted at the volume, in the order given
	Silent []Fault      // those that did not answer, or with an error: they may have it too
}

// Locate finds one volume in the roots of several stores: the one of that name or, with no name, the only one there is.
// Stores that do not have it are left out, as long as one has it.
func Locate(ctx context.Context, roots []NamedStore, volume string) (l Located, err error) {
	l.Volume = volume
	var missing []error
	names, failed := look(ctx, roots, volume)
	if err := ctx.Err(); err != nil {
		return l, err
	}
	for i, r := range roots {
		if failed[i] != nil {
			l.Silent = append(l.Silent, Fault{r.Name, "volume", failed[i]})
			missing = append(missing, fmt.Errorf("%s: %w", r.Name, failed[i]))
			continue
		}
		name, err := pick(names[i], l.Volume)
		if err != nil {
			if errors.Is(err, errSeveral) {
				return l, fmt.Errorf("find the volume in %s: %w", r.Name, err)
			}
			missing = append(missing, fmt.Errorf("%s: %w", r.Name, err))
			continue
		}
		if name == "" {
			l.Stores = append(l.Stores, r)
			continue
		}
		l.Volume = name // all the others must agree
		sub := NamedStore{Name: r.Name, Store: store.Sub(r.Store, name)}
		if err := checkVersion(ctx, sub.Store); err != nil {
			return l, fmt.Errorf("open volume %s in %s: %w", name, r.Name, err)
		}
		l.Stores = append(l.Stores, sub)
	}
	if len(l.Stores) == 0 {
		return l, fmt.Errorf("find the volume: %w", errors.Join(missing...))
	}
	return l, nil
}

// grace is how long the other stores have to answer when one has the volume.
const grace = 5 * time.Second

// look asks all roots side by side for their volumes. As soon as one has what is looked for, the others have a little time left: a
// host that is off must not hold up a restore from one that is on.
func look(ctx context.Context, roots []NamedStore, volume string) (names [][]string, failed []error) {
	names, failed = make([][]string, len(roots)), make([]error, len(roots))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	late := sync.OnceValue(func() *time.Timer { return time.AfterFunc(grace, stop) })
	var g errgroup.Group
	for i, r := range roots {
		g.Go(func() error {
			if names[i], failed[i] = Volumes(ctx, r.Store); failed[i] != nil {
				if ctx.Err() != nil {
					failed[i] = fmt.Errorf("look for volumes: %w within %v", store.ErrTemporary, grace)
				}
				return nil
			}
			if _, err := pick(names[i], volume); err == nil {
				late()
			}
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
	late().Stop()
	return names, failed
}

var errSeveral = errors.New("several volumes lie there")

func pick(names []string, volume string) (string, error) {
	switch {
	case len(names) == 0:
		return "", fmt.Errorf("%w: no volume lies there", ErrNoBatch)
	case names[0] == "":
		return "", nil
	case volume == "" && len(names) == 1:
		return names[0], nil
	case volume == "":
		return "", fmt.Errorf("%w: %s; append one of them to the store's URL", errSeveral, strings.Join(names, ", "))
	}
	for _, n := range names {
		if n == volume {
			return n, nil
		}
	}
	return "", fmt.Errorf("%w: it holds %s, not %s", ErrNoBatch, strings.Join(names, ", "), volume)
}

// checkVersion refuses the directory of a newer slipway. A store without the file, or with a damaged one, is read all the
// same: the file is never a source of trust, the batches carry their own versions.
func checkVersion(ctx context.Context, s store.Store) error {
	const limit = 64 << 10
	data, err := s.Read(ctx, volumeFile, limit)
	if err != nil {
		return nil
	}
	var v struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &v); err == nil && v.Format > 1 {
		return fmt.Errorf("%w: %s has format %d, this slipway reads 1", batch.ErrFormat, volumeFile, v.Format)
	}
	return nil
}
