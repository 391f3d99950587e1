package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"slipway/internal/batch"
	"slipway/internal/control"
	"slipway/internal/durable"
	"slipway/internal/keys"
	"slipway/internal/promote"
	"slipway/internal/restore/chain"
	"slipway/internal/store"
	"slipway/internal/warm"
)

// A step that failed is made again after a second, then after twice as long each time, up to listEvery.
const warmPause = time.Second

// errBehind: what arrived here whole and complete could not be applied.
var errBehind = errors.New("the newest complete batch cannot be read from any store")

// warmer keeps one volume's warm tree. Everything but the status belongs to the loop that calls WarmOnce.
type warmer struct {
	v     *volume
	wake  chan struct{} // capacity one: the head has moved
	tree  *warm.Tree    // nil until something has arrived
	done  headOf        // nothing is left to do for this one
	pause time.Duration // after the last step, which failed; 0: it did not
	next  time.Time     // not before

	mu    sync.Mutex // guards what follows
	at    batch.Seq
	fault string
}

// headOf is a head that this node holds a whole copy of.
type headOf struct {
	epoch batch.Epoch
	seq   batch.Seq
}

func newWarmer(v *volume) *warmer { return &warmer{v: v, wake: make(chan struct{}, 1)} }

// WarmOnce brings the directory to the newest complete batch, if what this node holds has changed since the last time or that
// failed, and returns how soon to look again. While this node is the volume's owner it lets go of the directory.
func (w *warmer) WarmOnce(ctx context.Context) time.Duration {
	if w.v.owned() { // the directory is the owner's from now on
		w.done = headOf{}
		w.note(0, errText(w.close()))
		return ownedPause
	}
	s := w.v.keep.Standing()
	head := headOf{s.Chain.Present().Epoch, s.Acks.Head}
	now := w.v.p.now()
	if wait := w.next.Sub(now); wait > 0 {
		return wait
	}
	if head.seq == 0 || head == w.done {
		return ownedPause
	}
	at, err := w.apply(ctx)
	if err == nil && s.Chain.Complete && (at.Epoch < head.epoch || at.Epoch == head.epoch && at.Seq < head.seq) {
		err = fmt.Errorf("bring warm tree to batch %d: %w", head.seq, errBehind)
	}
	if ctx.Err() != nil {
		return 0
	}
	w.note(at.Seq, w.say(err))
	if err == nil {
		w.done, w.pause, w.next = head, 0, time.Time{}
		return ownedPause
	}
	w.pause = min(max(2*w.pause, warmPause), listEvery)
	w.next = now.Add(w.pause)
	return w.pause
}

// apply opens the tree, which finishes a step that was cut off, and makes the next one.
func (w *warmer) apply(ctx context.Context) (at warm.Moment, err error) {
	if w.tree == nil {
		if err := w.open(); err != nil {
			return at, err
		}
	}
	return w.tree.ApplyOnce(ctx)
}

// open makes what the tree needs. The directory of all trees has to be there: one that an absent disk is to be mounted on would
// fill the wrong one.
func (w *warmer) open() error {
	cfg := w.v.p.cfg
	dir, state := promote.WarmDir(cfg, w.v.name), promote.WarmState(cfg, w.v.name)
	below, err := durable.OpenDir(cfg.Warm)
	if err != nil {
		return fmt.Errorf("open the directory of warm trees: %w", err)
	}
	err = below.Mkdir(w.v.name, 0o700) // its own attributes come with the first step
	if err = errors.Join(err, below.Close(), durable.MkdirAll(state, 0o700)); err != nil {
		return fmt.Errorf("make warm tree: %w", err)
	}
	w.tree, err = warm.Open(warm.Options{Dir: dir, State: state, Source: w.source, Log: w.v.p.log.With("volume", w.v.name)})
	return err
}

// source is asked at each step: the identity may have been replaced, and an owner's key pinned.
func (w *warmer) source(context.Context) (src chain.Source, err error) {
	v := w.v
	id, err := keys.LoadIdentity(v.p.cfg.Identity)
	if err != nil {
		return src, err
	}
	owners := v.keep.Owners
	if len(owners) == 0 {
		if owners, err = v.keep.Pins.Read(v.name); err != nil {
			return src, err
		}
	}
	src = chain.Source{IDs: id.Identities, Owners: owners, Stores: []chain.NamedStore{{Name: v.p.cfg.Name, Store: v.keep.Store}}}
	for _, o := range v.p.far {
		s := store.Sub(o.s, v.name)
		if w.pause == 0 {
			s = unlisted{s}
		}
		src.Stores = append(src.Stores, chain.NamedStore{Name: o.name, Store: s})
	}
	return src, nil
}

// unlisted is another node's store that is not asked for batches, which this node's own store has: a silent one would hold up
// every step. It is read when a shard is absent or damaged here.
type unlisted struct{ store.Store }

// List shows nothing.
func (unlisted) List(context.Context, string) ([]store.Info, error) { return nil, nil }

// say puts into words why the directory is not as it should be.
func (w *warmer) say(err error) string {
	switch {
	case errors.Is(err, chain.ErrIdentity):
		return fmt.Sprintf("%s does not open the volume's batches: name an identity that is among their recipients", w.v.p.cfg.Identity)
	case err != nil:
		return err.Error()
	}
	lacks, err := w.tree.Lacks()
	switch {
	case err != nil:
		return err.Error()
	case len(lacks) > 0:
		return fmt.Sprintf("%d files could not be made, %q first: %s", len(lacks), lacks[0].Path, lacks[0].Why)
	}
	return ""
}

// note keeps it for the status, and logs what was not said before.
func (w *warmer) note(at batch.Seq, fault string) {
	w.mu.Lock()
	said := w.fault
	w.at, w.fault = at, fault
	w.mu.Unlock()
	switch {
	case fault == said:
	case fault != "":
		w.v.p.log.Error("warm tree is not up to date", "volume", w.v.name, "batch", at, "cause", fault)
	default:
		w.v.p.log.Info("warm tree is up to date again", "volume", w.v.name, "batch", at)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (w *warmer) status() *control.WarmStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &control.WarmStatus{Batch: uint64(w.at), Error: w.fault}
}

func (w *warmer) close() error {
	if w.tree == nil {
		return nil
	}
	err := w.tree.Close()
	w.tree = nil
	return err
}
