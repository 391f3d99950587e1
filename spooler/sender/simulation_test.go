package sender

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"slipway/internal/batch"
	"slipway/internal/claim"
)

// TestSimulation runs random schedules of kills, stops, partitions, lost replies, lost disks and returns over a simulated network,
// disks and clock, with the real sender, pusher, claims and progress on every node. Whatever happened, when the faults have ended
// everything drains by itself, what is stored is exactly the owner's history, nothing acknowledged is gone, and one node sends.
func TestSimulation(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	t.Logf("%d schedules from seed %d", *schedules, seed)
	h := newHistory(t, 24, 4)
	total := map[string]int{}
	for i := range uint64(*schedules) {
		ok := t.Run(fmt.Sprint(seed+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { maps.Copy(total, simulate(t, h, seed+i, total)) })
		})
		if !ok {
			t.Fatalf("repeat it with -schedules 1 -seed %d", seed+i)
		}
	}
	t.Logf("what happened: %v", total)
	for _, fault := range []string{"crash", "stopped", "swallowed", "refused", "reply lost", "disk lost", "takeover"} {
		if total[fault] == 0 && *schedules >= 50 {
			t.Errorf("%q never happened", fault)
		}
	}
}

// simulate runs one schedule and returns the sums with it.
func simulate(t *testing.T, h *history, seed uint64, total map[string]int) map[string]int {
	r := rand.New(rand.NewPCG(seed, 7))
	c := newCluster(t, h, rand.New(rand.NewPCG(seed, 8)))
	c.net.lossy = []float64{0, 0, 0.02, 0.2}[r.IntN(4)]
	c.startCache()
	for _, n := range names {
		c.start(n)
	}
	sum := maps.Clone(total)
	for range 10 + r.IntN(30) {
		what := c.disturb(r)
		sum[what]++
		<-time.After(time.Duration(r.IntN(4000)) * time.Millisecond)
	}
	c.heal()
	if err := c.drained(5 * time.Minute); err != nil {
		t.Errorf("%v\n%s", err, c)
	}
	<-time.After(3 * time.Minute) // the owner is preferred, and healthy
	c.check(sum)
	for fault, n := range c.net.faults {
		sum[fault] += n
	}
	c.close()
	return sum
}

// disturb does one thing at random, and says what.
func (c *cluster) disturb(r *rand.Rand) string {
	name := names[r.IntN(len(names))]
	to := append(slices.Clone(names), "cache1")[r.IntN(4)]
	link := []string{name + ">" + to, name + ">", ">" + to}[r.IntN(3)]
	switch r.IntN(12) {
	case 0:
		c.crash(name)
		return "crash"
	case 1, 2:
		c.start(name)
		return "start"
	case 3:
		c.net.set(func() { c.net.frozen[name] = true })
		return "stop"
	case 4:
		c.net.set(func() { clear(c.net.frozen) })
		return "continue"
	case 5:
		c.net.set(func() { c.net.down[link] = true })
		return "down"
	case 6:
		c.net.set(func() { c.net.hole[link] = true })
		return "hole"
	case 7, 8:
		c.net.set(func() { clear(c.net.down); clear(c.net.hole) })
		return "heal"
	case 9:
		if name == "alpha" || c.node(name) != nil {
			break
		}
		c.disks[name].mu.Lock() // a dead peer's store is emptied
		clear(c.disks[name].files)
		c.disks[name].mu.Unlock()
		return "disk lost"
	case 10:
		if c.end != nil {
			c.end()
		} else {
			c.startCache()
		}
		return "cache daemon"
	}
	if c.seal() {
		return "seal"
	}
	return "nothing"
}

// heal ends all faults and starts everything again.
func (c *cluster) heal() {
	c.net.set(func() {
		clear(c.net.down)
		clear(c.net.hole)
		clear(c.net.frozen)
		c.net.lossy = 0
	})
	c.startCache()
	for _, n := range names {
		c.start(n)
	}
	c.seal() // something has to be undelivered for anybody to do something
}

// check compares what is stored with what the owner sealed.
func (c *cluster) check(sum map[string]int) {
	c.t.Helper()
	sealed := held{c.h, c.disks["alpha"]}.head()
	for _, n := range []string{"cache1", "bravo", "charlie"} {
		if got := (held{c.h, c.disks[n]}).head(); got != sealed {
			c.t.Errorf("%s holds %d batches whole, %d are sealed", n, got, sealed)
		}
		for _, b := range c.h.batches[:sealed] {
			e := &b.Envelope
			if file, _ := c.disks[n].read(batch.Path(1, e.Last, e.Last)); !bytes.Equal(file, b.File) {
				c.t.Errorf("%s holds another batch %d", n, e.Last)
			}
		}
	}
	if c.acked > sealed {
		c.t.Errorf("%d batches were acknowledged, %d are there", c.acked, sealed)
	}
	if got := fmt.Sprint(c.sending()); got != "[alpha]" {
		c.t.Errorf("%s send at the end\n%s", got, c)
	}
	newest, found, err := claim.Newest(c.t.Context(), c.store("cache1", "cache1"), c.h.volume.ID, 1)
	if err != nil {
		c.t.Error(err)
	}
	if found {
		sum["takeover"] += int(newest.Term)
		if newest.Node != "alpha" {
			c.t.Errorf("the newest claim is %+v", newest)
		}
	}
}
