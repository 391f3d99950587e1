package offline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/hold"
	"slipway/internal/store"
)

// ErrNotHere says that a cache host's disk does not hold the answer.
var ErrNotHere = errors.New("only a primary node can tell")

// Host answers for a dead or silent shipper or peer, from the store and the acks in it.
type Host struct {
	node, role, name, store, state string
	copies                         int    // a cache host's own: how many backup hosts make a batch stored
	daemon                         string // control.Dead or control.NotAnswering
}

// hostOf returns the host of a configuration that holds other nodes' volumes.
func hostOf(c *config.Config, daemon string) (*Host, bool) {
	switch {
	case c.Cache != nil:
		return &Host{c.Cache.Node, "cache", c.Cache.Name, c.Cache.Store, c.Cache.State, c.Cache.Ship.Copies, daemon}, true
	case c.Peer != nil:
		return &Host{c.Peer.Node, "peer", c.Peer.Name, c.Peer.Store, c.Peer.State, 0, daemon}, true
	case c.Receive != nil:
		return &Host{c.Receive.Node, "receiver", c.Receive.Name, c.Receive.Store, c.Receive.State, 0, daemon}, true
	}
	return nil, false
}

// each calls fn for every volume in the store.
func (h *Host) each(ctx context.Context, fn func(volume string, s store.Store) error) error {
	root, err := store.Open(h.store, store.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	list, err := root.List(ctx, "")
	if err != nil {
		return err
	}
	for _, info := range list {
		if !info.Dir {
			continue
		}
		s := store.Sub(root, info.Name)
		if _, err := s.Stat(ctx, "volume.json"); errors.Is(err, store.ErrNotExist) {
			continue
		}
		if err := fn(info.Name, s); err != nil {
			return err
		}
	}
	return nil
}

// Status returns what the acks in the store say of each volume, and of the rest what the daemon last wrote.
func (h *Host) Status(ctx context.Context) ([]control.Status, error) {
	list, last := []control.Status{}, h.last()
	err := h.each(ctx, func(volume string, s store.Store) error {
		acks, err := ack.ReadAll(ctx, s)
		st := last[volume]
		st.Volume, st.Node, st.Role, st.Stale, st.Daemon = volume, h.node, h.role, true, h.daemon
		if err != nil {
			st.Warnings = append(st.Warnings, err.Error())
		}
		for _, a := range acks {
			if a.Store == h.name {
				st.HeadBatch, st.Epoch = uint64(a.Head), uint32(a.Epoch)
			}
			if a.At.After(st.At) {
				st.At = a.At
			}
		}
		st.Stores = known(acks, last[volume].Stores, st.HeadBatch)
		list = append(list, st)
		return nil
	})
	return list, err
}

// Batches lists the batch files of the store.
func (h *Host) Batches(ctx context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	rows, last := []control.BatchRow{}, h.last()
	err := h.each(ctx, func(name string, s store.Store) error {
		if volume != "" && name != volume {
			return nil
		}
		acks, _ := ack.ReadAll(ctx, s) // without acks the stage is the lowest there is
		list, err := listed(ctx, s, batchlist.Path(filepath.Join(h.state, "volumes"), name), filepath.Join(h.store, name), from, limit)
		held, _ := hold.Read(hold.Path(filepath.Join(h.state, "volumes"), name)) // the shipper says it when it cannot be read
		first, hosts := uint64(hold.First(held).Seq), backupHosts(acks)
		told := h.heads(acks, last[name])
		for _, b := range list {
			r := told.row(name, b)
			r.Held = first > 0 && r.Seq >= first && (hosts == 0 || r.Copies < hosts)
			rows = append(rows, r)
		}
		return err
	})
	return rows, err
}

func backupHosts(acks []ack.Acks) (n int) {
	for _, a := range acks {
		if a.Kind == "backup" {
			n++
		}
	}
	return n
}

// listed returns what listings show of the batch files of a volume's store, from a number on. Signatures are not checked.
func listed(ctx context.Context, s store.Store, remembered, dir string, from uint64, limit int) ([]batchlist.Row, error) {
	slots, err := slotsOf(dir, from, limit)
	if err != nil || len(slots) == 0 {
		return nil, err
	}
	known := batchlist.Open(remembered, dir, slots[0].seq, slots[len(slots)-1].seq)
	defer known.Close()
	rows := make([]batchlist.Row, 0, len(slots))
	for _, slot := range slots {
		r, err := known.Row(slot.epoch, slot.seq, func() (*batch.Envelope, error) {
			data, err := s.Read(ctx, slot.name, batch.MaxFile)
			if err != nil {
				return nil, err
			}
			b, err := batch.Parse(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", slot.name, err)
			}
			return &b.Envelope, nil
		})
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// slot is a batch file.
type slot struct {
	name  string
	epoch batch.Epoch
	seq   batch.Seq
}

// slotsOf returns the batch files below a volume's directory from a number on, in order of number and epoch; limit 0: all. Their names are
// enough, so that nothing is opened or looked at.
func slotsOf(dir string, from uint64, limit int) (slots []slot, err error) {
	// Whoever writes there may put a link in the way; WalkDir follows none but the first. (An os.Root looks at each file, which takes three times as long.)
	if st, err := os.Lstat(filepath.Join(dir, "batches")); err == nil && !st.IsDir() {
		return nil, nil
	}
	err = fs.WalkDir(os.DirFS(dir), "batches", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err == nil && d.IsDir() && strings.Count(name, "/") > 2:
			return fs.SkipDir
		}
		epoch, _, last, other := batch.ParsePath(name)
		if err == nil && other == nil && d.Type().IsRegular() && uint64(last) >= from {
			slots = append(slots, slot{name, epoch, last})
		}
		return err
	})
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.epoch, b.epoch)) })
	if limit > 0 && len(slots) > limit {
		slots = slots[:limit]
	}
	return slots, err
}

// Pending is a primary's matter.
func (h *Host) Pending(context.Context, int) ([]control.PendingRow, error) {
	return nil, fmt.Errorf("list pending files: %w", ErrNotHere)
}

// Explain is a primary's matter.
func (h *Host) Explain(context.Context, string) (control.Explained, error) {
	return control.Explained{}, fmt.Errorf("explain a path: %w", ErrNotHere)
}

// List is a primary's matter: a cache host cannot decrypt the tree.
func (h *Host) List(context.Context, string, bool) ([]control.ListRow, error) {
	return nil, fmt.Errorf("list the tree without an identity: %w", ErrNotHere)
}
