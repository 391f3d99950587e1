package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
)

// hold is an operator's word that nothing goes to the backup hosts from a batch on. It is in the checkpoint, so that it outlives
// the process; it ends only with the operator's word again.
type hold struct {
	Seq   batch.Seq `json:"seq"`
	Since time.Time `json:"since"`
}

var (
	errHeldNow     = errors.New("held back by the operator while its shards were on the way")
	errNotArrived  = errors.New("it has not arrived here")
	errEverywhere  = errors.New("every backup host has it already")
	errNotHeld     = errors.New("it is not held")
	errHeldBefore  = errors.New("release what is held before it first")
	errNoSuchOrder = errors.New("the shipper knows no such order")
)

// heldBackLocked returns the lowest hold; Seq 0: there is none.
func (v *volume) heldBackLocked() (lowest hold) {
	for _, h := range v.holds {
		if lowest.Seq == 0 || h.Seq < lowest.Seq {
			lowest = h
		}
	}
	return lowest
}

// waits puts a hold in words for the batches that wait for it.
func (h hold) waits() string {
	return fmt.Sprintf("an operator to release batch %d (slipway spool release %d)", h.Seq, h.Seq)
}

// warning is what status says of it.
func (h hold) warning() string {
	return fmt.Sprintf("an operator holds batch %d and all behind it since %s: `slipway spool release %d` lets them go",
		h.Seq, h.Since.Local().Format("2006-01-02 15:04:05"), h.Seq)
}

// order carries out an operator's word on one batch: "hold", "release" or "now"; arg is VOLUME/BATCH. What it returns without an
// error is durable.
func (s *Shipper) order(ctx context.Context, verb, arg string) error {
	name, number, _ := strings.Cut(arg, "/")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return fmt.Errorf("%s %q: %q is not a batch number", verb, arg, number)
	}
	if err := s.remember(ctx); err != nil {
		return err
	}
	i := slices.IndexFunc(s.all(), func(v *volume) bool { return v.name == name })
	if i < 0 {
		return fmt.Errorf("%s a batch of volume %s: %w", verb, name, errNotArrived)
	}
	v, seq := s.all()[i], batch.Seq(n)
	if err := v.obey(verb, seq, s.now()); err != nil {
		return fmt.Errorf("%s batch %d of volume %s: %w", verb, seq, name, err)
	}
	if err := s.flush(ctx, v); err != nil {
		return err
	}
	v.publishing.Lock() // what was on its way is there now, or never
	s.log.Info("an operator's word", "volume", name, "order", verb, "batch", seq)
	v.publishing.Unlock()
	v.wakeCursors()
	return nil
}

// OrderOnce is Do for a process in which no shipper runs: the word is written down for the one that is started next.
// durable.ErrLocked: one runs after all, and does not answer.
func (s *Shipper) OrderOnce(ctx context.Context, verb, arg string) error {
	f, err := s.lock()
	if err != nil {
		return err
	}
	return errors.Join(s.order(ctx, verb, arg), f.Close())
}

// obey changes what the volume's cursors are held back by.
func (v *volume) obey(verb string, seq batch.Seq, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := slices.IndexFunc(v.holds, func(h hold) bool { return h.Seq == seq })
	switch verb {
	case "hold":
		if seq > v.acks.Head+1 || seq == 0 { // the next one may be held before it is there
			return fmt.Errorf("%w: the newest is %d: %w", errNotArrived, v.acks.Head, fs.ErrNotExist)
		}
		if len(v.cursors) > 0 && seq <= v.neededLocked() {
			return errEverywhere
		}
		if at < 0 {
			v.holds = append(v.holds, hold{Seq: seq, Since: now})
		}
	case "release":
		if at < 0 {
			return fmt.Errorf("%w%s", errNotHeld, v.heldListLocked())
		}
		v.holds = slices.Delete(v.holds, at, at+1)
	case "now":
		if seq > v.acks.Head || seq == 0 {
			return fmt.Errorf("%w: the newest is %d: %w", errNotArrived, v.acks.Head, fs.ErrNotExist)
		}
		if h := v.heldBackLocked(); h.Seq > 0 && h.Seq <= seq {
			return fmt.Errorf("batch %d is held: %w", h.Seq, errHeldBefore)
		}
		v.manual = max(v.manual, seq)
	default:
		return errNoSuchOrder
	}
	v.stateDirty = true
	return nil
}

// heldListLocked names what is held, for who has named something else.
func (v *volume) heldListLocked() string {
	if len(v.holds) == 0 {
		return "; nothing is"
	}
	var held []string
	for _, h := range v.holds {
		held = append(held, strconv.FormatUint(uint64(h.Seq), 10))
	}
	return "; held: " + strings.Join(held, ", ")
}

// heldBack tells whether a batch must not go.
func (v *volume) heldBack(seq batch.Seq) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.heldBackLocked()
	return h.Seq > 0 && h.Seq <= seq
}
