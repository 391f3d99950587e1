package shipper

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// Whoever may write into the volume's directory may write any number of files into it: so many are read.
const (
	maxWords    = 64
	maxExhibits = 16
)

// seen is a file as it was when it was read: it is read again when it has changed.
type seen struct {
	name string
	size int64
	at   time.Time
}

// word is what a replica's acks in the cache's store say.
type word struct {
	seen
	node   string // "": not a replica's, or not to be read
	epoch  batch.Epoch
	head   batch.Seq
	digest batch.Digest
}

// exhibit is a replica's batch in refused/.
type exhibit struct {
	seen
	node   string
	valid  bool // signed with key, and of this volume
	key    string
	epoch  batch.Epoch
	seq    batch.Seq
	digest batch.Digest
}

// readWords reads the acks of the volume's replicas.
func readWords(ctx context.Context, v *volume, old []word) (list []word, err error) {
	infos, err := v.in.Store.List(ctx, "acks")
	if err != nil {
		return nil, fmt.Errorf("list acks: %w", err)
	}
	for _, info := range infos {
		name, ok := strings.CutSuffix(info.Name, ".json")
		if info.Dir || !ok || v.ownStore(name) || len(list) == maxWords {
			continue
		}
		f := seen{name, info.Size, info.ModTime}
		if i := slices.IndexFunc(old, func(w word) bool { return w.seen == f }); i >= 0 {
			list = append(list, old[i])
			continue
		}
		w := word{seen: f}
		// What cannot be read says nothing: it is a hint, and anybody's who may write here.
		if a, err := ack.Read(ctx, v.in.Store, name); err == nil && a.Kind == "replica" && a.VolumeID == v.in.ID {
			w.node, w.epoch, w.head, w.digest = a.Store, a.Epoch, a.Head, a.HeadDigest
		}
		list = append(list, w)
	}
	return list, ctx.Err()
}

// ownStore tells the acks that this process writes.
func (v *volume) ownStore(name string) bool {
	return name == v.acks.Store || slices.ContainsFunc(v.cursors, func(c *cursor) bool { return c.h.name == name })
}

// readExhibits reads the batches that replicas have put into refused/ as evidence.
func readExhibits(ctx context.Context, v *volume, old []exhibit) (list []exhibit, err error) {
	infos, err := v.in.Store.List(ctx, "refused")
	if err != nil {
		return nil, fmt.Errorf("list what was refused: %w", err)
	}
	for _, info := range infos {
		node, ok := intake.EvidenceOf(info.Name)
		if info.Dir || !ok || len(list) == maxExhibits {
			continue
		}
		f := seen{path.Join("refused", info.Name), info.Size, info.ModTime}
		if i := slices.IndexFunc(old, func(x exhibit) bool { return x.seen == f }); i >= 0 {
			list = append(list, old[i])
			continue
		}
		x, err := readExhibit(ctx, v, f, node)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

// readExhibit checks what can be checked without the chain: that it is a batch of this volume with a good signature.
func readExhibit(ctx context.Context, v *volume, f seen, node string) (exhibit, error) {
	x := exhibit{seen: f, node: node}
	data, err := v.in.Store.Read(ctx, f.name, batch.MaxFile)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrTooLarge) {
		return x, nil
	}
	if err != nil {
		return x, fmt.Errorf("read %s: %w", f.name, err)
	}
	b, err := batch.Parse(data)
	if err != nil {
		return x, nil //nolint:nilerr // no batch is no evidence
	}
	env := &b.Envelope
	x.valid = env.VolumeID == v.in.ID && env.First == env.Last && b.Verify([]string{env.OwnerKey}) == nil &&
		strings.HasPrefix(path.Base(f.name), path.Base(b.Path())+".")
	x.key, x.epoch, x.seq, x.digest = env.OwnerKey, env.Epoch, env.Last, b.Digest
	return x, nil
}
