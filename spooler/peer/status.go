package peer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/batchlist"
	"slipway/internal/control"
	"slipway/internal/intake"
	"slipway/internal/loop"
	"slipway/internal/shard"
	"slipway/spooler/push"
)

var _ control.Reporter = (*Peer)(nil)

// errNoPaths: file names are inside the batches, which a peer cannot read.
var errNoPaths = errors.New("a replica peer knows no file names: ask on the volume's owner")

// troubled is told of each failed attempt to send. A shard that this store has lost makes its batch one that it does not hold.
func (v *volume) troubled(_ string, err error) {
	var lost *push.LostShardError
	if !errors.As(err, &lost) || !lost.Final() {
		return
	}
	c := v.keep.Chain()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	for seq := c.Low; seq <= c.Head && seq > 0; seq++ {
		b, _, err := v.keep.Load(ctx, &c, seq)
		if err != nil || !introduces(&b.Envelope, lost.Shard.Digest) {
			continue
		}
		cause := &intake.Refusal{Name: lost.Shard.Digest.Path(), Reason: "digest", Cause: lost}
		if err := v.keep.Lost(ctx, seq, cause); err != nil {
			v.p.log.Error("take back a batch", "volume", v.name, "batch", seq, "error", err)
		}
		loop.Nudge(v.arrived) // from now on the batch waits for its shard, which no event tells of
		loop.Nudge(v.moved)
		return
	}
}

func introduces(e *batch.Envelope, d shard.Digest) bool {
	for _, o := range e.Introduces {
		if o.Digest == d {
			return true
		}
	}
	return false
}

// Status tells how far every volume is.
func (p *Peer) Status(context.Context) ([]control.Status, error) {
	now := p.now()
	var list []control.Status
	for _, v := range p.all() {
		list = append(list, v.status(now))
	}
	return list, nil
}

func (v *volume) status(now time.Time) control.Status {
	s := v.keep.Standing()
	st := control.Status{
		Volume: v.name, Node: v.p.cfg.Node, Role: "peer", Epoch: uint32(s.Chain.Present().Epoch), HeadBatch: uint64(s.Acks.Head),
		Complete: s.Chain.Complete, Waiting: s.Note, Spool: control.SpoolStatus{Bytes: v.p.used.Load(), Cap: v.p.cfg.Cap},
		At: now, Daemon: control.Running,
	}
	own := control.StoreStatus{Name: v.p.cfg.Name, Kind: "replica", URL: v.keep.Dir, Batch: uint64(s.Acks.Head), State: s.Acks.Word(), Error: s.Fault}
	if s.Fault != "" {
		own.State = "refused"
		st.Warnings = append(st.Warnings, s.Fault)
	}
	st.Stores = append(st.Stores, own)
	if n := len(s.Acks.Refused); n > 0 {
		last := s.Acks.Refused[n-1]
		st.Warnings = append(st.Warnings, fmt.Sprintf("%d objects were refused, the last %s (%s): see %s/refused", n, last.Name, last.Reason, v.keep.Dir))
	}
	if s.Acks.Full {
		st.Warnings = append(st.Warnings, "the store has reached its cap: raise peer.cap, or see why the backup hosts do not take more")
	}
	if snd := v.senderIfKnown(); snd != nil {
		st.Sender = snd.Status()
		there := snd.Report().There
		st.Stores = append(st.Stores, v.behind(&s, now, control.StoreStatus{
			Name: v.p.cfg.Cache.Name, Kind: "cache", URL: v.p.cfg.Cache.URL, Batch: uint64(there), State: cacheWord(&st.Sender),
		}))
	}
	if v.warm != nil {
		st.Warm = v.warm.status()
	}
	return v.more(&s, st)
}

// behind tells by how many batches a store lacks what is here, and since when the first of them has been.
func (v *volume) behind(s *intake.Standing, now time.Time, st control.StoreStatus) control.StoreStatus {
	next := max(batch.Seq(st.Batch)+1, s.Chain.Low)
	if s.Acks.Head >= next {
		st.LagBatches = int64(s.Acks.Head + 1 - next)
		st.LagSeconds = now.Sub(v.keep.ReceivedAt(batch.Path(s.Chain.At(next).Epoch, next, next))).Seconds()
	}
	return st
}

func cacheWord(s *control.SenderStatus) string {
	if s.Trouble != "" {
		return "down"
	}
	return "ok"
}

// more adds what this node found out about backup hosts and damage.
func (v *volume) more(s *intake.Standing, st control.Status) control.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, a := range v.stages {
		if a.Copies > 0 {
			st.Copies = a.Copies
		}
		if a.Kind == "backup" {
			st.Stores = append(st.Stores, v.behind(s, st.At, control.StoreStatus{
				Name: a.Store, Kind: a.Kind, URL: a.URL, Batch: uint64(a.Head), State: a.WordAt(st.At), Error: a.Error, WaitsFor: a.WaitsAt(st.At), Rate: a.RateAt(st.At),
			}))
		}
	}
	for _, r := range v.rots {
		what := "the good copy was put in its place"
		if !r.Mended {
			what = "it could not be replaced"
		}
		st.Warn(control.Alarm{Event: control.VerificationFailed, Level: control.LevelError, Store: v.p.cfg.Name, Message: fmt.Sprintf(
			"shard %s in the store of %s was damaged; it was sent from another copy, and %s: look after the disk", r.Shard.Digest, v.p.cfg.Node, what)})
	}
	return st
}

// Batches lists a volume's batches (all volumes' for "") from a sequence number on.
func (p *Peer) Batches(ctx context.Context, volume string, from uint64, limit int) (rows []control.BatchRow, err error) {
	if limit <= 0 {
		limit = 10_000
	}
	for _, v := range p.all() {
		if volume != "" && v.name != volume {
			continue
		}
		list, err := v.keep.Rows(ctx, batch.Seq(from), limit-len(rows))
		for _, b := range list {
			rows = append(rows, v.row(b))
		}
		if err != nil || len(rows) >= limit {
			return rows, err
		}
	}
	return rows, nil
}

func (v *volume) row(b batchlist.Row) control.BatchRow {
	v.mu.Lock()
	defer v.mu.Unlock()
	stage, copies := control.Replicated, 0
	var stores []string
	for _, a := range v.stages {
		if a.Head < b.Seq {
			continue
		}
		stores = append(stores, a.Store)
		switch a.Kind {
		case "cache":
			stage = max(stage, control.Cached)
		case "backup":
			copies++
		}
	}
	if v.stored >= b.Seq {
		stage = control.Stored
	}
	return control.BatchRow{
		Volume: v.name, Epoch: uint32(b.Epoch), Seq: uint64(b.Seq), SealedAt: b.SealedAt, Files: b.Files, Bytes: b.Bytes,
		Shards: b.Shards, Stage: stage.String(), Copies: copies, Stores: stores,
	}
}

// Pending is empty: what is not sealed is on the owner.
func (p *Peer) Pending(context.Context, int) ([]control.PendingRow, error) { return nil, nil }

// Explain cannot answer for a path.
func (p *Peer) Explain(context.Context, string) (control.Explained, error) {
	return control.Explained{}, errNoPaths
}

// Barrier cannot either.
func (p *Peer) Barrier(_ context.Context, b control.Barrier) (control.Barrier, error) {
	return b, errNoPaths
}

// Do is the operator's word about who sends a volume: "pin", "drain", "release"; arg is volume/node.
func (p *Peer) Do(ctx context.Context, verb, arg string) error {
	name, node, _ := strings.Cut(arg, "/")
	for _, v := range p.all() {
		if v.name != name {
			continue
		}
		s := v.senderIfKnown()
		if s == nil {
			return fmt.Errorf("volume %q: nothing has arrived here yet", name)
		}
		return s.Do(ctx, verb, node)
	}
	return fmt.Errorf("volume %q: %w", name, fs.ErrNotExist)
}
