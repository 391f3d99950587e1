package spooler

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/control"
	"slipway/internal/journal"
	"slipway/spooler/push"
	"slipway/spooler/rpo"
)

// statusWait is how long an answer waits for a step that is under way; sealing ten thousands of files takes one.
const statusWait = 100 * time.Millisecond

// told is the last answer to Status, and where the journal ended then.
type told struct {
	status control.Status
	end    journal.Position
}

// Status implements control.Reporter. Beside a step that takes long the answer is the last one, with its time, and where the journal ends
// now: that not all of it is sealed must be seen.
func (s *Spooler) Status(ctx context.Context) ([]control.Status, error) {
	room := s.spaceWarnings() // asks disks, which may take long, so not under the lock
	if s.vol.mu.TryLock() {
		defer s.vol.mu.Unlock()
		return s.status(room)
	}
	fresh := s.asking.DoChan("status", func() (any, error) {
		s.vol.mu.Lock()
		defer s.vol.mu.Unlock()
		return s.status(room)
	})
	var late <-chan time.Time
	if s.told.Load() != nil {
		timer := time.NewTimer(statusWait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case r := <-fresh:
		if r.Err != nil {
			return nil, r.Err
		}
		return []control.Status{s.told.Load().copy()}, nil
	case <-late:
		return s.toldBefore()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Spooler) toldBefore() ([]control.Status, error) {
	end, err := s.vol.position()
	if err != nil {
		return nil, fmt.Errorf("read journal's end: %w", err)
	}
	t := s.told.Load()
	st := t.copy()
	st.Journal.Head = end.Offset
	if end.Serial != t.end.Serial {
		st.Journal.Sealed = 0
	}
	return []control.Status{st}, nil
}

// copy returns what a caller may add to.
func (t *told) copy() control.Status {
	st := t.status
	st.Stores, st.Warnings, st.Alarms = slices.Clone(st.Stores), slices.Clone(st.Warnings), slices.Clone(st.Alarms)
	return st
}

// status answers under the volume's lock.
func (s *Spooler) status(room []string) ([]control.Status, error) {
	v := s.vol
	now := v.now()
	st := control.Status{
		Volume: v.name, Node: v.node, Role: "primary", Epoch: uint32(v.history.Meta().Epoch),
		Sender:    s.sender.Status(),
		HeadBatch: uint64(v.history.Meta().Head),
		Complete:  v.history.Meta().Complete && !v.mirror.Walking(),
		Daemon:    control.Running,
		At:        now,
		Spool:     control.SpoolStatus{Bytes: v.usage.Bytes(), Cap: v.capBytes},
	}
	source := v.mirror.Report()
	if v.mirror.Walking() {
		st.Waiting = fmt.Sprintf("%s: %d directories are still to be compared with the source", source.Why, source.Unchecked)
	}
	end, err := v.position()
	if err != nil {
		return nil, fmt.Errorf("read journal's end: %w", err)
	}
	st.Journal = journalStatus(end, v.history.Meta().Position, source.Gaps)
	st.Pending = v.pending.Status(now)
	if len(v.recipients) < 2 {
		st.Warn(control.Alarm{Event: control.OneRecipient, Level: control.LevelWarning,
			Message: "one recipient only: if its identity is lost, nothing can be restored; add another to recipients"})
	}
	st.Warnings = append(st.Warnings, v.warnings()...)
	for _, a := range s.rottenAlarms() {
		st.Warn(a)
	}
	st.Warnings = append(st.Warnings, s.storeWarnings()...)
	st.Stores, st.Copies = s.storeStatus(now), s.stages.Need()
	late, err := v.rpo.Alarms(&st, v.judged(), now)
	if err != nil {
		return nil, fmt.Errorf("look for what is late: %w", err)
	}
	for _, a := range late {
		st.Warn(a)
	}
	var timedOut []string
	st.Fsyncs, timedOut = s.fsyncs.Report(now)
	st.Warnings = append(append(st.Warnings, timedOut...), room...)
	t := &told{st, end}
	s.told.Store(t)
	return []control.Status{t.copy()}, nil
}

// judged is what deadlines are held against.
func (v *volume) judged() rpo.Volume {
	return rpo.Volume{Tree: v.tree, Pending: v.pending, Renames: v.mirror.Renames(), Head: v.history.Meta().Head, SealedAt: v.history.SealedAt}
}

func journalStatus(end, sealed journal.Position, gaps int) control.JournalStatus {
	j := control.JournalStatus{Head: end.Offset, Gaps: gaps}
	if sealed.Serial == end.Serial {
		j.Sealed = sealed.Offset
	}
	return j
}

// warnings are the things an operator should do something about.
func (v *volume) warnings() []string {
	var w []string
	if v.sealer.Problem() != nil {
		w = append(w, "sealing does not go on: "+v.sealer.Problem().Error())
	}
	if !v.room() {
		w = append(w, fmt.Sprintf("the local store has reached its cap of %d bytes: changed files stay pending until the cache and the backup hosts have taken more", v.capBytes))
	}
	for _, name := range v.mirror.Report().Mounted {
		w = append(w, fmt.Sprintf("another file system is mounted at %q: it is not part of the volume", name))
	}
	if n, why := v.pending.Unreadable(); n > 0 {
		w = append(w, fmt.Sprintf("%d files cannot be read: %v", n, why))
	}
	return w
}

// storeWarnings are the things to do about a destination besides what keeps it from being reached.
func (s *Spooler) storeWarnings() []string {
	w := s.keyWarnings()
	for _, p := range s.pushers {
		r := p.Report()
		if r.Skew != 0 {
			word := "ahead of"
			if r.Skew < 0 {
				word = "behind"
			}
			w = append(w, fmt.Sprintf("the clock of %s is %v %s this node's: set the wrong one right", r.Name, r.Skew.Abs().Round(time.Second), word))
		}
		if len(r.Weak) > 0 {
			w = append(w, fmt.Sprintf("the server of %s lacks %s: what it acknowledges may not survive a power cut there", r.Name, strings.Join(r.Weak, ", ")))
		}
	}
	return w
}

// storeStatus lists the own store, the destinations of this node's pushing, and the backup hosts that acks speak of.
func (s *Spooler) storeStatus(now time.Time) []control.StoreStatus {
	v := s.vol
	own := control.StoreStatus{Name: v.node, Kind: "own", URL: v.ownDir, Batch: uint64(v.history.Meta().Head), State: "ok"}
	if v.sealer.Problem() != nil {
		own.State, own.Error = "down", v.sealer.Problem().Error()
	}
	list := []control.StoreStatus{own}
	for _, p := range s.pushers {
		r := p.Report()
		x := control.StoreStatus{Name: r.Name, Kind: r.Kind, URL: r.URL, Batch: uint64(r.Delivered), State: string(r.State), Error: r.Error, Rate: p.Rate(now)}
		switch {
		case r.State == push.Idle && !r.Checked:
			x.State = "unchecked" // no daemon there has said anything
		case r.State == push.Idle:
			x.State = "ok"
		case r.State == push.Waiting, r.State == push.Connecting && r.Error != "":
			x.State = "down" // until the next attempt
		}
		list = append(list, x)
	}
	for _, a := range s.stages.BackupAcks() {
		x := control.StoreStatus{Name: a.Store, Kind: a.Kind, URL: a.URL, Batch: uint64(a.Head), State: a.WordAt(now), Error: a.Error, WaitsFor: a.WaitsAt(now), Rate: a.RateAt(now)}
		list = append(list, x)
	}
	for i := range list {
		list[i].LagBatches = int64(v.history.Meta().Head) - int64(list[i].Batch)
		if list[i].LagBatches > 0 {
			list[i].LagSeconds = now.Sub(v.history.SealedAt(batch.Seq(list[i].Batch) + 1)).Seconds()
		}
	}
	v.addBacklog(list)
	return list
}

// countAtMost batches are counted for a status, which is asked for every second.
const countAtMost = 2000

// addBacklog adds what the batches hold that each store lacks. A store that lacks more than are counted is told by its batches alone.
func (v *volume) addBacklog(list []control.StoreStatus) {
	from := uint64(v.history.Meta().Head)
	for _, st := range list {
		if st.LagBatches > 0 && st.LagBatches <= countAtMost {
			from = min(from, st.Batch)
		}
	}
	_ = v.history.Catalog().View(func(tx *catalog.Tx) error { // a damaged row only makes the lag read smaller
		return tx.Batches(batch.Seq(from)+1, func(b catalog.BatchInfo) error {
			for i := range list {
				if st := &list[i]; uint64(b.Seq) > st.Batch && st.LagBatches <= countAtMost {
					st.LagFiles += b.Files
					st.LagBytes += b.Bytes
				}
			}
			return nil
		})
	})
}

// Batches implements control.Reporter.
func (s *Spooler) Batches(_ context.Context, volume string, from uint64, limit int) ([]control.BatchRow, error) {
	v := s.vol
	if volume != "" && volume != v.name {
		return nil, fmt.Errorf("volume %q: %w", volume, fs.ErrNotExist)
	}
	var rows []control.BatchRow
	err := v.history.Catalog().View(func(tx *catalog.Tx) error {
		m, err := tx.Meta()
		if err != nil {
			return err
		}
		most := int(max(m.Head+1, batch.Seq(from)) - batch.Seq(from))
		if limit > 0 {
			most = min(most, limit)
		}
		rows = make([]control.BatchRow, 0, most)
		return tx.Batches(batch.Seq(from), func(b catalog.BatchInfo) error {
			if limit > 0 && len(rows) >= limit {
				return errStop
			}
			stage, copies := s.stages.Of(b.Seq)
			rows = append(rows, control.BatchRow{
				Volume: v.name, Epoch: uint32(b.Epoch), Seq: uint64(b.Seq), SealedAt: b.SealedAt, Files: b.Files, Bytes: b.Bytes,
				Shards: b.Shards, Stage: stage.String(), Copies: copies, Stores: s.stages.Holding(b.Seq),
			})
			return nil
		})
	})
	if err != nil && err != errStop { //nolint:errorlint // errStop is handed through as it is
		return nil, fmt.Errorf("list batches: %w", err)
	}
	return rows, nil
}

// Do implements control.Reporter: "pin" a node, "drain" this one, "release".
func (s *Spooler) Do(ctx context.Context, verb, arg string) error {
	volume, node, _ := strings.Cut(arg, "/")
	if volume != "" && volume != s.vol.name {
		return fmt.Errorf("volume %q: %w", volume, fs.ErrNotExist)
	}
	return s.sender.Do(ctx, verb, node)
}
