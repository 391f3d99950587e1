package offline

import (
	"context"
	"slices"

	"slipway/internal/control"
)

// AllBatches asks for all batches of all volumes.
func AllBatches(ctx context.Context, a Answers) ([]control.BatchRow, error) {
	volumes, err := a.Status(ctx)
	if err != nil {
		return nil, err
	}
	var lists [][]control.BatchRow
	for _, v := range volumes {
		list, err := a.Batches(ctx, v.Volume, 0, 0)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return slices.Concat(lists...), nil
}
