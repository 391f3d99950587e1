//go:build cluster

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ack"
	"slipway/internal/batch"
	"slipway/internal/shard"
)

const (
	big      = 48 << 20 // the file that is on its way when something happens
	trickle  = 1 << 20  // bytes a second that cache1 takes until something happens
	cacheIn  = 16 << 20 // and afterwards
	inFlight = 3        // connections that a sender uses for shards at once
)

// takeoverRig is a cluster with a big batch on its way: the peers hold it whole, cache1 has a part of it.
func takeoverRig(t *testing.T) *cluster {
	t.Helper()
	return takeoverRigWith(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}})
}

func takeoverRigWith(t *testing.T, opt clusterOptions) *cluster {
	t.Helper()
	r := random(t)
	c := newCluster(t, opt)
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	c.write(r, "first", 1000)
	c.wait("stored")
	c.slow("cache1", trickle)
	must(t, os.WriteFile(filepath.Join(c.mount, "big"), noise(r, big), 0o644))
	c.eventually(time.Minute, "the peers to hold the batch that cache1 lacks", func() error {
		if has := c.shards("cache1"); has > big/2 {
			t.Fatalf("cache1 has got %d bytes before anything has happened", has)
		}
		for _, peer := range []string{"bravo", "charlie"} {
			if c.shards(peer) < big || int(c.acked(peer, peer)) <= c.holds("cache1") {
				return fmt.Errorf("%s holds %d bytes in shards, and acknowledges batch %d", peer, c.shards(peer), c.acked(peer, peer))
			}
		}
		return nil
	})
	return c
}

// shards returns the bytes of shards in a host's store.
func (c *cluster) shards(host string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(c.hosts[host].data, "projects", "shards", "*", "*.shard"))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			n += st.Size()
		}
	}
	return n
}

// peerOn runs a replica peer's daemon.
func (c *cluster) peerOn(node string) *process {
	c.t.Helper()
	return c.spawn(node, "peer on "+node, "peer", "-c", c.peerConfig(node))
}

// holds returns the newest batch file of epoch 1 in a host's store.
func (c *cluster) holds(host string) int {
	files, _ := filepath.Glob(filepath.Join(c.hosts[host].data, "projects", "batches", "00000001", "00000000", "*.batch"))
	return len(files)
}

// acked returns the head in a store's acks as they lie on a host.
func (c *cluster) acked(host, store string) batch.Seq {
	a, err := readAcks(filepath.Join(c.hosts[host].data, "projects", "acks", store+".json"))
	if err != nil {
		return 0
	}
	return a.Head
}

// claims returns the names of the claims on cache1.
func (c *cluster) claims() []string {
	list, err := os.ReadDir(filepath.Join(c.hosts["cache1"].data, "projects", "claims"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// takenOver waits for the claim of term 1 and returns how long it took since a moment.
func (c *cluster) takenOver(since time.Time) time.Duration {
	c.t.Helper()
	c.eventually(30*time.Second, "a takeover", func() error {
		if len(c.claims()) == 0 {
			return errors.New("there is no claim")
		}
		return nil
	})
	return time.Since(since)
}

// TestTakeover does to the sender all that the figures name, in the middle of a big batch, and measures how long its replacement
// takes, and how many bytes travel twice.
func TestTakeover(t *testing.T) {
	const second = time.Second
	rows := []struct {
		name    string
		fault   func(c *cluster)
		within  time.Duration
		returns func(c *cluster)
	}{
		{"reported error", func(c *cluster) {
			must(c.t, c.net.Refuse("alpha", "cache1"))
			c.send(syscall.SIGKILL, c.sessionsFrom("alpha", "cache1")...)
		}, second, nil},
		{"primary killed", func(c *cluster) { c.powerOff("alpha") }, 6 * second, func(c *cluster) {
			c.powerOn("alpha")
			c.startPrimary()
		}},
		{"spooler stopped", func(c *cluster) { c.stop("alpha", spooler) }, 6 * second, func(c *cluster) { c.cont("alpha", spooler) }},
		{"all links down", func(c *cluster) { c.linkDown("alpha") }, 6 * second, func(c *cluster) { c.linkUp("alpha") }},
		{"sftp-server stopped", func(c *cluster) { c.send(syscall.SIGSTOP, c.sessionsFrom("alpha", "cache1")...) }, 6 * second, func(c *cluster) { c.send(syscall.SIGCONT, c.sessionsFrom("alpha", "cache1")...) }},
		{"link to the cache swallows all", func(c *cluster) { c.blackhole("alpha", "cache1") }, 6 * second, func(c *cluster) { c.heal("alpha", "cache1") }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := takeoverRig(t)
			want := c.acked("bravo", "bravo")
			began := time.Now()
			row.fault(c)
			c.slow("cache1", cacheIn)
			took := c.takenOver(began)
			t.Logf("taken over after %.2f s", took.Seconds())
			if took > row.within {
				t.Errorf("taken over after %v, want %v at most", took, row.within)
			}
			c.eventually(60*time.Second, "the batch from bravo's copy", func() error {
				if got := c.acked("cache1", "cache1"); got < want {
					return fmt.Errorf("cache1 acknowledges batch %d", got)
				}
				return nil
			})
			c.sentOnce()
			if row.returns != nil {
				row.returns(c)
				c.slow("cache1", 0)
				c.write(random(t), "after", 1000)
				c.wait("stored")
			}
		})
	}
}

// sentOnce checks that no more than a shard a connection has travelled twice.
func (c *cluster) sentOnce() {
	c.t.Helper()
	alpha, bravo, charlie := c.traffic("alpha", "cache1").In, c.traffic("bravo", "cache1").In, c.traffic("charlie", "cache1").In
	twice := alpha + bravo + charlie - big
	c.t.Logf("alpha sent %d KiB in all, bravo %d KiB, charlie %d KiB: at most %d KiB twice", alpha>>10, bravo>>10, charlie>>10, twice>>10)
	if twice > inFlight*shard.MaxSize+1<<20 {
		c.t.Errorf("%d bytes were sent twice", twice)
	}
}

// TestSpoolerKilledAlone: it is back within a second, and nobody takes over.
func TestSpoolerKilledAlone(t *testing.T) {
	t.Parallel()
	c := takeoverRig(t)
	killed := c.kill("alpha", spooler)
	began := time.Now()
	c.eventually(10*time.Second, "another spooler", func() error {
		if now := c.pids("alpha", spooler); len(now) != 1 || now[0] == killed[0] {
			return fmt.Errorf("processes %v, killed %v", now, killed)
		}
		return nil
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("the spooler was back after %v", took)
	}
	c.slow("cache1", cacheIn)
	c.wait("stored")
	if got := c.claims(); len(got) > 0 {
		t.Errorf("claims %v", got)
	}
}

// TestSlowLinkNeverFlaps: on a link of 1 MiB/s that is always busy nobody takes over.
func TestSlowLinkNeverFlaps(t *testing.T) {
	t.Parallel()
	r := random(t)
	c := newCluster(t, clusterOptions{siteOptions: siteOptions{inPlace: true, vaults: []string{"vault1"}}})
	c.start()
	c.peerOn("bravo")
	c.peerOn("charlie")
	c.write(r, "first", 1000)
	c.wait("stored")
	c.slow("cache1", 1<<20)
	deadline := time.Now().Add(time.Duration(count(60, 600)) * time.Second)
	busy := 0
	for i := 0; time.Now().Before(deadline); i++ {
		before := c.acked("bravo", "bravo")
		c.write(r, fmt.Sprintf("file%d", i%4), 8<<20)
		c.eventually(time.Minute, "bravo to have it", func() error { // a batch for each file: 8 s of the line
			if got := c.acked("bravo", "bravo"); got == before {
				return fmt.Errorf("bravo acknowledges batch %d", got)
			}
			return nil
		})
		c.eventually(5*time.Minute, "room for more", func() error {
			if lag := int(c.acked("bravo", "bravo")) - c.holds("cache1"); lag > 0 {
				busy++
				if lag > 1 {
					return fmt.Errorf("cache1 lags by %d batches: it holds %d and acknowledges %d, with %d bytes in shards; bravo acknowledges %d",
						lag, c.holds("cache1"), c.acked("cache1", "cache1"), c.shards("cache1"), c.acked("bravo", "bravo"))
				}
			}
			return nil
		})
		if got := c.claims(); len(got) > 0 {
			t.Fatalf("claims %v: somebody took over from a slow sender", got)
		}
	}
	if busy == 0 {
		t.Error("the link was never behind")
	}
	t.Logf("cache1 was seen behind %d times", busy)
}

func readAcks(path string) (ack.Acks, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return ack.Acks{}, err
	}
	return ack.Decode(data)
}
