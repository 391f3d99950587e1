package promote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/config"
	"slipway/internal/durable"
	"slipway/internal/restore/chain"
	"slipway/internal/warm"
)

// WarmDir is where a peer keeps a volume's warm tree.
func WarmDir(c *config.Peer, volume string) string { return filepath.Join(c.Warm, volume) }

// WarmState is where it keeps what it knows of the tree.
func WarmState(c *config.Peer, volume string) string { return filepath.Join(c.State, "warm", volume) }

// yieldWithin is how soon a running peer lets go of the warm tree.
const yieldWithin = 10 * time.Second

// Owned tells whether this peer is the volume's owner, or about to be: it then leaves the volume alone.
func Owned(c *config.Peer, volume string) bool {
	if _, err := os.Lstat(ConfigPath(c, volume)); err == nil {
		return true
	}
	data, err := os.ReadFile(underway(c, volume))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// underway names the process that promotes.
func underway(c *config.Peer, volume string) string {
	return filepath.Join(owned(c, volume), "promoting")
}

// isWarm tells whether the warm tree becomes the source.
func (r *run) isWarm() bool {
	c := r.opt.Config
	return c.Warm != "" && r.opt.Source == WarmDir(c, r.opt.Volume)
}

// takeWarm brings the warm tree to the head, which costs what changed since its last step, and makes it the source: nothing of the
// volume is read or written again. A peer that runs lets go of it first.
func (r *run) takeWarm(ctx context.Context, v *view) error {
	c := r.opt.Config
	t, err := r.openWarm(ctx)
	if err != nil {
		return err
	}
	at, err := t.ApplyOnce(ctx)
	lacks, lerr := t.Lacks()
	e := &v.head.Envelope
	aside := fmt.Sprintf("%s.aside-epoch-%d", WarmDir(c, r.opt.Volume), e.Epoch+1)
	moved, merr := t.Yield(aside)
	if err := errors.Join(err, lerr, merr, t.Close()); err != nil {
		return err
	}
	if moved {
		r.result.Warnings = append(r.result.Warnings, "what had been moved aside in the warm tree lies in "+aside+" now")
	}
	switch {
	case at.Epoch != e.Epoch || at.Seq != e.Last:
		return fmt.Errorf("%w: the warm tree is at batch %d of epoch %d, the newest one is %d of epoch %d; name another directory with --source to have it restored",
			ErrPartial, at.Seq, at.Epoch, e.Last, e.Epoch)
	case len(lacks) > 0 && !r.opt.Force:
		return fmt.Errorf("%d files of the warm tree, the first %s: %w: %s; with --force the next batch says that they are gone, older ones keep them",
			len(lacks), lacks[0].Path, ErrPartial, lacks[0].Why)
	}
	return nil
}

func (r *run) openWarm(ctx context.Context) (*warm.Tree, error) {
	opt := warm.Options{
		Dir: WarmDir(r.opt.Config, r.opt.Volume), State: WarmState(r.opt.Config, r.opt.Volume),
		Source: func(context.Context) (chain.Source, error) {
			return chain.Source{Stores: r.stores, IDs: r.id.Identities, Owners: r.owners}, nil
		},
	}
	timeout := time.NewTimer(yieldWithin)
	defer timeout.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := warm.Open(opt)
		if !errors.Is(err, durable.ErrLocked) {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, fmt.Errorf("wait for this node's peer to let go of it: %w", err)
		case <-tick.C:
		}
	}
}

// ForgetWarm ends the warm tree's state: the directory has become the volume's source, which people write.
func ForgetWarm(c *config.Peer, volume string) error {
	if err := os.RemoveAll(WarmState(c, volume)); err != nil {
		return fmt.Errorf("forget the warm tree: %w", err)
	}
	return nil
}
