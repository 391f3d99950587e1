package access

import (
	"context"
	"time"

	"slipway/internal/restore/chain"
)

// BranchRow is one row of `spool branches`.
type BranchRow struct {
	Epoch    uint32    `json:"epoch"`
	Node     string    `json:"node"`
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	SealedAt time.Time `json:"sealed_at"` // of the last batch
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Removals int64     `json:"removals"`
	Stores   []string  `json:"stores"`
}

// Branches lists what the main line of a volume has left behind. No identity is needed.
func Branches(ctx context.Context, r Request) ([]BranchRow, error) {
	v, err := Open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	line, err := chain.Open(ctx, v.Source)
	if err != nil {
		return nil, err
	}
	list, err := line.Branches(ctx)
	if err != nil {
		return nil, err
	}
	rows := []BranchRow{}
	for _, b := range list {
		rows = append(rows, BranchRow{
			Epoch: uint32(b.Epoch), Node: b.Node, First: uint64(b.First), Last: uint64(b.Last), SealedAt: b.SealedAt,
			Files: b.Counts.Files, Bytes: b.Counts.Bytes, Removals: b.Counts.Removals, Stores: b.Stores,
		})
	}
	return rows, nil
}
