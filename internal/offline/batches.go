package offline

import (
	"context"

	"slipway/internal/control"
)

// page is how many batches are asked for at once.
const page = 10_000

// AllBatches asks for all batches of all volumes: of a daemon a page at a time, for its memory's sake.
func AllBatches(ctx context.Context, a Answers) ([]control.BatchRow, error) {
	volumes, err := a.Status(ctx)
	if err != nil {
		return nil, err
	}
	rows, page := []control.BatchRow{}, page
	if _, ok := a.(*control.Client); !ok {
		page = 0
	}
	for _, v := range volumes {
		for from := uint64(0); ; {
			list, err := a.Batches(ctx, v.Volume, from, page)
			if err != nil {
				return nil, err
			}
			rows = append(rows, list...)
			if page == 0 || len(list) < page {
				break
			}
			from = list[len(list)-1].Seq + 1
		}
	}
	return rows, nil
}
