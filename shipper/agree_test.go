package shipper

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/durable"
	"slipway/internal/intake"
	"slipway/internal/store"
)

// fork seals two batches under the next number; the second is no part of the primary's history.
func (p *primary) fork() (ours, theirs *sealedBatch) {
	prev := p.prev
	theirs = p.seal([]int{1000}, nil)
	p.next, p.prev, p.sealed = p.next-1, prev, p.sealed[:len(p.sealed)-1]
	return p.seal([]int{1000}, nil), theirs
}

// says writes a replica's acks into the cache, as the replica does.
func (c *cacheHost) says(p *primary, node string, epoch batch.Epoch, seq batch.Seq, d batch.Digest) {
	c.t.Helper()
	must(c.t, ack.Write(context.Background(), store.Sub(c.store, p.name), ack.Acks{
		VolumeID: p.id, Store: node, Kind: "replica", Epoch: epoch, Head: seq, HeadDigest: d, At: c.clock.now(),
	}))
}

// testify puts a replica's own batch into the cache, as the replica does. It returns its name.
func (c *cacheHost) testify(p *primary, node string, b *sealedBatch) string {
	c.t.Helper()
	parsed, err := batch.Parse(b.File)
	must(c.t, err)
	name := intake.Evidence(parsed, node)
	must(c.t, store.Sub(c.store, p.name).Publish(context.Background(), name, b.File))
	return name
}

// warns fails unless status has a warning with all these words, or, with none, no warning.
func (c *cacheHost) warns(words ...string) {
	c.t.Helper()
	list, err := c.ship.Status(context.Background())
	must(c.t, err)
	all := strings.Join(list[0].Warnings, "\n")
	if len(words) == 0 && all != "" {
		c.t.Errorf("warnings: %s", all)
	}
	for _, w := range words {
		if !strings.Contains(all, w) {
			c.t.Errorf("no %q in the warnings: %s", w, all)
		}
	}
}

// explains returns what `ship --explain` says that a batch waits for; "": nothing is said of it.
func (c *cacheHost) explains(seq batch.Seq) (reason string, when *time.Time) {
	c.t.Helper()
	list, err := c.ship.Explanations(context.Background())
	must(c.t, err)
	for _, e := range list {
		if e.Seq == seq {
			return e.WaitsFor, e.When
		}
	}
	return "", nil
}

// A replica that lies about its digests, without evidence, holds the batch back for 10 s, once; then the copy that verifies goes.
func TestLyingReplica(t *testing.T) {
	c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
	first := p.seal([]int{100}, nil)
	p.put(c.store, first)
	c.says(p, "bravo", 1, 1, first.Digest)
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	c.warns()
	c.says(p, "bravo", 1, 2, batch.Digest{7})
	p.put(c.store, p.seal([]int{100}, nil), p.seal([]int{100}, nil))
	c.mustOnce()
	c.wantHead("projects", "cache1", 3)
	c.wantHead("projects", "vault1", 1)
	c.warns("bravo", "batch 2", batch.Digest{7}.String(), p.sealed[1].Digest.String(), "10 s at most")
	for _, seq := range []batch.Seq{2, 3} {
		if reason, when := c.explains(seq); !strings.Contains(reason, "replica bravo holds another batch 2") || when == nil {
			t.Errorf("batch %d waits for %q until %v", seq, reason, when)
		}
	}
	c.clock.pass(9 * time.Second)
	c.mustOnce()
	c.wantHead("projects", "vault1", 1)
	c.clock.pass(2 * time.Second)
	c.mustOnce()
	c.wantHead("projects", "vault1", 3)
	c.wantCopy("vault1", p, p.sealed...)
	c.warns("bravo", "batch 2", "no evidence that verifies")
	// It lies again, about another number: that holds nothing up any more.
	c.says(p, "bravo", 1, 4, batch.Digest{8})
	p.put(c.store, p.seal([]int{100}, nil))
	c.mustOnce()
	c.wantHead("projects", "vault1", 4)
	c.says(p, "bravo", 1, 4, p.sealed[3].Digest)
	c.mustOnce()
	c.warns()
	c.noneIllegal()
}

// Evidence that the owner signed is a fork: nothing goes until an operator has removed it, or the cache's batch.
func TestFork(t *testing.T) {
	t.Run("the evidence is removed", func(t *testing.T) {
		c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
		p.put(c.store, p.seal([]int{100}, nil))
		ours, theirs := p.fork()
		c.says(p, "bravo", 1, 2, theirs.Digest)
		name := c.testify(p, "bravo", theirs)
		p.put(c.store, ours, p.seal([]int{100}, nil))
		c.mustOnce()
		c.wantHead("projects", "vault1", 1)
		c.clock.pass(4 * time.Minute)
		c.start() // a restart does not forget it
		c.mustOnce()
		c.wantHead("projects", "vault1", 1)
		c.warns("FORK", "bravo", "batch 2", ours.Digest.String(), theirs.Digest.String(), name, ours.path())
		if reason, when := c.explains(3); !strings.Contains(reason, "operator") || when != nil {
			t.Errorf("batch 3 waits for %q until %v", reason, when)
		}
		must(t, c.ship.Do(context.Background(), "ship", "projects"))
		c.mustOnce()
		c.wantHead("projects", "vault1", 1)
		must(t, durable.Remove(filepath.Join(c.cfg.Store, "projects", name)))
		c.says(p, "bravo", 1, 2, ours.Digest)
		c.mustOnce()
		c.wantHead("projects", "vault1", 3)
		c.warns()
		c.noneIllegal()
	})
	t.Run("the cache's batch is removed", func(t *testing.T) {
		c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
		p.put(c.store, p.seal([]int{100}, nil))
		ours, theirs := p.fork()
		c.testify(p, "bravo", theirs)
		p.put(c.store, ours)
		c.mustOnce()
		c.wantHead("projects", "vault1", 1)
		must(t, durable.Remove(filepath.Join(c.cfg.Store, "projects", filepath.FromSlash(ours.path()))))
		c.mustOnce()
		c.wantHead("projects", "cache1", 1)
		p.put(c.store, theirs)
		c.mustOnce()
		c.wantHead("projects", "vault1", 2)
		c.wantCopy("vault1", p, theirs)
	})
}

// What is no evidence: a stranger's batch, garbage, the same batch, one of another volume, one under another's name.
func TestNoEvidence(t *testing.T) {
	c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{100}, nil))
	c.mustOnce()
	key, sign := p.key, p.sign
	p.useKey()
	_, strangers := p.fork()
	p.key, p.sign, p.sealed, p.next = key, sign, p.sealed[:1], 2
	d := p.sealed[0].Digest
	p.prev = &d
	other := newPrimary(t, "projects")
	other.sign, other.next, other.prev = p.sign, 2, &d
	ours, theirs := p.fork()
	c.testify(p, "bravo", strangers)
	c.testify(p, "charlie", ours)
	c.testify(p, "delta", other.seal([]int{100}, nil))
	dir := filepath.Join(c.cfg.Store, "projects", "refused")
	must(t, durable.CreateExclusive(filepath.Join(dir, "000000000002-000000000002.batch.disagrees-echo"), []byte("garbage"), 0o660))
	must(t, durable.CreateExclusive(filepath.Join(dir, "000000000009-000000000009.batch.disagrees-golf"), theirs.File, 0o660))
	p.put(c.store, ours)
	c.mustOnce()
	c.wantHead("projects", "vault1", 2)
	c.warns()
}

// A replica that is ahead, behind, of another epoch, or knows nothing disagrees with nobody; nor does a backup host's name.
func TestNoDisagreement(t *testing.T) {
	c, p := newCacheHost(t, "vault1"), newPrimary(t, "projects")
	p.put(c.store, p.seal([]int{100}, nil), p.seal([]int{100}, nil))
	c.says(p, "bravo", 1, 9, batch.Digest{9})
	c.says(p, "charlie", 2, 2, batch.Digest{9})
	c.says(p, "delta", 1, 1, p.sealed[0].Digest)
	c.says(p, "echo", 0, 0, batch.Digest{})
	c.says(p, "vault1", 1, 1, batch.Digest{9})
	c.mustOnce()
	c.wantHead("projects", "vault1", 2)
	c.warns()
}
