// Package supervisor is the first of the processes of `slipway mount`: it opens the source directory before anything is
// mounted, and keeps the mount process and the spooler running, each with a descriptor of that directory; and, where the node holds
// other nodes' volumes as well, a replica peer. It does nothing else, so that there is little it can die of.
//
// What is true after a crash. Of a child: it is started again within a second, later if it keeps dying; the other one does not
// notice. Of the supervisor: both children are killed by the kernel, the lock is free, and a dead mount lies at the mount point
// until the next supervisor starts, so that nobody reaches the bare directory by accident. That supervisor opens the source beneath the dead
// mount, and its mount process replaces it.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/durable"
	"slipway/internal/state"
)

// The descriptors a child is started with.
const (
	SourceFD = 3 // the source directory, both children
	ReadyFD  = 4 // the mount process writes a line here when it is mounted
)

// ExitConfig is the exit code by which the mount process says that no restart will help.
const ExitConfig = 2

// ExitSuperseded is the exit code by which the spooler says that another node owns the volume now: it is not started again. The mount
// goes on serving, because applications must not fail; the next start is refused.
const ExitSuperseded = 6

var (
	// ErrSuperseded says that the spooler ended with ExitSuperseded.
	ErrSuperseded = errors.New("another node owns the volume now: nothing written here is backed up any more")
	// ErrBusy says that another supervisor holds the state directory.
	ErrBusy = errors.New("another slipway mount runs with this state directory")
	// ErrMounted says that a living slipway mount lies where source or mount point are.
	ErrMounted = errors.New("a slipway mount is there and alive")
	// ErrPlace says that source or mount point cannot serve as that.
	ErrPlace = errors.New("not usable")
	// ErrConfig says that the mount process ended with ExitConfig.
	ErrConfig = errors.New("the mount process refuses its configuration")
	// ErrPeerConfig says that the replica peer did. The volume is backed up all the same.
	ErrPeerConfig = errors.New("the replica peer refuses its configuration: it is not run")
)

// Options say what to supervise.
type Options struct {
	StateDir   string
	SourceDir  string
	MountPoint string // may be SourceDir
	// MountArgs and SpoolerArgs are the children's arguments, the program's name first; the program is /proc/self/exe. Paths
	// in them are absolute: the children work in /, never in a directory that may come to lie below the mount.
	MountArgs   []string
	SpoolerArgs []string
	PeerArgs    []string // of a replica peer for other nodes' volumes, which shares nothing with the other two; nil: none
	// Reload: each is a wish to read the configuration again, which is the spooler's and the peer's matter. The mount stays as it is.
	Reload      <-chan os.Signal
	Reloaded    func() // called when a wish was handed on
	Ready       func() // called once, when the mount process says for the first time that it is mounted
	Logger      *slog.Logger
	StopTimeout time.Duration // how long a child may take to end when asked, then it is killed; 0: 30 s

	times times
}

// times are the waits that tests shorten.
type times struct {
	lock  time.Duration // for another supervisor to end
	dying time.Duration // for a mount whose supervisor has just died
	quick time.Duration // who lives shorter dies quickly, and is started again later and later
}

func (o *Options) setDefaults() {
	if o.Ready == nil {
		o.Ready = func() {}
	}
	if o.Reloaded == nil {
		o.Reloaded = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 30 * time.Second
	}
	if o.times == (times{}) {
		o.times = times{lock: 10 * time.Second, dying: 3 * time.Second, quick: 3 * time.Second}
	}
}

// Run supervises until the mount process is unmounted from outside (nil), says that no restart helps (ErrConfig), or ctx ends:
// then the mount process is asked to unmount, and when it has ended the spooler is asked to end. The spooler always ends last.
func Run(ctx context.Context, o Options) error {
	o.setDefaults()
	lock, err := takeLock(ctx, state.Dir(o.StateDir), o.times.lock)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the kernel frees it with the process in any case
	p, err := preparePlace(ctx, o.SourceDir, o.MountPoint, o.times.dying)
	if err != nil {
		return err
	}
	defer p.close()
	err = superviseAll(ctx, &o, p)
	if ctx.Err() != nil {
		err = errors.Join(err, p.detachDead())
	}
	return err
}

func superviseAll(ctx context.Context, o *Options, p *place) error {
	mount := &child{
		name: "mount process", args: o.MountArgs, place: p, verdict: mountVerdict, ready: sync.OnceFunc(o.Ready),
		log: o.Logger, stopTimeout: o.StopTimeout, quick: o.times.quick,
	}
	spooler := &child{
		name: "spooler", args: o.SpoolerArgs, place: p, verdict: spoolerVerdict,
		log: o.Logger, stopTimeout: o.StopTimeout, quick: o.times.quick,
	}
	// The spooler outlives ctx: what the mount process journals while it unmounts is sealed in the same run.
	spoolerCtx, stopSpooler := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error {
		defer stopSpooler()
		return mount.keep(ctx)
	})
	g.Go(func() error { return spooler.keep(spoolerCtx) })
	readers := []*child{spooler}
	if o.PeerArgs != nil {
		readers = append(readers, o.peer())
		g.Go(func() error { return readers[1].keep(spoolerCtx) }) // until the volume is unmounted
	}
	g.Go(func() error {
		o.handOn(spoolerCtx, readers)
		return nil
	})
	return g.Wait()
}

// peer is the child for other nodes' volumes.
func (o *Options) peer() *child {
	return &child{name: "peer", args: o.PeerArgs, verdict: peerVerdict, log: o.Logger, stopTimeout: o.StopTimeout, quick: o.times.quick}
}

// handOn hands each wish on to the children that read the configuration. One that is just being started reads it anyway.
func (o *Options) handOn(ctx context.Context, readers []*child) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-o.Reload:
			for _, c := range readers {
				c.signal(sig)
			}
			o.Reloaded()
		}
	}
}

// takeLock waits for the supervisor before us to end, as long as patience lasts.
func takeLock(ctx context.Context, dir state.Dir, patience time.Duration) (*os.File, error) {
	if err := durable.MkdirAll(string(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		lock, err := durable.Lock(dir.Lock())
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, fmt.Errorf("lock state directory: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return nil, fmt.Errorf("lock state directory %s: %w", dir, ErrBusy)
		case <-again.C:
		}
	}
}
