package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

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

// Locate finds one volume in the roots of several stores: the one of that name or, with no name, the only one there is.
// Stores that do not have it are left out, as long as one has it.
func Locate(ctx context.Context, roots []NamedStore, volume string) ([]NamedStore, string, error) {
	var found []NamedStore
	var missing []error
	for _, r := range roots {
		names, err := Volumes(ctx, r.Store)
		if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", r.Name, err))
			continue
		}
		name, err := pick(names, volume)
		if err != nil {
			if errors.Is(err, errSeveral) {
				return nil, "", fmt.Errorf("find the volume in %s: %w", r.Name, err)
			}
			missing = append(missing, fmt.Errorf("%s: %w", r.Name, err))
			continue
		}
		if name == "" {
			found = append(found, r)
			continue
		}
		volume = name // all the others must agree
		sub := NamedStore{Name: r.Name, Store: store.Sub(r.Store, name)}
		if err := checkVersion(ctx, sub.Store); err != nil {
			return nil, "", fmt.Errorf("open volume %s in %s: %w", name, r.Name, err)
		}
		found = append(found, sub)
	}
	if len(found) == 0 {
		return nil, "", fmt.Errorf("find the volume: %w", errors.Join(missing...))
	}
	return found, volume, nil
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
