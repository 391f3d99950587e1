package shipper

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/control"
	"slipway/internal/hold"
	"slipway/internal/store"
)

var _ control.Reporter = (*Shipper)(nil)

// errNoPaths: file names are inside the batches, which a cache host cannot read.
var errNoPaths = errors.New("a cache host knows no file names: ask on the primary, or use `slipway ship --explain`")

// Status tells how far every volume is.
func (s *Shipper) Status(ctx context.Context) ([]control.Status, error) {
	if err := s.remember(ctx); err != nil {
		return nil, err
	}
	now := s.now()
	var list []control.Status
	for _, v := range s.all() {
		list = append(list, s.status(v, now))
	}
	return list, nil
}

func (s *Shipper) status(v *volume, now time.Time) control.Status {
	used := s.usage.of(v.name)
	v.mu.Lock()
	defer v.mu.Unlock()
	st := control.Status{
		Volume: v.name, Node: s.cfg.Node, Role: "cache", Epoch: uint32(v.chain.Present().Epoch),
		HeadBatch: uint64(v.acks.Head), Complete: v.chain.Complete,
		Spool: control.SpoolStatus{Bytes: used, Cap: s.cfg.Ship.Cap}, Copies: s.cfg.Ship.Copies,
		At: now, Daemon: control.Running,
	}
	own := control.StoreStatus{Name: v.acks.Store, Kind: "cache", URL: s.cfg.Store, Batch: uint64(v.acks.Head), State: "ok", Error: v.whyLocked()}
	fork := v.forkLocked()
	switch {
	case v.fault != "":
		own.State = "refused"
	case fork != "":
		own.State, own.Error = "refused", fork
	case v.acks.Full:
		own.State = "full"
	}
	st.Stores = append(st.Stores, own)
	st.Warnings = append(v.warningsLocked(), v.agreementWarningsLocked(now)...)
	if h := hold.First(v.holds); h.Seq > 0 {
		st.Warn(control.Alarm{Event: control.Held, Level: control.LevelWarning, Message: heldWarning(h)})
	}
	for _, c := range v.cursors {
		r := c.reportLocked()
		x := storeStatus(r, now)
		x.Rate = c.h.meter.Rate(now)
		st.Stores = append(st.Stores, x)
		if r.Damage != "" {
			st.Warn(control.Alarm{Event: control.VerificationFailed, Level: control.LevelError, Store: r.Host, Message: r.Damage})
		}
		if r.Back != "" {
			st.Warn(control.Alarm{Event: control.WentBack, Level: control.LevelWarning, Store: r.Host, Message: r.Back})
		}
		st.Warnings = append(st.Warnings, r.warnings()...)
	}
	return st
}

func storeStatus(r Report, now time.Time) control.StoreStatus {
	st := control.StoreStatus{Name: r.Host, Kind: "backup", URL: r.URL, Batch: uint64(r.Head), LagBatches: r.LagBatches, LagBytes: r.LagBytes, State: "ok"}
	if !r.LagSince.IsZero() {
		st.LagSeconds = max(0, now.Sub(r.LagSince).Seconds())
	}
	switch {
	case r.Full:
		st.State = "full"
	case r.State == Refused:
		st.State = "refused"
	case r.State == Waiting:
		st.State = "down"
	case r.State == Sending:
		st.State = "sending"
	case r.State == Holding:
		st.State, st.WaitsFor = "waiting", r.WaitsFor
	}
	if r.Err != nil {
		st.Error = store.WithRemedy(r.Err)
	} else {
		st.Error = r.Damage
	}
	return st
}

func (v *volume) warningsLocked() []string {
	var list []string
	if v.fault != "" {
		list = append(list, v.fault)
	}
	if n := len(v.acks.Refused); n > 0 {
		last := v.acks.Refused[n-1]
		list = append(list, fmt.Sprintf("%d objects were refused, the last %s (%s): see %s/refused", n, last.Name, last.Reason, v.in.Dir))
	}
	if v.acks.Full {
		list = append(list, "the store has reached its cap: raise ship.cap, shorten ship.keep, or see why the backup hosts do not take more")
	}
	if v.ahead != "" {
		list = append(list, v.ahead)
	}
	return list
}

func (r Report) warnings() []string {
	var list []string
	if r.State == Refused && r.Err != nil {
		list = append(list, r.Err.Error())
	}
	for _, lacks := range r.Weak {
		list = append(list, fmt.Sprintf("%s is weak: its server lacks %s", r.Host, lacks))
	}
	if r.Skew != 0 {
		list = append(list, fmt.Sprintf("the clock of %s differs by %s: set one of them right", r.Host, r.Skew.Round(time.Second)))
	}
	return list
}

// Batches lists a volume's batches (all volumes' for "") from a sequence number on.
func (s *Shipper) Batches(ctx context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	if err := s.remember(ctx); err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = explainAtMost
	}
	var rows []control.BatchRow
	for _, v := range s.all() {
		if volume != "" && v.name != volume {
			continue
		}
		p := v.copyChain()
		list, err := v.in.Listed(ctx, &p, batchlist.Path(filepath.Dir(s.checkpointPath(v.name)), v.name), batch.Seq(from), limit-len(rows))
		rows = slices.Grow(rows, len(list))
		for _, r := range list {
			rows = append(rows, s.row(v, r))
		}
		if err != nil || len(rows) >= limit {
			return rows, err
		}
	}
	return rows, nil
}

func (s *Shipper) row(v *volume, r batchlist.Row) control.BatchRow {
	stage, stores := s.stage(v, r.Seq)
	return control.BatchRow{
		Volume: v.name, Epoch: uint32(r.Epoch), Seq: uint64(r.Seq), SealedAt: r.SealedAt, Files: r.Files, Bytes: r.Bytes, Shards: r.Shards,
		Stage: stage.String(), Copies: max(0, len(stores)-1), Stores: stores, Held: len(stores) <= len(v.cursors) && v.heldBack(r.Seq),
	}
}

// stage tells how far a batch has come, and which stores hold it: the cache, and the backup hosts that acknowledged it. Without
// backup hosts, being cached is all there is, and counts as stored.
func (s *Shipper) stage(v *volume, seq batch.Seq) (stage control.Stage, stores []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if seq > v.acks.Head {
		return control.Sealed, nil
	}
	copies, verified := 0, 0
	stores = append(stores, v.acks.Store)
	for _, c := range v.cursors {
		if c.acks.Head >= seq {
			copies++
			stores = append(stores, c.acks.Store)
		}
		if c.acks.Verified >= seq {
			verified++
		}
	}
	need := s.cfg.Ship.Copies
	switch {
	case verified >= need:
		return control.Verified, stores
	case copies >= need:
		return control.Stored, stores
	}
	return control.Cached, stores
}

// Pending is empty: what is not sealed is on the primary.
func (s *Shipper) Pending(context.Context, int) ([]control.PendingRow, error) { return nil, nil }

// Explain cannot answer for a path.
func (s *Shipper) Explain(context.Context, string) (control.Explained, error) {
	return control.Explained{}, errNoPaths
}

// Barrier cannot either.
func (s *Shipper) Barrier(_ context.Context, b control.Barrier) (control.Barrier, error) {
	return b, errNoPaths
}

// Do is the operator's word. "ship" sends a volume, or all (""), now, whatever the conditions say; "hold", "release" and "now" are
// about one batch, VOLUME/BATCH.
func (s *Shipper) Do(ctx context.Context, verb, arg string) error {
	if verb != "ship" {
		return s.order(ctx, verb, arg)
	}
	found := false
	for _, v := range s.all() {
		if arg == "" || arg == v.name {
			found = true
			v.release()
		}
	}
	if !found && arg != "" {
		return fmt.Errorf("ship volume %s: it has not arrived here", arg)
	}
	return nil
}

// Report is a copy of where a cursor stands.
type Report struct {
	Volume, Host, URL string
	State             State
	Since             time.Time
	Head              batch.Seq
	Epoch             batch.Epoch
	Verified          batch.Seq
	Until             time.Time // when a host that did not answer is tried again
	Err               error
	Full              bool
	Damage            string
	Sent              int64 // bytes of the present batch
	LagBatches        int64
	LagBytes          int64     // of the batches that the host lacks, with their shards
	LagSince          time.Time // when the oldest batch that the host lacks arrived
	Weak              []string
	Skew              time.Duration
	WaitsFor          string // what the next batch waits for, in words
	Back              string // that it had lost what it had, in words
}

// Report says where the cursor stands.
func (c *cursor) Report() Report {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return c.reportLocked()
}

func (c *cursor) reportLocked() Report {
	now := c.s.now()
	r := Report{
		Volume: c.v.name, Host: c.h.name, URL: c.h.url, State: c.state, Since: c.since, Head: c.acks.Head, Epoch: c.acks.Epoch,
		Verified: c.acks.Verified, Until: c.until, Err: c.err, Full: c.full, Damage: c.damage, Sent: c.sent.Load(),
		Weak: c.weak, Skew: c.skew, LagBatches: max(0, int64(c.v.acks.Head)-int64(c.acks.Head)),
		WaitsFor: c.acks.WaitsAt(now), Back: c.back.warning(c.h.name, now),
	}
	if r.Err == nil && c.acks.Error != "" {
		r.Err = fmt.Errorf("%s", c.acks.Error) // from before the restart
	}
	if queue := c.queueLocked(); len(queue) > 0 {
		r.LagSince, r.LagBytes = time.Unix(0, queue[0].received), queue[len(queue)-1].sum-queue[0].sum+queue[0].bytes
	}
	return r
}
