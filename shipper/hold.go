package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/hold"
)

var (
	errHeldNow     = errors.New("held back by the operator while its shards were on the way")
	errNotArrived  = errors.New("it has not arrived here")
	errEverywhere  = errors.New("every backup host has it already")
	errNotHeld     = errors.New("it is not held")
	errHeldBefore  = errors.New("release what is held before it first")
	errStarting    = errors.New("what is here is still being looked through: try again in a moment")
	errNoSuchOrder = errors.New("the shipper knows no such order")
)

// heldWaits puts a hold in words for the batches that wait for it.
func heldWaits(h hold.Hold) string {
	return fmt.Sprintf("an operator to release batch %d (slipway spool release %d)", h.Seq, h.Seq)
}

// heldWarning is what status says of it.
func heldWarning(h hold.Hold) string {
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
	s.orderMu.Lock()
	defer s.orderMu.Unlock()
	list, err := v.obey(verb, seq, s.now())
	if err == nil && verb != "now" {
		err = hold.Write(s.holdsPath(name), list)
	}
	if err != nil {
		return fmt.Errorf("%s batch %d of volume %s: %w", verb, seq, name, err)
	}
	v.setHolds(list)
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

// notArrived: a batch that is not here is an fs.ErrNotExist, in words of its own.
type notArrived struct{ newest batch.Seq }

func (n *notArrived) Error() string {
	return fmt.Sprintf("%v: the newest is %d", errNotArrived, n.newest)
}
func (n *notArrived) Is(target error) bool {
	return target == fs.ErrNotExist || target == errNotArrived
}

// obey finds out what an order comes to: what is held then. "now" changes nothing of that, and is done here.
func (v *volume) obey(verb string, seq batch.Seq, now time.Time) ([]hold.Hold, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.known {
		return nil, errStarting
	}
	list := slices.Clone(v.holds)
	at := slices.IndexFunc(list, func(h hold.Hold) bool { return h.Seq == seq })
	switch verb {
	case "hold":
		if seq > v.acks.Head+1 || seq == 0 { // the next one may be held before it is there
			return nil, &notArrived{v.acks.Head}
		}
		if len(v.cursors) > 0 && seq <= v.neededLocked() {
			return nil, errEverywhere
		}
		if at < 0 {
			list = append(list, hold.Hold{Seq: seq, Since: now})
		}
	case "release":
		if at < 0 {
			return nil, fmt.Errorf("%w%s", errNotHeld, v.heldListLocked())
		}
		list = slices.Delete(list, at, at+1)
	case "now":
		if seq > v.acks.Head || seq == 0 {
			return nil, &notArrived{v.acks.Head}
		}
		if h := hold.First(v.holds); h.Seq > 0 && h.Seq <= seq {
			return nil, fmt.Errorf("batch %d is held: %w", h.Seq, errHeldBefore)
		}
		v.manual = max(v.manual, seq)
	default:
		return nil, errNoSuchOrder
	}
	return list, nil
}

func (v *volume) setHolds(list []hold.Hold) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holds = list
}

func (s *Shipper) holdsPath(volume string) string {
	return hold.Path(filepath.Dir(s.checkpointPath(volume)), volume)
}

// readHolds returns what is held. Where that cannot be known everything is, until an operator has decided.
func (s *Shipper) readHolds(volume string) []hold.Hold {
	list, err := hold.Read(s.holdsPath(volume))
	if err != nil {
		s.log.Error("nothing is shipped until `slipway spool release 1`", "volume", volume, "error", err)
		return []hold.Hold{{Seq: 1, Since: s.now()}}
	}
	return list
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
	h := hold.First(v.holds)
	return h.Seq > 0 && h.Seq <= seq
}
