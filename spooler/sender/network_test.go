package sender

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/internal/store"
)

// disk is a node's disk: what a method reported as done is there, whatever process dies.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
	twice int64 // bytes of objects published that were there already
}

func newDisk() *disk { return &disk{files: map[string][]byte{}} }

func (d *disk) publish(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.files[name]; ok {
		if !bytes.Equal(old, data) {
			return fmt.Errorf("publish %s: %w", name, store.ErrDiffers)
		}
		d.twice += int64(len(data))
		return nil
	}
	d.files[name] = data
	return nil
}

func (d *disk) create(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.files[name]; ok {
		return fmt.Errorf("create %s: %w", name, store.ErrExist)
	}
	d.files[name] = data
	return nil
}

func (d *disk) replace(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = data
}

func (d *disk) read(name string) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, ok := d.files[name]
	return data, ok
}

func (d *disk) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
}

func (d *disk) list(dir string) []store.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := map[string]store.Info{}
	for name, data := range d.files {
		rest, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
		if !ok {
			continue
		}
		first, _, deeper := strings.Cut(rest, "/")
		found[first] = store.Info{Name: first, Size: int64(len(data)), Dir: deeper}
	}
	all := make([]store.Info, 0, len(found))
	for _, i := range found {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b store.Info) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// network connects nodes to disks. Its clock is the bubble's.
type network struct {
	mu     sync.Mutex
	r      *rand.Rand
	down   map[string]bool // "alpha>cache1", "alpha>" (all of a node's), ">cache1" (all to it): refused at once
	hole   map[string]bool // likewise: swallowed without a word
	frozen map[string]bool // stopped nodes
	change chan struct{}   // closed and replaced whenever one of these changes
	lossy  float64         // how many replies of what was done are lost
	faults map[string]int  // faults that hit an operation
}

func newNetwork(r *rand.Rand) *network {
	return &network{
		r: r, down: map[string]bool{}, hole: map[string]bool{}, frozen: map[string]bool{},
		change: make(chan struct{}), faults: map[string]int{},
	}
}

// set changes the network.
func (n *network) set(edit func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	edit()
	close(n.change)
	n.change = make(chan struct{})
}

// cross is one trip of a request: latency, or what has become of the way.
func (n *network) cross(ctx context.Context, from, to string) error {
	for {
		n.mu.Lock()
		links := []string{from + ">" + to, from + ">", ">" + to}
		any := func(m map[string]bool) bool { return slices.ContainsFunc(links, func(l string) bool { return m[l] }) }
		frozen, hole, down, change := n.frozen[from], any(n.hole), any(n.down), n.change
		wait := time.Duration(n.r.IntN(20)) * time.Millisecond
		switch {
		case frozen:
			n.faults["stopped"]++
		case hole:
			n.faults["swallowed"]++
		case down:
			n.faults["refused"]++
		}
		n.mu.Unlock()
		switch {
		case frozen: // a stopped process does not even notice that its time is over
			<-change
			continue
		case hole:
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", store.ErrTemporary, ctx.Err())
			case <-change:
			case <-time.After(10 * time.Second):
				return fmt.Errorf("%w: no answer", store.ErrTemporary)
			}
			continue
		case down:
			return fmt.Errorf("%w: refused", store.ErrTemporary)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", store.ErrTemporary, ctx.Err())
		case <-time.After(wait):
			return nil
		}
	}
}

func (n *network) loses() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	lost := n.r.Float64() < n.lossy
	if lost {
		n.faults["reply lost"]++
	}
	return lost
}

// reached is a store on another node's disk, as one node sees it over the network.
type reached struct {
	net      *network
	from, to string
	d        *disk
	event    func(name string) // told of each object that came
}

func (s *reached) do(ctx context.Context, fn func() error) error {
	if s.from == s.to {
		return errorOf(ctx, fn)
	}
	if err := s.net.cross(ctx, s.from, s.to); err != nil {
		return err
	}
	err := fn()
	if s.net.loses() {
		return fmt.Errorf("%w: the reply was lost", store.ErrTemporary)
	}
	if back := s.net.cross(ctx, s.from, s.to); back != nil {
		return back
	}
	return err
}

func errorOf(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

func (s *reached) Publish(ctx context.Context, name string, data []byte) error {
	return s.do(ctx, func() error { defer s.event(name); return s.d.publish(name, data) })
}

func (s *reached) CreateExclusive(ctx context.Context, name string, data []byte) error {
	return s.do(ctx, func() error { return s.d.create(name, data) })
}

func (s *reached) Replace(ctx context.Context, name string, data []byte) error {
	return s.do(ctx, func() error { s.d.replace(name, data); s.event(name); return nil })
}

func (s *reached) Read(ctx context.Context, name string, max int64) (data []byte, err error) {
	err = s.do(ctx, func() error {
		found, ok := s.d.read(name)
		if !ok {
			return fmt.Errorf("read %s: %w", name, store.ErrNotExist)
		}
		if int64(len(found)) > max {
			return fmt.Errorf("read %s: %w", name, store.ErrTooLarge)
		}
		data = found
		return nil
	})
	return data, err
}

func (s *reached) Stat(ctx context.Context, name string) (i store.Info, err error) {
	err = s.do(ctx, func() error {
		found, ok := s.d.read(name)
		if !ok {
			return fmt.Errorf("stat %s: %w", name, store.ErrNotExist)
		}
		i = store.Info{Name: path.Base(name), Size: int64(len(found)), ModTime: time.Now()}
		return nil
	})
	return i, err
}

func (s *reached) List(ctx context.Context, dir string) (list []store.Info, err error) {
	err = s.do(ctx, func() error { list = s.d.list(dir); return nil })
	return list, err
}

func (s *reached) Remove(ctx context.Context, name string) error {
	return s.do(ctx, func() error { s.d.remove(name); return nil })
}

func (s *reached) Close() error { return nil }
