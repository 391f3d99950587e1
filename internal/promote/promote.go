// Package promote makes a replica peer the owner of a volume, under the next epoch: it completes the copies, claims the epoch, brings
// the files back and makes a primary's state that continues the volume's tree, so that only what changes from then on is sealed.
//
// What is true after a crash: until the claim is made nothing has happened but copying. From then on the epoch is this node's, and the
// same call goes on where it was cut off, which it knows by the claim kept in the state directory. The primary's configuration is
// written last: without it nothing can be mounted that is not whole. docs/guarantees.md numbers the commit points.
package promote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/fill"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/restore"
	"slipway/internal/restore/chain"
	"slipway/internal/state"
	"slipway/internal/store"
)

// ErrSource means: the directory for the files holds something already.
var ErrSource = errors.New("the directory for the files is not empty")

// ErrPartial means: not every file could be brought back.
var ErrPartial = errors.New("not every file could be brought back")

// Options of a promotion.
type Options struct {
	Config     *config.Peer
	Volume     string
	Source     string         // where the files are brought back to; "": the peer's warm tree becomes the source
	Mount      string         // default: Source
	Identity   string         // age identity file
	Recipients []string       // besides the identity's own: who may read what is sealed from now on
	Replicas   []config.Store // besides the peer's own: who holds copies from now on, the former owner for one
	Aside      string         // what lies in Source and is not as in the volume is moved to this directory; "": Source has to be empty
	Force      bool           // with stores that are silent, an owner that may live, a directory that is not empty, files that are lost
	Now        func() time.Time
	Say        func(string) // told of each step; may be nil
}

// Result says what was done.
type Result struct {
	Volume   string      `json:"volume"`
	From     string      `json:"from"` // nodes
	To       string      `json:"to"`
	Epoch    batch.Epoch `json:"epoch"`
	After    batch.Seq   `json:"after"` // the batch that the epoch continues
	Config   string      `json:"config"`
	Source   string      `json:"source"`
	Mount    string      `json:"mount"`
	Files    int64       `json:"files"`
	Aside    []string    `json:"aside,omitempty"` // what was moved aside
	Missing  []string    `json:"missing,omitempty"`
	Differ   []string    `json:"differ,omitempty"`
	Warnings []string    `json:"warnings,omitempty"`
}

// run is one promotion.
type run struct {
	opt    Options
	now    func() time.Time
	id     *keys.Identity
	owners []string
	key    string // this node's
	stores []chain.NamedStore
	own    store.Store // the peer's, rooted at the volume
	cache  store.Store
	roots  []store.Store
	base   string    // of all epochs in which this node owns the volume
	home   state.Dir // of the primary to be
	result Result
}

// Home is the state directory of a volume that a peer is the owner of in an epoch.
func Home(c *config.Peer, volume string, e batch.Epoch) state.Dir {
	return state.Dir(filepath.Join(owned(c, volume), fmt.Sprintf("epoch-%d", e)))
}

func owned(c *config.Peer, volume string) string { return filepath.Join(c.State, "owned", volume) }

// ConfigPath is where the primary's configuration is written.
func ConfigPath(c *config.Peer, volume string) string { return filepath.Join(c.State, volume+".yml") }

// Run makes this peer the owner. The same call again goes on behind a crash; where all is done already it says so.
func Run(ctx context.Context, opt Options) (*Result, error) {
	r := &run{opt: opt, now: opt.Now, base: owned(opt.Config, opt.Volume)}
	if r.now == nil {
		r.now = time.Now
	}
	if r.opt.Source == "" && opt.Config.Warm != "" {
		r.opt.Source = WarmDir(opt.Config, opt.Volume)
	}
	if r.opt.Mount == "" {
		r.opt.Mount = r.opt.Source
	}
	if !batch.ValidName(opt.Volume) {
		return nil, fmt.Errorf("promote: %q is not a volume's name", opt.Volume)
	}
	defer func() { closeAll(r.roots) }()
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("promote volume %s: %w", opt.Volume, err)
	}
	if err := durable.MkdirAll(r.base, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(r.base, "lock"))
	if err != nil {
		return nil, fmt.Errorf("promote volume %s: %w", opt.Volume, err)
	}
	defer func() { _ = lock.Close() }() // the kernel frees it in any case
	if err := r.all(ctx); err != nil {
		return nil, fmt.Errorf("promote volume %s: %w", opt.Volume, err)
	}
	return &r.result, nil
}

// all is prepare → commit (the claim) → apply.
func (r *run) all(ctx context.Context) error {
	path := ConfigPath(r.opt.Config, r.opt.Volume)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%w: %s is there", ErrOwner, path)
	}
	v, err := r.ask(ctx)
	if err != nil {
		return err
	}
	if err := r.named(ctx, v); err != nil {
		return err
	}
	r.home = Home(r.opt.Config, r.opt.Volume, v.head.Envelope.Epoch+1)
	if err := r.takeKey(); err != nil {
		return err
	}
	mine, err := r.kept()
	if err != nil {
		return err
	}
	begun, err := r.begun()
	if err != nil {
		return err
	}
	if !begun && !r.opt.Force && r.opt.Aside == "" && !r.isWarm() {
		if err := r.emptySource(); err != nil {
			return err
		}
	}
	if mine == nil || mine.Epoch != v.head.Envelope.Epoch+1 {
		if err := r.prepare(ctx, v); err != nil {
			return err
		}
	}
	if err := r.claim(ctx, v, mine); err != nil {
		return err
	}
	if v, err = r.ask(ctx); err != nil { // what came meanwhile
		return err
	}
	// From here on this node's peer leaves the volume alone.
	mark := underway(r.opt.Config, r.opt.Volume)
	if err := durable.Overwrite(mark, strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o600); err != nil {
		return fmt.Errorf("note that the promotion is under way: %w", err)
	}
	return errors.Join(r.apply(ctx, v), durable.Remove(mark))
}

// prepare finds out whether it may be, and completes this node's copy. Nothing is decided yet.
func (r *run) prepare(ctx context.Context, v *view) error {
	if !r.opt.Force {
		if err := r.alive(ctx, v); err != nil {
			return err
		}
	}
	if _, err := config.Parse(ConfigPath(r.opt.Config, r.opt.Volume), r.yaml()); err != nil {
		return err
	}
	if lost := r.lost(ctx, v); lost != "" {
		r.say("%s", lost)
		r.result.Warnings = append(r.result.Warnings, lost)
	}
	r.say("complete the copy of batches up to %d", v.head.Envelope.Last)
	_, err := fill.Fill(ctx, v.line, r.own, fill.Options{})
	return err
}

func (r *run) emptySource() error {
	names, err := os.ReadDir(r.opt.Source)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s holds %s: %w; with --aside DIR what is not as in the volume is moved there; with --force it stays, and is sealed where it differs", r.opt.Source, names[0].Name(), ErrSource)
	}
	return err
}

// apply brings the files back and makes the state. Each step may be repeated; the configuration comes last.
func (r *run) apply(ctx context.Context, v *view) error {
	root, err := r.ownSpool()
	if err != nil {
		return err
	}
	own := store.Sub(root, r.opt.Volume)
	for _, to := range []store.Store{r.own, own} {
		if _, err := fill.Fill(ctx, v.line, to, fill.Options{}); err != nil {
			return err
		}
	}
	e := &v.head.Envelope
	tree, err := restore.FromLine(ctx, v.line, restore.At{Seq: e.Last, Incomplete: true})
	if err != nil {
		return err
	}
	if r.isWarm() {
		r.say("bring the warm tree %s to batch %d", r.opt.Source, e.Last)
		err = r.takeWarm(ctx, v)
	} else {
		r.say("bring back the files of batch %d into %s", e.Last, r.opt.Source)
		err = r.restore(ctx, tree)
	}
	if err != nil {
		return err
	}
	seed := &Seed{
		State: r.home, Volume: state.Volume{Format: 1, Name: r.opt.Volume, ID: e.VolumeID}, Source: r.opt.Source, Tree: tree, Head: v.head,
		Own: own, Index: len(r.opt.Recipients) == 0,
	}
	seeded, err := seed.Make(ctx)
	if err != nil {
		return err
	}
	r.finish(v, seeded)
	path := ConfigPath(r.opt.Config, r.opt.Volume)
	if err := durable.Overwrite(path, r.yaml(), 0o640); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if r.isWarm() {
		return ForgetWarm(r.opt.Config, r.opt.Volume)
	}
	return nil
}

func (r *run) ownSpool() (store.Store, error) {
	if err := durable.MkdirAll(filepath.Join(r.home.Spool(), r.opt.Volume), 0o750); err != nil {
		return nil, fmt.Errorf("make own store: %w", err)
	}
	return store.Open(r.home.Spool(), store.Options{})
}

func (r *run) restore(ctx context.Context, tree *restore.Tree) error {
	// What an earlier call put there may be of an older head, and is the promotion's to replace.
	begun, err := r.begun()
	if err == nil && !begun && r.opt.Aside != "" {
		r.say("compare what lies in %s, and move what differs to %s", r.opt.Source, r.opt.Aside)
		err = r.aside(ctx, tree)
	}
	if err == nil {
		err = r.begin()
	}
	if err != nil {
		return err
	}
	res, err := tree.Restore(ctx, restore.Options{Target: r.opt.Source, Overwrite: begun})
	if err == nil && begun && !r.opt.Force {
		err = r.nothingElse(tree)
	}
	if err != nil {
		return err
	}
	for _, f := range res.Failed {
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("%s could not be brought back: %v", f.Path, f.Err))
	}
	if len(res.Failed) > 0 && !r.opt.Force {
		return fmt.Errorf("%d files, the first %s: %w: %w; with --force the next batch says that they are gone, older ones keep them",
			len(res.Failed), res.Failed[0].Path, ErrPartial, res.Failed[0].Err)
	}
	return nil
}

func (r *run) finish(v *view, s *Seeded) {
	e := &v.head.Envelope
	r.result.Volume, r.result.From, r.result.To, r.result.Epoch, r.result.After = r.opt.Volume, e.Node, r.opt.Config.Node, e.Epoch+1, e.Last
	r.result.Config, r.result.Source, r.result.Mount = ConfigPath(r.opt.Config, r.opt.Volume), r.opt.Source, r.opt.Mount
	r.result.Files, r.result.Missing, r.result.Differ = s.Files, s.Missing, s.Differ
	for _, name := range v.silent {
		r.result.Warnings = append(r.result.Warnings, "not asked: "+name)
	}
	if !e.Complete {
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("batch %d is not complete (%s): what it does not hold is not there", e.Last, e.Why))
	}
	r.result.Warnings = append(r.result.Warnings,
		"what is sealed from now on is readable by the recipients in "+r.result.Config+" only: compare them, backups: and exclude: with the former owner's")
}

func (r *run) say(format string, args ...any) {
	if r.opt.Say != nil {
		r.opt.Say(fmt.Sprintf(format, args...))
	}
}

// open reads the keys and opens the stores. Nobody is contacted.
func (r *run) open() (err error) {
	c := r.opt.Config
	if r.id, err = keys.LoadIdentity(r.opt.Identity); err != nil {
		return err
	}
	for _, list := range r.id.Owners {
		r.owners = append(r.owners, list...)
	}
	pinned, err := intake.Pins(filepath.Join(c.State, "pins")).Read(r.opt.Volume)
	if err != nil {
		return err
	}
	r.owners = slices.Concat(r.owners, c.Owners[r.opt.Volume], pinned)
	signer, err := keys.LoadNodeKey(state.Dir(c.State).NodeKey())
	if err != nil {
		return fmt.Errorf("this node was no replica peer yet: %w", err)
	}
	r.key = keys.PublicLine(signer)
	r.own, err = r.openStore(config.Store{Name: c.Name, URL: c.Store})
	for i, s := range append([]config.Store{c.Cache}, c.Replicas...) {
		var opened store.Store
		if err == nil {
			opened, err = r.openStore(s)
		}
		if i == 0 {
			r.cache = opened
		}
	}
	return err
}

// takeKey puts the peer's key where a primary has its own.
func (r *run) takeKey() error {
	if err := durable.MkdirAll(string(r.home), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return keys.CopyNodeKey(state.Dir(r.opt.Config.State).NodeKey(), r.home.NodeKey(), r.opt.Config.Node)
}

func (r *run) openStore(s config.Store) (store.Store, error) {
	opt, err := config.StoreOptions(r.opt.Config.SSH, s)
	if err != nil {
		return nil, err
	}
	root, err := store.Open(s.URL, opt)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.Name, err)
	}
	r.roots = append(r.roots, root)
	sub := store.Sub(root, r.opt.Volume)
	r.stores = append(r.stores, chain.NamedStore{Name: s.Name, Store: sub})
	return sub, nil
}
