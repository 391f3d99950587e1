package shipper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/config"
	"slipway/internal/intake"
	"slipway/internal/keys"
	"slipway/internal/shard"
	"slipway/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// primary stands for a primary node: it seals real batches with throw-away keys and puts them into a store.
type primary struct {
	t      *testing.T
	name   string
	id     batch.VolumeID
	key    string // public, in authorized_keys form
	sign   func(batch.Envelope) (*batch.Sealed, error)
	epoch  batch.Epoch
	next   batch.Seq
	prev   *batch.Digest
	base   batch.Seq
	sealed []*sealedBatch
}

type sealedBatch struct {
	*batch.Sealed
	shards map[shard.Digest][]byte
}

func newPrimary(t *testing.T, volume string) *primary {
	t.Helper()
	p := &primary{t: t, name: volume, id: batch.NewVolumeID(), epoch: 1, next: 1, base: 1}
	p.useKey()
	return p
}

// useKey makes a new node key, and signs with it from now on.
func (p *primary) useKey() {
	p.t.Helper()
	identity, err := age.GenerateX25519Identity()
	must(p.t, err)
	path := filepath.Join(p.t.TempDir(), "node.key")
	must(p.t, keys.NewNodeKey(path, "alpha"))
	signer, err := keys.LoadNodeKey(path)
	must(p.t, err)
	p.key = keys.PublicLine(signer)
	p.sign = func(env batch.Envelope) (*batch.Sealed, error) {
		return batch.Seal(env, &batch.Body{}, []age.Recipient{identity.Recipient()}, signer)
	}
}

// seal makes the next batch with shards of the given sizes. edit may change the envelope before it is signed.
func (p *primary) seal(sizes []int, edit func(*batch.Envelope)) *sealedBatch {
	p.t.Helper()
	b := &sealedBatch{shards: map[shard.Digest][]byte{}}
	env := batch.Envelope{
		VolumeID: p.id, Volume: p.name, Node: "alpha", Epoch: p.epoch, First: p.next, Last: p.next, Prev: p.prev, Base: p.base,
		SealedAt: time.Now(), Complete: true, Counts: batch.Counts{Files: 1},
	}
	for _, size := range sizes {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		d := shard.Sum(data)
		b.shards[d] = data
		env.Introduces = append(env.Introduces, batch.Object{Digest: d, Size: int64(size)})
	}
	if edit != nil {
		edit(&env)
	}
	var err error
	b.Sealed, err = p.sign(env)
	must(p.t, err)
	p.sealed = append(p.sealed, b)
	p.next++
	d := b.Digest
	p.prev = &d
	return b
}

func (b *sealedBatch) path() string {
	return batch.Path(b.Envelope.Epoch, b.Envelope.First, b.Envelope.Last)
}

// put publishes a batch into a store as a sender does: shards first.
func (p *primary) put(s store.Store, batches ...*sealedBatch) {
	p.t.Helper()
	ctx := context.Background()
	v := store.Sub(s, p.name)
	if _, err := v.Stat(ctx, intake.VolumeFile); err != nil {
		must(p.t, v.CreateExclusive(ctx, intake.VolumeFile, []byte(fmt.Sprintf(`{"format":1,"volume":%q,"volume_id":%q}`, p.name, p.id))))
	}
	for _, b := range batches {
		for d, data := range b.shards {
			must(p.t, v.Publish(ctx, d.Path(), data))
		}
		must(p.t, v.Publish(ctx, b.path(), b.File))
	}
}

// cacheHost is a cache host with its backup hosts.
type cacheHost struct {
	t     *testing.T
	cfg   *config.Cache
	store store.Store
	clock *clock
	log   *recorder
	hosts map[string]*testHost
	ship  *Shipper
}

// clock is set by hand; it stands still otherwise, at the real time of its making plus what was added.
type clock struct {
	mu  sync.Mutex
	add time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.add)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add += d
}

func newCacheHost(t *testing.T, backups ...string) *cacheHost {
	t.Helper()
	dir := t.TempDir()
	c := &cacheHost{t: t, clock: &clock{}, log: &recorder{}, hosts: map[string]*testHost{}}
	c.cfg = &config.Cache{
		Node: "cache1", Name: "cache1", Store: filepath.Join(dir, "store"), State: filepath.Join(dir, "state"),
		Ship: config.Ship{When: []config.Condition{{Age: new(time.Duration)}}, Copies: len(backups), Keep: 24 * time.Hour, VerifyAfter: time.Hour},
	}
	must(t, os.Mkdir(c.cfg.Store, 0o770))
	for _, name := range backups {
		at := filepath.Join(dir, name)
		must(t, os.Mkdir(at, 0o770))
		inner, err := store.Open(at, store.Options{})
		must(t, err)
		c.hosts[name] = &testHost{Store: inner, name: name, dir: at, published: map[string]int{}}
		c.cfg.Ship.To = append(c.cfg.Ship.To, config.Store{Name: name, URL: at})
	}
	var err error
	c.store, err = store.Open(c.cfg.Store, store.Options{})
	must(t, err)
	return c
}

// start makes a new shipper process; what was in the memory of the one before is forgotten.
func (c *cacheHost) start() *Shipper {
	c.t.Helper()
	s, err := New(Options{
		Config: c.cfg, Now: c.clock.now, Log: slog.New(c.log),
		OpenStore: func(st config.Store) (store.Store, error) { return c.hosts[st.Name], nil },
	})
	must(c.t, err)
	c.ship = s
	return s
}

// once starts a process if there is none, and runs the step.
func (c *cacheHost) once() error {
	c.t.Helper()
	if c.ship == nil {
		c.start()
	}
	return c.ship.ShipOnce(context.Background(), false)
}

func (c *cacheHost) mustOnce() {
	c.t.Helper()
	must(c.t, c.once())
}

// acks reads an acks file of the cache.
func (c *cacheHost) acks(volume, name string) ack.Acks {
	c.t.Helper()
	a, err := ack.Read(context.Background(), store.Sub(c.store, volume), name)
	if errors.Is(err, store.ErrNotExist) {
		return ack.Acks{}
	}
	must(c.t, err)
	return a
}

// wantHead compares the heads in acks files.
func (c *cacheHost) wantHead(volume, name string, head batch.Seq) {
	c.t.Helper()
	if got := c.acks(volume, name).Head; got != head {
		c.t.Errorf("acks of %s for %s: head %d, want %d", name, volume, got, head)
	}
}

// wantCopy compares a backup host's directory with what was sealed, byte for byte.
func (c *cacheHost) wantCopy(host string, p *primary, batches ...*sealedBatch) {
	c.t.Helper()
	v := store.Sub(c.hosts[host].Store, p.name)
	for _, b := range batches {
		for d, data := range b.shards {
			wantObject(c.t, v, d.Path(), data)
		}
		wantObject(c.t, v, b.path(), b.File)
	}
}

func wantObject(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	got, err := s.Read(context.Background(), name, 64<<20)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	if string(got) != string(data) {
		t.Errorf("%s differs from what was sealed", name)
	}
}

// testHost is a backup host whose faults are switched by hand.
type testHost struct {
	store.Store
	name string
	dir  string

	mu        sync.Mutex
	fault     error                                     // of every call
	before    func(ctx context.Context, n string) error // before every Publish
	published map[string]int                            // completed publishes by name
}

func (h *testHost) setFault(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = err
}

func (h *testHost) setBefore(f func(context.Context, string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *testHost) down() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault != nil {
		return fmt.Errorf("reach %s: %w", h.name, h.fault)
	}
	return nil
}

func (h *testHost) count() (total int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.published {
		total += n
	}
	return total
}

func (h *testHost) Publish(ctx context.Context, name string, data []byte) error {
	h.mu.Lock()
	before := h.before
	h.mu.Unlock()
	if err := h.down(); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx, name); err != nil {
			return err
		}
	}
	_, there := h.Store.Stat(ctx, name)
	err := h.Store.Publish(ctx, name, data)
	if err == nil && there != nil {
		h.mu.Lock()
		h.published[name]++
		h.mu.Unlock()
	}
	return err
}

func (h *testHost) Read(ctx context.Context, name string, max int64) ([]byte, error) {
	if err := h.down(); err != nil {
		return nil, err
	}
	return h.Store.Read(ctx, name, max)
}

func (h *testHost) Stat(ctx context.Context, name string) (store.Info, error) {
	if err := h.down(); err != nil {
		return store.Info{}, err
	}
	return h.Store.Stat(ctx, name)
}

func (h *testHost) CreateExclusive(ctx context.Context, name string, data []byte) error {
	if err := h.down(); err != nil {
		return err
	}
	return h.Store.CreateExclusive(ctx, name, data)
}

// Remove is what a backup host never allows.
func (h *testHost) Remove(context.Context, string) error { return store.ErrReadSide }

// recorder keeps log lines, and finds the illegal ones.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	line := rec.Level.String() + " " + rec.Message
	rec.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

func (r *recorder) find(text string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// noneIllegal fails the test if a cursor ever took a transition that docs/sending.md does not have.
func (c *cacheHost) noneIllegal() {
	c.t.Helper()
	if c.log.find("illegal=true") > 0 {
		c.t.Errorf("an illegal transition was taken: %s", strings.Join(c.log.lines, "\n"))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
