package receive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/intake"
	"slipway/internal/store"
)

var _ control.Reporter = (*Receiver)(nil)

// Row is one row of `received ls`.
type Row struct {
	Volume   string     `json:"volume"`
	Node     string     `json:"node"`      // that owns it
	Epoch    uint32     `json:"epoch"`     // of the newest batch accepted
	Batch    uint64     `json:"batch"`     // newest accepted; 0: none
	SealedAt *time.Time `json:"sealed_at"` // of that batch, by its owner's clock
	Bytes    int64      `json:"bytes"`     // on disk, what was refused included
	Quota    int64      `json:"quota"`     // 0: none
	Refused  int        `json:"refused"`   // objects set aside
	State    string     `json:"state"`     // "ok", "waiting", "full", "refused"
	Why      string     `json:"why,omitempty"`
}

// List tells what a receiver's store holds, from the disk alone: also when the daemon is dead.
func List(ctx context.Context, cfg *config.Receive) ([]Row, error) {
	root, err := store.Open(cfg.Store, store.Options{})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Store, err)
	}
	defer func() { _ = root.Close() }()
	infos, err := root.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list store %s: %w", cfg.Store, err)
	}
	rows := []Row{}
	for _, info := range infos {
		if !info.Dir {
			continue
		}
		row, err := rowOf(ctx, cfg, info.Name, store.Sub(root, info.Name))
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", info.Name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func rowOf(ctx context.Context, cfg *config.Receive, name string, s store.Store) (Row, error) {
	row := Row{Volume: name, Quota: cfg.QuotaOf(name), State: "waiting", Why: "nothing was accepted yet"}
	dir, _ := store.LocalPath(s)
	var err error
	if row.Bytes, err = intake.TreeSize(ctx, dir); err != nil {
		return row, err
	}
	if len(cfg.Owners[name]) == 0 {
		row.State, row.Why = "refused", "no owner's key is configured for it: add it to owners:"
		return row, nil
	}
	a, err := ack.Read(ctx, s, cfg.Name)
	if errors.Is(err, store.ErrNotExist) {
		return row, nil
	}
	if err != nil {
		return row, err
	}
	row.Epoch, row.Batch, row.Refused = uint32(a.Epoch), uint64(a.Head), len(a.Refused)
	if a.Head > 0 {
		row.State, row.Why = "ok", ""
		if data, err := s.Read(ctx, batch.Path(a.Epoch, a.Head, a.Head), batch.MaxFile); err == nil {
			if b, err := batch.Parse(data); err == nil {
				row.Node, row.SealedAt = b.Envelope.Node, &b.Envelope.SealedAt
			}
		}
	}
	if a.Full {
		row.State, row.Why = "full", "the quota is reached: what comes is kept, and not accepted"
	}
	return row, nil
}

func (r *Receiver) all() []*volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*volume, 0, len(r.volumes))
	for _, v := range r.volumes {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *volume) int { return strings.Compare(a.name, b.name) })
	return list
}

// Status tells how far every accepted volume is.
func (r *Receiver) Status(context.Context) ([]control.Status, error) {
	var list []control.Status
	for _, v := range r.all() {
		s := v.keep.Standing()
		st := control.Status{
			Volume: v.name, Node: r.cfg.Node, Role: "receiver", Epoch: uint32(s.Chain.Present().Epoch), HeadBatch: uint64(s.Acks.Head),
			Complete: s.Chain.Complete, Waiting: s.Note, Spool: control.SpoolStatus{Bytes: v.used.Load(), Cap: r.cfg.QuotaOf(v.name)},
			At: r.now(), Daemon: control.Running,
			Stores: []control.StoreStatus{{Name: r.cfg.Name, Kind: "received", URL: v.keep.Dir, Batch: uint64(s.Acks.Head), State: s.Acks.Word(), Error: s.Fault}},
		}
		if s.Fault != "" {
			st.Warnings = append(st.Warnings, s.Fault)
		}
		if n := len(s.Acks.Refused); n > 0 {
			last := s.Acks.Refused[n-1]
			st.Warnings = append(st.Warnings, fmt.Sprintf("%d objects were refused, the last %s (%s): see %s/refused", n, last.Name, last.Reason, v.keep.Dir))
		}
		if s.Acks.Full {
			st.Warnings = append(st.Warnings, "the quota is reached: what comes is kept, and not accepted; raise receive.quota, or talk to the owner")
		}
		list = append(list, st)
	}
	return list, nil
}

// Batches lists a volume's batches (all volumes' for "") from a sequence number on.
func (r *Receiver) Batches(ctx context.Context, name string, from uint64, limit int) (rows []control.BatchRow, err error) {
	if limit <= 0 {
		limit = 10_000
	}
	for _, v := range r.all() {
		if name != "" && v.name != name {
			continue
		}
		list, err := v.keep.Rows(ctx, batch.Seq(from), limit-len(rows))
		for _, b := range list {
			rows = append(rows, control.BatchRow{
				Volume: v.name, Epoch: uint32(b.Epoch), Seq: uint64(b.Seq), SealedAt: b.SealedAt, Files: b.Files, Bytes: b.Bytes,
				Shards: b.Shards, Stage: control.Stored.String(), Copies: 1,
			})
		}
		if err != nil || len(rows) >= limit {
			return rows, err
		}
	}
	return rows, nil
}

// Pending is empty: what is not sealed is on the owner.
func (r *Receiver) Pending(context.Context, int) ([]control.PendingRow, error) { return nil, nil }

// Explain cannot answer for a path.
func (r *Receiver) Explain(context.Context, string) (control.Explained, error) {
	return control.Explained{}, errElsewhere
}

// Barrier cannot either.
func (r *Receiver) Barrier(_ context.Context, b control.Barrier) (control.Barrier, error) {
	return b, errElsewhere
}

// Do knows no word.
func (r *Receiver) Do(context.Context, string, string) error { return errElsewhere }
