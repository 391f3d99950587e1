package fusefs

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// pruner keeps the number of nodes, each of which holds a descriptor, below what the process may have open: it asks the
// kernel to forget names that nobody uses. It runs beside the handlers, because the kernel may have to wait for one of them.
type pruner struct {
	fs        *filesystem
	wake      chan struct{}
	high, low int
}

// grown is told how many nodes there are.
func (p *pruner) grown(n int) {
	if n <= p.high {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pruner) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			p.step()
		}
	}
}

// openat is openat(2), never inherited by children, repeated when interrupted or when there is no descriptor left for it: a
// walk may make nodes faster than the kernel forgets them.
func (f *filesystem) openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	for {
		err = again(func() error {
			fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
			return err
		})
		if !errors.Is(err, unix.EMFILE) || !f.prune.room(time.Second) {
			return fd, err
		}
	}
}

// room waits until there are fewer nodes than now.
func (p *pruner) room(patience time.Duration) bool {
	before := p.fs.nodes.size()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for p.fs.nodes.size() >= before {
		p.grown(p.high + 1)
		select {
		case <-deadline.C:
			return false
		case <-again.C:
		}
	}
	return true
}

// victim is a name the kernel is asked to forget.
type victim struct {
	id     uint64
	parent uint64
	name   string
}

// step asks the kernel to forget as many names as there are too many. What it forgets comes back as Forget by and by; that
// one is in use, or gone already, is no matter.
func (p *pruner) step() {
	victims := p.victims()
	ids := make([]uint64, len(victims))
	for i, v := range victims {
		ids[i] = v.id
	}
	if len(ids) == 0 || p.fs.device.prune(ids) == nil {
		return
	}
	// Before Linux 6.18 the kernel takes the directory's lock for it, which an operation may hold that waits for us.
	var g errgroup.Group
	g.SetLimit(4)
	for _, v := range victims {
		g.Go(func() error {
			p.fs.device.forgetName(v.parent, v.name)
			return nil
		})
	}
	_ = g.Wait()
}

// victims picks nodes without handles; Go walks a map in no particular order, which is as good as any here.
func (p *pruner) victims() []victim {
	t := p.fs.nodes
	t.mu.RLock()
	defer t.mu.RUnlock()
	need := min(max(len(t.byID)-p.low, 64), 1024) // few enough for one message
	var vs []victim
	for _, n := range t.byID {
		if need <= 0 {
			break
		}
		if n.refs > 0 || n.parent == nil || n.parent.id == 0 {
			continue
		}
		vs = append(vs, victim{n.id, n.parent.id, n.name})
		need--
	}
	return vs
}
