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
	"slipway/spooler/fsyncs"
	"slipway/spooler/history"
	"slipway/spooler/pending"
	"slipway/spooler/push"
	"slipway/spooler/rpo"
	"slipway/spooler/seal"
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
	peers, err := s.namedPeers()
	if err != nil {
		return err
	}
	s.vol = v
	if s.left, err = leftout.New(s.opt.Config, s.opt.Source); err != nil {
		return err
	}
	rules, err := durability.New(s.opt.Config)
	if err != nil {
		return err
	}
	s.stages = stages.New(s.opt.Config.MinReplicas, s.opt.Config.Copies, s.trouble)
	s.tellOf(v)
	if err := s.openRooms(v, peers, rules); err != nil {
		return err
	}
	v.applyExcludeChange()
	v.sealer.CheckNamed()
	if err := s.openBackups(); err != nil {
		return err
	}
	if err := s.openPushers(); err != nil {
		return err
	}
	s.openSender()
	return nil
}

// tellOf has the loop and the pushers hear of what happens in the volume.
func (s *Spooler) tellOf(v *volume) {
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
}

// openRooms opens catalog and journal, and makes what lies between them.
func (s *Spooler) openRooms(v *volume, peers []batch.Peer, rules *durability.Rules) error {
	if err := v.history.Open(s.state.Catalog()); err != nil {
		return err
	}
	if err := v.load(); err != nil {
		return err
	}
	if err := s.openSealing(v, peers); err != nil {
		return err
	}
	s.fsyncs = fsyncs.New(fsyncs.Options{
		Rules: rules, Journal: v.journalDir, Tree: v.tree, Pending: v.pending, Mirror: v.mirror, Sealer: v.sealer, History: v.history,
		Stages: s.stages, Room: v.room, Wake: s.nudge, Now: v.now,
	})
	return v.mirror.Open()
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
		timing: pending.Timing{
			Settle: cfg.Settle, MaxAge: cfg.MaxAge, OpenInterval: cfg.OpenInterval, Batch: s.opt.BatchInterval,
		},
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
	v.history = history.New(history.Options{VolumeID: v.id, Own: v.own, Dir: v.ownDir, Key: v.ownKey, Log: v.log, Now: v.now})
	return push.ClaimVolume(context.Background(), v.own, "the own store", v.identity)
}

// openSealing makes what brings files into batches.
func (s *Spooler) openSealing(v *volume, peers []batch.Peer) error {
	abandoned, err := v.abandonUnnamed(context.Background())
	if err != nil {
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
		Source: v.source, Keys: keySet, Packing: v.packing, MaxShards: seal.MaxShards - 128, Distrust: v.rebooted, Wake: v.nudge,
	})
	v.sealer = seal.New(seal.Options{
		Volume: v.name, VolumeID: v.id, Node: v.node, Key: v.ownKey, Peers: peers, Secret: v.secret, BootID: v.bootID,
		Excluded: v.exclude.Digest(), Sign: v.sign,
		Own: v.own, History: v.history, Tree: v.tree, Pending: v.pending, Mirror: v.mirror, Packing: v.packing, Deadlines: v.rpo,
		Timing: &v.timing, MaxBytes: v.capBytes / 4, Busy: v.pool.Busy,
		Committed: v.committed, Sealed: v.onSealed, Log: v.log, Now: v.now,
	})
	v.sealer.Abandon(abandoned)
	return nil
}

// committed counts what a batch takes in the own store.
func (v *volume) committed(seq batch.Seq, introduced []batch.Object, bytes int64) {
	v.evictor.Committed(seq, introduced)
	v.usage.Add(bytes)
}

func (v *volume) lookupChunk(id chunk.ID) (loc catalog.Location, ok bool, err error) {
	err = v.history.Catalog().View(func(tx *catalog.Tx) error {
		loc, ok, err = tx.Chunk(id)
		return err
	})
	return loc, ok, err
}

// applyExcludeChange compares the whole tree again when the list of excluded patterns is not the one it was sealed with.
func (v *volume) applyExcludeChange() {
	if v.history.Meta().Head > 0 && v.history.Meta().Excluded != v.exclude.Digest() {
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
	return errors.Join(append(errs, v.history.Close(), v.own.Close())...)
}
