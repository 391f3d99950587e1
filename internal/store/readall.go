package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ReadAll reads what a directory holds in files NAME.json. One that is gone when it is read is passed over; errors of reading one are
// joined, and the others are returned all the same.
func ReadAll[T any](ctx context.Context, s Store, dir string, read func(ctx context.Context, s Store, name string) (T, error)) (all []T, err error) {
	infos, err := s.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var faults []error
	for _, info := range infos {
		name, ok := strings.CutSuffix(info.Name, ".json")
		if !ok || info.Dir {
			continue
		}
		switch v, err := read(ctx, s, name); {
		case err == nil:
			all = append(all, v)
		case !errors.Is(err, ErrNotExist):
			faults = append(faults, err)
		}
	}
	return all, errors.Join(faults...)
}
