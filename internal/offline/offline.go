// Package offline answers for a daemon that is dead, or there and silent: from the catalog, the journal, the store and the last
// status.json, all read-only. Its answers have the form of the daemon's own (package control) and say that they are stale.
//
// It writes nothing, so a crash changes nothing.
package offline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/config"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/internal/leftout"
	"slipway/internal/shard"
	"slipway/internal/state"
)

// Answers is what may be asked of a daemon, or of the disk.
type Answers interface {
	Status(ctx context.Context) ([]control.Status, error)
	Batches(ctx context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error)
	Pending(ctx context.Context, limit int) ([]control.PendingRow, error)
	Explain(ctx context.Context, path string) (control.Explained, error)
	List(ctx context.Context, path string, recursive bool) ([]control.ListRow, error)
}

// Reached is whoever answers.
type Reached struct {
	Answers
	Note  string // not the daemon: who answers, and how old what it knows is; "" otherwise
	Close func()
}

// Reach returns the running daemon of a configuration, or else what the disk says.
func Reach(ctx context.Context, c *config.Config) (*Reached, error) {
	client, err := control.Dial(c.State())
	if err == nil {
		return &Reached{Answers: client, Close: func() {}}, nil
	}
	if !errors.Is(err, control.ErrSilent) && !errors.Is(err, control.ErrNoDaemon) {
		return nil, err
	}
	r, daemon := &Reached{Close: func() {}}, control.Dead
	if errors.Is(err, control.ErrSilent) {
		daemon = control.NotAnswering
	}
	if h, ok := hostOf(c, daemon); ok {
		r.Answers = h
	} else {
		v, err := Open(ctx, c.Primary, daemon)
		if err != nil {
			return nil, err
		}
		daemon = v.daemon
		r.Answers, r.Close = v, func() { _ = v.Close() }
	}
	r.Note = fmt.Sprintf("%s: this is what lies on disk; how far the stores are is as of %s ago", words(daemon), lastSaid(c.State()))
	return r, nil
}

// Age says how long ago something was said.
func Age(at time.Time) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return config.FormatDuration(time.Since(at))
}

// words says what is the matter with a daemon.
func words(daemon string) string {
	if daemon == control.Dead {
		return "the daemon is dead"
	}
	return "the daemon does not answer"
}

// lastSaid tells how old the daemon's last word is.
func lastSaid(state string) string {
	list, err := control.LastStatus(state)
	if err != nil || len(list) == 0 {
		return Age(time.Time{})
	}
	return Age(list[0].At)
}

// Volume answers for a primary's spooler.
type Volume struct {
	cfg    *config.Primary
	daemon string          // control.Dead or control.NotAnswering
	cat    *catalog.Reader // nil: nothing was ever sealed
	last   control.Status  // of status.json; zero if there is none
	unread error           // why status.json cannot be read
	left   *leftout.Finder
}

// Open opens a primary's state for reading. A spooler that was taken for dead and has its catalog open, beginning or ending just
// now, counts as one that does not answer.
func Open(_ context.Context, p *config.Primary, daemon string) (*Volume, error) {
	v := &Volume{cfg: p, daemon: daemon}
	if _, err := state.Dir(p.State).ReadVolume(); err != nil {
		return nil, err
	}
	list, err := control.LastStatus(p.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.unread = err
	}
	if len(list) > 0 {
		v.last = list[0]
	}
	if v.left, err = leftout.Open(p); err != nil {
		return nil, err
	}
	if err = v.openCatalog(state.Dir(p.State).Catalog()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, v.left.Close())
	}
	return v, nil
}

func (v *Volume) openCatalog(path string) (err error) {
	v.cat, err = catalog.OpenReader(path)
	if err == nil && v.daemon == control.Dead && v.cat.InUse() {
		v.daemon = control.NotAnswering
	}
	return err
}

// Close closes what Open opened.
func (v *Volume) Close() error {
	err := v.left.Close()
	if v.cat == nil {
		return err
	}
	return errors.Join(err, v.cat.Close())
}

// view runs fn on the catalog, if there is one.
func (v *Volume) view(fn func(*catalog.Tx) error) error {
	if v.cat == nil {
		return nil
	}
	return v.cat.View(fn)
}

// Status returns what the catalog and the journal hold now, and of the stores what was last known.
func (v *Volume) Status(context.Context) ([]control.Status, error) {
	s := v.last
	s.Volume, s.Node, s.Role, s.Stale, s.Daemon = v.cfg.Volume, v.cfg.Node, "primary", true, v.daemon
	if s.At.IsZero() {
		s.At = time.Now()
	}
	s.Spool.Cap = v.cfg.Spool.Cap
	var sealedAt time.Time
	err := v.view(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		s.Epoch, s.HeadBatch, s.Complete = uint32(m.Epoch), uint64(m.Head), m.Complete
		sealedAt = m.SealedAt
		if s.Spool.Bytes, err = held(tx); err != nil {
			return err
		}
		s.Waiting, err = unchecked(tx)
		s.Journal = positions(v.cfg.State, m.Position)
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, err := v.pending()
	if err != nil {
		return nil, err
	}
	if v.unread != nil {
		s.Warnings = append(s.Warnings, fmt.Sprintf("how far the stores are is not known: %v; `slipway mount` writes it anew", v.unread))
	}
	s.Pending = count(rows, time.Now())
	s.Stores = v.stores(s.HeadBatch, sealedAt)
	return []control.Status{s}, nil
}

// held returns the bytes of the node's own store.
func held(tx *catalog.Tx) (total int64, err error) {
	err = tx.Shards(func(_ shard.Digest, i catalog.ShardInfo) error {
		if !i.Evicted {
			total += i.Size
		}
		return nil
	})
	return total, err
}

func unchecked(tx *catalog.Tx) (string, error) {
	n := 0
	err := tx.EachUnchecked(func(batch.FileID) error { n++; return nil })
	if n == 0 || err != nil {
		return "", err
	}
	return fmt.Sprintf("%d directories are not compared yet", n), nil
}

func positions(stateDir string, sealed journal.Position) control.JournalStatus {
	j := control.JournalStatus{Sealed: sealed.Offset}
	if end, err := journal.End(state.Dir(stateDir).Journal()); err == nil {
		j.Head = end.Offset
		if end.Instance != sealed.Instance {
			j.Sealed, j.Gaps = 0, 1
		}
	}
	return j
}

func count(rows []control.PendingRow, now time.Time) (p control.PendingStatus) {
	for _, r := range rows {
		p.Files++
		p.Bytes += r.Bytes
		p.OldestSeconds = max(p.OldestSeconds, now.Sub(r.Since).Seconds())
	}
	return p
}

// stores returns the configured stores with what was last known of each.
func (v *Volume) stores(head uint64, sealedAt time.Time) []control.StoreStatus {
	known := map[string]control.StoreStatus{}
	for _, st := range v.last.Stores {
		known[st.Kind+" "+st.Name] = st
	}
	list := []control.StoreStatus{{Name: v.cfg.Node, Kind: "own", URL: v.cfg.Spool.Dir, Batch: head, State: "ok"}}
	add := func(kind string, s config.Store) {
		st, ok := known[kind+" "+s.Name]
		if !ok {
			st = control.StoreStatus{Name: s.Name, Kind: kind, State: "unchecked"}
		}
		st.URL = s.URL
		if st.LagBatches = max(0, int64(head)-int64(st.Batch)); st.LagBatches > 0 && st.LagSeconds == 0 {
			st.LagSeconds = max(0, time.Since(sealedAt).Seconds())
		}
		delete(known, kind+" "+s.Name)
		list = append(list, st)
	}
	for _, s := range v.cfg.Replicas {
		add("replica", s)
	}
	add("cache", v.cfg.Cache)
	for _, s := range v.cfg.Backups {
		add("backup", s)
	}
	for _, st := range v.last.Stores { // backup hosts that only the cache knows
		if _, left := known[st.Kind+" "+st.Name]; left && st.Kind != "own" {
			list = append(list, st)
		}
	}
	return list
}

// Batches lists what was sealed, with the stages as last known.
func (v *Volume) Batches(_ context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	rows := []control.BatchRow{}
	if volume != "" && volume != v.cfg.Volume {
		return nil, fmt.Errorf("volume %q: %w", volume, fs.ErrNotExist)
	}
	err := v.view(func(tx *catalog.Tx) error {
		rows = rows[:0]
		return tx.Batches(batch.Seq(from), func(b catalog.BatchInfo) error {
			if limit > 0 && len(rows) == limit {
				return nil
			}
			stage, stores := v.stage(uint64(b.Seq))
			rows = append(rows, control.BatchRow{
				Volume: v.cfg.Volume, Epoch: uint32(b.Epoch), Seq: uint64(b.Seq), SealedAt: b.SealedAt, Files: b.Files, Bytes: b.Bytes,
				Shards: b.Shards, Stage: stage.String(), Copies: copiesOf(v.last.Stores, uint64(b.Seq)), Stores: stores,
			})
			return nil
		})
	})
	return rows, err
}

// stage returns how far a batch was known to have come, and the stores that were known to hold it. A stage that the configuration
// does not have is passed with the one before it. Verified is not remembered here.
func (v *Volume) stage(seq uint64) (stage control.Stage, stores []string) {
	replicas, cached := 0, false
	for _, st := range v.last.Stores {
		if st.Batch < seq {
			continue
		}
		switch st.Kind {
		case "replica":
			replicas++
		case "cache":
			cached = true
		}
		if st.Kind != "own" { // where this is read from
			stores = append(stores, st.Name)
		}
	}
	switch {
	case replicas < v.cfg.MinReplicas && !cached:
		return control.Sealed, stores
	case !cached:
		if len(v.cfg.Replicas) == 0 {
			return control.Sealed, stores
		}
		return control.Replicated, stores
	case copiesOf(v.last.Stores, seq) < cmp.Or(v.cfg.Copies, v.last.Copies, 1):
		return control.Cached, stores
	}
	return control.Stored, stores
}

// copiesOf counts the backup hosts that were known to hold a batch.
func copiesOf(stores []control.StoreStatus, seq uint64) (n int) {
	for _, st := range stores {
		if st.Kind == "backup" && st.Batch >= seq {
			n++
		}
	}
	return n
}

// Status returns the status of a configuration's daemon: its answer, or what the disk says, or what it last wrote where a host's
// daemon is silent.
func Status(ctx context.Context, c *config.Config) ([]control.Status, error) {
	daemon, list, err := control.FindState(ctx, c.State())
	if err != nil || daemon == control.Running {
		return list, err
	}
	told := len(list) > 0 // what it last wrote is better than nothing
	if h, ok := hostOf(c, daemon); ok {
		if told && daemon == control.NotAnswering {
			return list, nil
		}
		return h.Status(ctx)
	}
	v, err := Open(ctx, c.Primary, daemon)
	if err != nil && told && (daemon == control.NotAnswering || errors.Is(err, catalog.ErrBusy)) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	now, err := v.Status(ctx)
	if told && errors.Is(err, catalog.ErrBusy) { // it commits all the time
		return list, nil
	}
	return now, err
}
