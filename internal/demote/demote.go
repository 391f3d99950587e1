// Package demote makes the former owner of a volume a replica peer of its new owner: what it holds becomes the first content of its
// peer's store, so that only what it lacks has to travel, and its key stays the one by which it is known, so that it can be promoted again.
//
// What is true after a crash: nothing of the former owner's state is changed, shards and batches are copied, and the same call goes on.
// The peer's configuration is written last, or, where there is one, the owner's taken away.
package demote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/fill"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/promote"
	"slipway/internal/restore/chain"
	"slipway/internal/state"
	"slipway/internal/store"
)

// Classes of errors.
var (
	// ErrStillOwner: no store that answers knows of another owner.
	ErrStillOwner = errors.New("this node is the volume's owner")
	// ErrOtherKey: the peer's key is another one than the owner's.
	ErrOtherKey = errors.New("the peer's state holds another key than the owner's")
)

// Options of a demotion.
type Options struct {
	Primary *config.Primary
	Path    string       // the primary's configuration
	Peer    *config.Peer // what this node is as a peer; nil: a new one, with
	Store   string       // a directory that the volume's account on this node writes
	Now     func() time.Time
	Say     func(string) // told of each step; may be nil
}

// Result says what was done.
type Result struct {
	Volume  string      `json:"volume"`
	From    string      `json:"from"` // nodes
	To      string      `json:"to"`
	Epoch   batch.Epoch `json:"epoch"`
	Head    batch.Seq   `json:"head"` // up to which this node holds everything
	Config  string      `json:"config"`
	Retired string      `json:"retired,omitempty"` // the owner's configuration, under its new name
	Shards  int         `json:"shards"`            // copied
	Bytes   int64       `json:"bytes"`
	Silent  []string    `json:"silent,omitempty"` // stores that could not be asked
}

type run struct {
	opt    Options
	peer   *config.Peer
	key    string // this node's
	result Result
}

// Run makes this node a peer. The same call again goes on behind a crash.
func Run(ctx context.Context, opt Options) (*Result, error) {
	r := &run{opt: opt, peer: opt.Peer}
	if opt.Now == nil {
		r.opt.Now = time.Now
	}
	if r.peer == nil {
		r.peer = r.newPeer()
	}
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("make %s a replica peer of volume %s: %w", opt.Primary.Node, opt.Primary.Volume, err)
	}
	return &r.result, nil
}

// newPeer is the peer that a former owner without one becomes.
func (r *run) newPeer() *config.Peer {
	p := r.opt.Primary
	return &config.Peer{Node: p.Node, Name: p.Node, Store: r.opt.Store, State: filepath.Join(p.State, "peer"), Cache: p.Cache, Replicas: p.Replicas, SSH: p.SSH}
}

func (r *run) run(ctx context.Context) error {
	lock, err := durable.Lock(state.Dir(r.opt.Primary.State).Lock())
	if err != nil {
		return fmt.Errorf("unmount the volume first: %w", err)
	}
	defer func() { _ = lock.Close() }() // the kernel frees it in any case
	if err := r.takeKey(); err != nil {
		return err
	}
	roots, stores, err := r.open(ctx)
	defer func() {
		for _, s := range roots {
			_ = s.Close() // nothing is under way any more
		}
	}()
	if err != nil {
		return err
	}
	pinned, err := r.pins().Read(r.opt.Primary.Volume)
	if err != nil {
		return err
	}
	line, err := chain.Open(ctx, chain.Source{Stores: stores, Owners: append(pinned, r.key)})
	if err != nil {
		return err
	}
	head, err := line.Batch(ctx, &line.Slots[len(line.Slots)-1])
	if err != nil {
		return fmt.Errorf("read the newest batch: %w", err)
	}
	if head.Envelope.OwnerKey == r.key {
		return fmt.Errorf("%w, by all that %s: promote another node first", ErrStillOwner, answer(r.result.Silent))
	}
	return r.apply(ctx, line, head)
}

func answer(silent []string) string {
	if len(silent) == 0 {
		return "the stores hold"
	}
	return "the stores that answer hold (" + strings.Join(silent, "; ") + ")"
}

// takeKey gives the peer the key by which this node is known.
func (r *run) takeKey() error {
	from := state.Dir(r.opt.Primary.State).NodeKey()
	signer, err := keys.LoadNodeKey(from)
	if err != nil {
		return err
	}
	r.key = keys.PublicLine(signer)
	if err := durable.MkdirAll(r.peer.State, 0o700); err != nil {
		return fmt.Errorf("make the peer's state directory: %w", err)
	}
	err = keys.CopyNodeKey(from, state.Dir(r.peer.State).NodeKey(), r.opt.Primary.Node)
	if errors.Is(err, durable.ErrDiffers) {
		err = fmt.Errorf("%w: %w", ErrOtherKey, err)
	}
	return err
}

// open opens the own spool, which is read first, and the other stores that answer.
func (r *run) open(ctx context.Context) (roots []store.Store, stores []chain.NamedStore, err error) {
	p := r.opt.Primary
	for i, s := range append([]config.Store{{Name: p.Node, URL: p.Spool.Dir}, p.Cache}, p.Replicas...) {
		opt, err := config.StoreOptions(p.SSH, s)
		if err != nil {
			return roots, nil, err
		}
		root, err := store.Open(s.URL, opt)
		if err != nil {
			return roots, nil, fmt.Errorf("open store %s: %w", s.Name, err)
		}
		roots = append(roots, root)
		sub := store.Sub(root, p.Volume)
		if _, _, err := chain.List(ctx, sub); err != nil && i > 0 {
			r.result.Silent = append(r.result.Silent, fmt.Sprintf("%s: %v", s.Name, err))
			continue
		}
		stores = append(stores, chain.NamedStore{Name: s.Name, Store: sub})
	}
	return roots, stores, ctx.Err()
}

func (r *run) pins() intake.Pins { return intake.Pins(filepath.Join(r.peer.State, "pins")) }

// apply copies what this node holds, and from the others what it lacks, into the peer's store, and makes the configuration.
func (r *run) apply(ctx context.Context, line *chain.Line, head *batch.Batch) error {
	p, e := r.opt.Primary, &head.Envelope
	root, err := r.peerStore()
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing is under way any more
	r.say("copy batches up to %d into %s", e.Last, r.peer.Store)
	filled, err := fill.Fill(ctx, line, store.Sub(root, p.Volume), fill.Options{})
	if err != nil {
		return err
	}
	if err := setAside(ctx, line, store.Sub(root, p.Volume)); err != nil {
		return err
	}
	// This node's word counted until the new owner's did, which it had named.
	for _, key := range []string{r.key, e.OwnerKey} {
		if err := r.pins().Add(p.Volume, key, r.opt.Now()); err != nil {
			return err
		}
	}
	r.result.Volume, r.result.From, r.result.To, r.result.Epoch, r.result.Head = p.Volume, p.Node, e.Node, e.Epoch, e.Last
	r.result.Shards, r.result.Bytes = filled.Shards, filled.Bytes
	if r.opt.Peer == nil {
		return r.write()
	}
	return r.retire()
}

// setAside moves away what a former owner, who did not know yet, has pushed here while this node was the owner: batches that are none of the
// line would count for the peer as what comes next.
func setAside(ctx context.Context, line *chain.Line, to store.Store) error {
	type at struct {
		epoch       batch.Epoch
		first, last batch.Seq
	}
	ours := map[at]bool{}
	for i := range line.Slots {
		s := &line.Slots[i]
		ours[at{s.Epoch, s.First, s.Last}] = true
	}
	slots, _, err := chain.List(ctx, to)
	if err != nil {
		return err
	}
	for i := range slots {
		s := &slots[i]
		if ours[at{s.Epoch, s.First, s.Last}] {
			continue
		}
		data, err := to.Read(ctx, s.Path(), batch.MaxFile)
		if err == nil {
			err = fill.SetAside(ctx, to, s.Path(), data)
		}
		if err != nil {
			return fmt.Errorf("clear the peer's store: %w", err)
		}
	}
	return nil
}

// peerStore opens the directory that the volume's account writes. One that is there keeps its owner and mode.
func (r *run) peerStore() (store.Store, error) {
	if err := durable.MkdirAll(filepath.Join(r.peer.Store, r.opt.Primary.Volume), 0o750); err != nil {
		return nil, fmt.Errorf("make the peer's store: %w", err)
	}
	return store.Open(r.peer.Store, store.Options{})
}

// write makes the peer's configuration.
func (r *run) write() error {
	r.result.Config = filepath.Join(r.opt.Primary.State, "peer.yml")
	text := r.yaml()
	if _, err := config.Parse(r.result.Config, text); err != nil {
		return err
	}
	if err := durable.Overwrite(r.result.Config, text, 0o640); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// retire takes the configuration away that a promotion of this peer wrote: the volume can be promoted here again. The state stays, for
// what was sealed and not pushed.
func (r *run) retire() error {
	volume := r.opt.Primary.Volume
	if r.peer.Warm != "" && r.opt.Primary.Source == promote.WarmDir(r.peer, volume) { // the promotion may have died before it did so
		if err := promote.ForgetWarm(r.peer, volume); err != nil {
			return err
		}
	}
	conf := promote.ConfigPath(r.peer, volume)
	if r.opt.Path != conf {
		return nil
	}
	r.result.Retired = strings.TrimSuffix(conf, ".yml") + ".before-epoch-" + strconv.Itoa(int(r.result.Epoch)) + ".yml"
	data, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	if err := durable.Overwrite(r.result.Retired, data, 0o640); err != nil {
		return fmt.Errorf("keep the owner's configuration: %w", err)
	}
	// Died here: both are there, and the same call goes on.
	return durable.Remove(conf)
}

func (r *run) say(format string, args ...any) {
	if r.opt.Say != nil {
		r.opt.Say(fmt.Sprintf(format, args...))
	}
}

// yaml returns the peer's configuration.
func (r *run) yaml() []byte {
	var b strings.Builder
	p := r.peer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# slipway: node %s as a replica peer; it owned volume %s before epoch %d.", p.Node, r.opt.Primary.Volume, r.result.Epoch)
	line("node: %s", strconv.Quote(p.Node))
	line("store: %s", strconv.Quote(p.Store))
	line("state: %s", strconv.Quote(p.State))
	line("peer:")
	line("  cache: %s", config.StoreText(p.Cache))
	if len(p.Replicas) > 0 {
		line("  replicas:")
	}
	for _, s := range p.Replicas {
		line("    - %s", config.StoreText(s))
	}
	return []byte(b.String() + config.SSHText(p.SSH))
}
