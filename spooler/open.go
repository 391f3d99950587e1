package spooler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slipway/internal/batch"
	"slipway/internal/catalog"
	"slipway/internal/chunk"
	"slipway/internal/config"
	"slipway/internal/durability"
	"slipway/internal/durable"
	"slipway/internal/exclude"
	"slipway/internal/keys"
	"slipway/internal/leftout"
	"slipway/internal/shard"
	"slipway/internal/store"
	"slipway/spooler/capture"
	"slipway/spooler/pending"
	"slipway/spooler/push"
	"slipway/spooler/rpo"
	"slipway/spooler/stages"
	"slipway/spooler/workers"
)

// errStop ends an iteration early.
var errStop = errors.New("enough")

// open reads keys and identity, opens the own store, the catalog and the journal, and finishes what the last run left.
func (s *Spooler) open() error {
	if err := s.state.CheckSuperseded(); err != nil {
		return err
	}
	v, err := s.newVolume()
	if err != nil {
		return err
	}
	s.vol = v
	if s.left, err = leftout.New(s.opt.Config, s.opt.Source); err != nil {
		return err
	}
	if s.fsyncs.rules, err = durability.New(s.opt.Config); err != nil {
		return err
	}
	s.stages = stages.New(s.opt.Config.MinReplicas, s.opt.Config.Copies, s.trouble)
	v.nudge = s.nudge
	v.onSealed = func(batch.Seq) {
		for _, p := range s.pushers {
			p.Wake()
		}
		s.sender.Wake()
	}
	v.onPublished = func(o batch.Object) {
		for _, p := range s.pushers {
			p.ShardPublished(o)
		}
	}
	if err := v.openState(s.state.Catalog()); err != nil {
		return err
	}
	if err := v.abandonUnnamed(context.Background()); err != nil {
		return err
	}
	if err := v.openJournal(); err != nil {
		return err
	}
	v.applyExcludeChange()
	v.lookNamed()
	if err := s.openBackups(); err != nil {
		return err
	}
	if err := s.openPushers(); err != nil {
		return err
	}
	s.openSender()
	return nil
}

func (s *Spooler) newVolume() (*volume, error) {
	cfg := s.opt.Config
	ident, err := s.state.ReadVolume()
	if err != nil {
		return nil, err
	}
	if ident.Name != cfg.Volume {
		return nil, fmt.Errorf("state directory %s is of volume %q, the configuration says %q", cfg.State, ident.Name, cfg.Volume)
	}
	signer, err := keys.LoadNodeKey(s.state.NodeKey())
	if err != nil {
		return nil, err
	}
	secret, err := keys.LoadSecret(s.state.Secret())
	if err != nil {
		return nil, err
	}
	recipients, err := keys.ParseRecipients(cfg.Recipients)
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	v := &volume{
		name: cfg.Volume, node: cfg.Node, id: ident.ID, identity: ident, secret: secret,
		source: s.opt.Source, journalDir: s.state.Journal(),
		ownKey: keys.PublicLine(signer), recipients: recipients, log: s.log, now: s.opt.Now,
		sign: func(env batch.Envelope, body *batch.Body) (*batch.Sealed, error) {
			return batch.Seal(env, body, recipients, signer)
		},
		bootID:   strings.TrimSpace(string(boot)),
		capBytes: cfg.Spool.Cap,
		rhythm:   rhythm{interval: s.opt.BatchInterval},
		timing: pending.Timing{
			Settle: cfg.Settle, MaxAge: cfg.MaxAge, OpenInterval: cfg.OpenInterval, Batch: s.opt.BatchInterval,
		},
	}
	if err := s.namePeers(v); err != nil {
		return nil, err
	}
	if v.exclude, err = exclude.New(cfg.Exclude); err != nil {
		return nil, err
	}
	if v.rpo, err = rpo.New(cfg.RPO); err != nil {
		return nil, err
	}
	return v, v.openOwn(cfg)
}

// openOwn opens the node's own store. A directory that holds another volume under this name is refused.
func (v *volume) openOwn(cfg *config.Primary) error {
	v.ownDir = filepath.Join(cfg.Spool.Dir, cfg.Volume)
	if err := durable.MkdirAll(v.ownDir, 0o750); err != nil {
		return fmt.Errorf("make own store: %w", err)
	}
	root, err := store.Open(cfg.Spool.Dir, store.Options{})
	if err != nil {
		return fmt.Errorf("open own store: %w", err)
	}
	v.own = store.Sub(root, cfg.Volume)
	return push.ClaimVolume(context.Background(), v.own, "the own store", v.identity)
}

// setAside keeps a catalog that cannot be gone on with under another name.
func (v *volume) setAside(path string) error {
	aside := path + ".aside-" + v.now().UTC().Format("20060102T150405.000000000")
	if err := durable.PublishTemp(path, aside); err != nil {
		return fmt.Errorf("set catalog aside: %w", err)
	}
	return nil
}

// errRolledBack means that the own store holds a batch which the catalog does not know: an older catalog was put back, or its
// newest page is damaged and the one before it was read. Going on would seal a number twice.
var errRolledBack = errors.New("the catalog is older than the own store")

// behindOwn looks for batches beyond the catalog's head in the own store.
func (v *volume) behindOwn(ctx context.Context) error {
	return push.EachBatchFile(ctx, v.own, v.meta.Epoch, v.meta.Head+1, func(e batch.Epoch, _, last batch.Seq) error {
		if e > v.meta.Epoch || last > v.meta.Head {
			return fmt.Errorf("batch %d of epoch %d is there, the catalog ends at %d: %w", last, e, v.meta.Head, errRolledBack)
		}
		return nil
	})
}

// openState opens the catalog and brings memory and own store to where it is. An own store that lost its newest batch, and a
// catalog older than it, end the epoch: nobody can say what else is missing.
func (v *volume) openState(path string) error {
	if err := v.openCatalog(path); err != nil {
		return err
	}
	if err := v.load(); err != nil {
		return err
	}
	err := v.recover()
	if err == nil {
		err = v.behindOwn(context.Background())
	}
	if !errors.Is(err, errHeadLost) && !errors.Is(err, errRolledBack) {
		return err
	}
	v.log.Error("a new epoch begins and the whole tree is read again", "error", err)
	if err := errors.Join(v.cat.Close(), v.setAside(path)); err != nil {
		return err
	}
	if err := v.openCatalog(path); err != nil {
		return err
	}
	return v.load()
}

// openCatalog opens the catalog, and begins a new epoch where it is damaged or gone while the own store holds batches.
func (v *volume) openCatalog(path string) error {
	cat, err := catalog.Open(path)
	if errors.Is(err, catalog.ErrCorrupt) {
		v.log.Error("catalog is damaged: it is set aside, a new epoch begins and the whole tree is read again", "error", err)
		if err := v.setAside(path); err != nil {
			return err
		}
		cat, err = catalog.Open(path)
	}
	if err != nil {
		return fmt.Errorf("open catalog: %w", err)
	}
	v.cat = cat
	return v.beginEpochIfLost()
}

// openJournal goes on reading the journal, and prepares the workers.
func (v *volume) openJournal() error {
	if err := v.mirror.Open(); err != nil {
		return err
	}
	keySet := chunk.DeriveKeys(v.secret)
	v.packing = capture.NewPacking(keySet, v.recipients, v.own, v.lookupChunk, workers.Count+1)
	v.packing.Room = v.room
	v.packing.OnPublished = func(p capture.Published) {
		v.usage.Add(p.Size)
		v.onPublished(batch.Object{Digest: p.Digest, Size: p.Size})
	}
	v.pool = workers.New(workers.Options{
		Source: v.source, Keys: keySet, Packing: v.packing, MaxShards: maxShards - 128, Distrust: v.rebooted, Wake: v.nudge,
	})
	return nil
}

func (v *volume) lookupChunk(id chunk.ID) (loc catalog.Location, ok bool, err error) {
	err = v.cat.View(func(tx *catalog.Tx) error {
		loc, ok, err = tx.Chunk(id)
		return err
	})
	return loc, ok, err
}

// applyExcludeChange compares the whole tree again when the list of excluded patterns is not the one it was sealed with.
func (v *volume) applyExcludeChange() {
	if v.meta.Head > 0 && v.meta.Excluded != v.exclude.Digest() {
		v.log.Info("exclude has changed, comparing the tree with the source")
		v.mirror.Compare()
	}
}

// room tells whether the own store may take more: what the workers have in hand, and a batch file, must still fit under the cap.
func (v *volume) room() bool {
	headroom := min(int64(workers.Count+2)*shard.MaxSize, v.capBytes/4)
	return v.capBytes <= 0 || v.usage.Bytes() < v.capBytes-headroom
}

func (v *volume) close() error {
	var errs []error
	if v.mirror != nil {
		errs = append(errs, v.mirror.Close())
	}
	if v.cat != nil {
		errs = append(errs, v.cat.Close())
	}
	return errors.Join(append(errs, v.own.Close())...)
}
