package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/keys"
	"slipway/internal/shard"
	"slipway/internal/state"
	"slipway/internal/store"
	"slipway/spooler/push"
)

// history is a volume's batches as its owner sealed them, made once for all schedules.
type history struct {
	volume  state.Volume
	batches []*batch.Sealed // by seq - 1
	shards  map[shard.Digest][]byte
}

func newHistory(t testing.TB, n, shards int) *history {
	t.Helper()
	h := &history{volume: state.Volume{Format: 1, Name: "projects", ID: batch.NewVolumeID()}, shards: map[shard.Digest][]byte{}}
	key := filepath.Join(t.TempDir(), "node.key")
	must(t, keys.NewNodeKey(key, "alpha"))
	signer, err := keys.LoadNodeKey(key)
	must(t, err)
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	var prev *batch.Digest
	for seq := batch.Seq(1); seq <= batch.Seq(n); seq++ {
		env := batch.Envelope{
			VolumeID: h.volume.ID, Volume: h.volume.Name, Node: "alpha", Epoch: 1, First: seq, Last: seq, Prev: prev, Base: 1,
			SealedAt: time.Unix(int64(seq), 0).UTC(), Complete: true, Peers: []batch.Peer{{Name: "bravo"}, {Name: "charlie"}},
		}
		for range 1 + r.IntN(shards) {
			data := make([]byte, 100+r.IntN(400))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			d := shard.Sum(data)
			h.shards[d] = data
			env.Introduces = append(env.Introduces, batch.Object{Digest: d, Size: int64(len(data))})
		}
		sealed, err := batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
		must(t, err)
		h.batches = append(h.batches, sealed)
		prev = &sealed.Digest
	}
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// held is the history as far as a disk holds it whole.
type held struct {
	h *history
	d *disk
}

func (l held) head() (head batch.Seq) {
	for _, b := range l.h.batches {
		e := &b.Envelope
		if _, ok := l.d.read(batch.Path(1, e.Last, e.Last)); !ok {
			return head
		}
		for _, o := range e.Introduces {
			if _, ok := l.d.read(o.Digest.Path()); !ok {
				return head
			}
		}
		head = e.Last
	}
	return head
}

func (l held) Bounds() (push.Bounds, error) {
	return push.Bounds{Epoch: 1, Head: l.head(), Base: 1}, nil
}

func (l held) Sealed(seq batch.Seq) (push.Batch, bool, error) {
	if seq < 1 || seq > l.head() {
		return push.Batch{}, false, nil
	}
	return push.Batch{Epoch: 1, Seq: seq, Digest: l.h.batches[seq-1].Digest}, true, nil
}

// cluster is alpha, the owner, its peers bravo and charlie, and the cache.
type cluster struct {
	t     *testing.T
	h     *history
	net   *network
	disks map[string]*disk
	end   func() // of the cache's daemon
	group errgroup.Group

	mu    sync.Mutex // guards what follows
	nodes map[string]*node
	acked batch.Seq // highest head that the cache ever acknowledged
}

// node returns a node's process, nil while it is dead.
func (c *cluster) node(name string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name]
}

func (c *cluster) setNode(name string, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[name] = n
}

var names = []string{"alpha", "bravo", "charlie"}

// node is one node's process.
type node struct {
	name   string
	c      *cluster
	sender *Sender
	pushes []*push.Pusher // the owner's, to its peers
	stop   context.CancelFunc
	ended  chan error
}

func newCluster(t *testing.T, h *history, r *rand.Rand) *cluster {
	c := &cluster{t: t, h: h, net: newNetwork(r), disks: map[string]*disk{}, nodes: map[string]*node{}}
	for _, n := range append([]string{"cache1"}, names...) {
		c.disks[n] = newDisk()
	}
	return c
}

// store returns a node's disk as another one reaches it.
func (c *cluster) store(from, to string) store.Store {
	return &reached{net: c.net, from: from, to: to, d: c.disks[to], event: func(name string) {
		if n := c.node(to); n != nil && !strings.HasPrefix(name, "shards/") {
			n.sender.Wake() // as the watch of progress files does, and whoever takes what arrives
		}
	}}
}

// start starts a node's process, from what is on its disk.
func (c *cluster) start(name string) {
	if c.node(name) != nil {
		return
	}
	log := held{c.h, c.disks[name]}
	target := push.Target{
		Name: "cache1", Kind: "cache", Dest: c.store(name, "cache1"), Volume: c.h.volume, Own: c.store(name, name), Log: log,
		Follower: name != "alpha", RetryMax: 2 * time.Second,
	}
	n := &node{name: name, c: c, ended: make(chan error, 1)}
	var others []Place
	for _, o := range names {
		if o == name {
			continue
		}
		target.Elsewhere = append(target.Elsewhere, c.store(name, o))
		if o != "alpha" {
			others = append(others, Place{Name: o, Store: c.store(name, o)})
		}
		if name == "alpha" {
			to := target
			to.Name, to.Kind, to.Dest, to.Elsewhere = o, "replica", c.store(name, o), nil
			n.pushes = append(n.pushes, push.New(to))
		}
	}
	n.sender = New(Options{
		Node: name, VolumeID: c.h.volume.ID, Volume: "projects",
		Present: func() Present {
			return Present{Epoch: 1, Owner: "alpha", Peers: names[1:], Held: log.head()}
		},
		Own: c.store(name, name), Cache: Place{Name: "cache1", Store: c.store(name, "cache1")}, Others: others, Pusher: push.New(target),
	})
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	c.setNode(name, n)
	c.group.Go(func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return n.sender.Run(ctx) })
		if name != "alpha" {
			g.Go(func() error { return c.acknowledge(ctx, name, "replica") })
		}
		for _, p := range n.pushes {
			g.Go(func() error { return p.Run(ctx) })
		}
		n.ended <- g.Wait()
		return nil
	})
}

// crash ends a node's process; its disk stays.
func (c *cluster) crash(name string) {
	n := c.node(name)
	if n == nil {
		return
	}
	c.net.set(func() { delete(c.net.frozen, name) })
	n.stop()
	if err := <-n.ended; err != nil && !errors.Is(err, context.Canceled) {
		c.t.Errorf("%s ended: %v", name, err)
	}
	c.setNode(name, nil)
}

// seal lets the owner seal its next batch.
func (c *cluster) seal() bool {
	d := c.disks["alpha"]
	next := held{c.h, d}.head() + 1
	if int(next) > len(c.h.batches) || c.node("alpha") == nil {
		return false
	}
	b := c.h.batches[next-1]
	for _, o := range b.Envelope.Introduces {
		must(c.t, d.publish(o.Digest.Path(), c.h.shards[o.Digest]))
	}
	must(c.t, d.publish(batch.Path(1, next, next), b.File))
	n := c.node("alpha")
	for _, p := range n.pushes {
		p.Wake()
	}
	n.sender.opt.Pusher.Wake()
	n.sender.Wake()
	return true
}

// arrive wakes what would notice that a batch has come.
func (c *cluster) arrive() {
	for _, name := range names {
		if n := c.node(name); n != nil {
			n.sender.opt.Pusher.Wake()
		}
	}
}

// startCache runs the cache's daemon.
func (c *cluster) startCache() {
	if c.end != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	c.end = func() { stop(); <-ended; c.end = nil }
	c.group.Go(func() error {
		defer close(ended)
		return c.acknowledge(ctx, "cache1", "cache")
	})
}

// acknowledge says in acks what a store holds whole, as the daemon beside it does.
func (c *cluster) acknowledge(ctx context.Context, name, kind string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	said := batch.Seq(1 << 30)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		head := held{c.h, c.disks[name]}.head()
		if head == said {
			continue
		}
		a := ack.Acks{VolumeID: c.h.volume.ID, Store: name, Kind: kind, Copies: 1, At: time.Now()}
		if head > 0 {
			a.Advance(1, head, c.h.batches[head-1].Digest, time.Now())
		}
		if err := ack.Write(ctx, c.store(name, name), a); err != nil {
			continue
		}
		said = head
		if name == "cache1" {
			c.mu.Lock()
			c.acked = max(c.acked, head)
			c.mu.Unlock()
		}
	}
}

// close ends everything.
func (c *cluster) close() {
	for _, n := range names {
		c.crash(n)
	}
	if c.end != nil {
		c.end()
	}
	must(c.t, c.group.Wait())
}

// drained waits until the cache has acknowledged all that was sealed, or says what is missing.
func (c *cluster) drained(within time.Duration) error {
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		sealed := held{c.h, c.disks["alpha"]}.head()
		c.mu.Lock()
		acked := c.acked
		c.mu.Unlock()
		if acked >= sealed {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("%d batches are sealed, %d acknowledged after %v", sealed, acked, within)
		case <-tick.C:
			c.arrive()
		}
	}
}

// sending returns who sends, as each of them sees itself.
func (c *cluster) sending() (list []string) {
	for _, n := range names {
		if x := c.node(n); x != nil && x.sender.Report().State == Sending {
			list = append(list, n)
		}
	}
	return list
}
